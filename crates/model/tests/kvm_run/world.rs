//! The VMs that the tests run their guests in.

use exeunt_abi::ghcb::msr;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{ExitReason, Hypercall, MAP_GPA_RANGE};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Gpa, Kernel};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Cpu, GuestFault};
use exeunt_model::{Kvm, Slot, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;
use std::sync::{Arc, Mutex};

pub(crate) const MEMORY_BYTES: u64 = 0x40_0000;
/// The page that the guests use for their GHCB.
pub(crate) const GHCB: Gpa = Gpa(0x10_0000);
/// A page that the guests convert.
pub(crate) const DATA: Gpa = Gpa(0x20_0000);

pub(crate) fn kernel(dialect: Dialect) -> Kernel {
    Kernel { dialect, arch: Arch::X86 }
}

/// A VM with memory, not yet initialised.
pub(crate) fn new_vm(kernel: Kernel, vm_type: VmType) -> Vm {
    let vm = Kvm::new(kernel).create_vm(vm_type).unwrap();
    let slot = Slot::shared(0, Gpa(0), MEMORY_BYTES).unwrap();
    if vm.check_extension(Cap::GUEST_MEMFD) == 0 {
        vm.add_slot(slot).unwrap();
        return vm;
    }
    let file = vm.create_guest_memfd(MEMORY_BYTES).unwrap();
    vm.add_slot(slot.with_guest_memfd(file, 0)).unwrap();
    vm
}

/// A VM that has been launched, with conversions forwarded where the kernel can.
pub(crate) fn launched(dialect: Dialect, vm_type: VmType) -> Vm {
    let vm = new_vm(kernel(dialect), vm_type);
    if dialect.has_exit_hypercall() {
        vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << MAP_GPA_RANGE).unwrap();
    }
    if vm_type.has_protected_state() {
        vm.sev_init2(0).unwrap();
        vm.launch().unwrap();
    }
    vm
}

pub(crate) fn snp() -> Vm {
    launched(Dialect::Linux7_2, VmType::Snp)
}

/// Registers the GHCB, which is shared from the start.
pub(crate) async fn registered(cpu: &Cpu) -> Result<Ghcb, GuestFault> {
    cpu.vmgexit(GHCB.0 | msr::REGISTER_GPA_REQUEST).await?;
    Ok(Ghcb::at(GHCB))
}

/// What a guest saw, for the test to look at.
#[derive(Clone, Debug)]
pub(crate) struct Seen<T>(pub(crate) Arc<Mutex<Vec<T>>>);

impl<T> Seen<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn push(&self, what: T) {
        self.0.lock().unwrap().push(what);
    }

    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

pub(crate) fn reason(vcpu: &Vcpu) -> ExitReason {
    vcpu.page().reason()
}

pub(crate) fn hypercall(vcpu: &Vcpu) -> Hypercall {
    assert_eq!(reason(vcpu), ExitReason::HYPERCALL);
    vcpu.page().payload()
}

/// Puts any number into `hypercall.ret`, as a VMM can.
pub(crate) fn answer(vcpu: &mut Vcpu, ret: u64) {
    let mut hypercall: Hypercall = vcpu.page().payload();
    hypercall.ret = ret;
    vcpu.page_mut().set_payload(&hypercall);
}

/// Enters, and expects the guest to halt.
pub(crate) fn run_to_halt(vcpu: &mut Vcpu) {
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(vcpu), ExitReason::HLT);
}

/// An arm64 vCPU that makes these PSCI calls, and what it finds in `x0` after each.
pub(crate) fn calling(vm: &Vm, calls: Vec<(u32, [u64; 3])>) -> (Vcpu, Seen<u64>) {
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        for (function, args) in calls {
            log.push(cpu.psci(function, args).await?);
        }
        Ok(())
    };
    (vm.create_vcpu(0, program).unwrap(), seen)
}
