//! TDs: commands, calls, and how `KVM_RUN` ends.

mod calls;
mod commands;
mod entries;
mod instructions;
mod map_gpa;
mod memory;

use crate::world::kernel;
use exeunt_abi::ghci::Status;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::cpuid::CpuidEntry2;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::{ExitReason, MAP_GPA_RANGE, Payload};
use exeunt_abi::kvm::tdx::InitVm;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::tdx::attributes;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::guest::tdx::TdRegs;
use exeunt_model::guest::{Cpu, GuestFault};
use exeunt_model::{Host, Kvm, Slot, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;
use zerocopy::FromZeros;

pub(crate) const MEMORY_BYTES: u64 = 0x100_0000;
/// The shared bit of an address of 48 bits.
pub(crate) const SHARED: u64 = 1 << 47;

/// The width of addresses as the VMM chooses it for the TD.
pub(crate) fn address_bits(bits: u32) -> CpuidEntry2 {
    CpuidEntry2 { function: 0x8000_0008, eax: bits << 16, ..CpuidEntry2::default() }
}

pub(crate) fn init_vm() -> InitVm {
    let mut init = InitVm::new_zeroed();
    init.attributes = attributes::SEPT_VE_DISABLE;
    init.xfam = 0xe7;
    init
}

/// A TD with memory, before `KVM_TDX_INIT_VM`, on the newest kernel.
pub(crate) fn new_td() -> Vm {
    let vm = Kvm::on(Host::INTEL, kernel(Dialect::Linux7_2)).create_vm(VmType::Tdx).unwrap();
    let file = vm.create_guest_memfd(MEMORY_BYTES).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), MEMORY_BYTES).unwrap().with_guest_memfd(file, 0)).unwrap();
    vm.split_irqchip(24).unwrap();
    vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << MAP_GPA_RANGE).unwrap();
    vm.set_memory_attributes(Gpa(0), MEMORY_BYTES, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    vm
}

/// A TD whose addresses have this many bits, initialised.
pub(crate) fn initialised_with(bits: u32) -> Vm {
    let vm = new_td();
    vm.tdx_init_vm(&init_vm(), &[address_bits(bits)]).unwrap();
    vm
}

pub(crate) fn initialised() -> Vm {
    initialised_with(48)
}

/// The CPUID of a vCPU: x2APIC, which `KVM_TDX_INIT_VCPU` needs, and this many bits of physical addresses.
pub(crate) fn cpuid(address_bits: u32) -> Vec<CpuidEntry2> {
    let leaf = |function, eax, ecx| CpuidEntry2 { function, eax, ecx, ..CpuidEntry2::default() };
    vec![
        leaf(0, 7, 0),
        leaf(1, 0, 1 << 21),
        CpuidEntry2 { ebx: 2, ecx: 3, edx: 4, ..leaf(7, 1, 0) },
        leaf(0x8000_0000, 0x8000_0008, 0),
        leaf(0x8000_0008, address_bits, 0),
    ]
}

/// A vCPU with its CPUID, initialised.
pub(crate) fn vcpu_with<P, F>(vm: &Vm, rcx: u64, program: P) -> Vcpu
where
    P: FnOnce(Cpu) -> F,
    F: Future<Output = Result<(), GuestFault>> + Send + 'static,
{
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    vcpu.set_cpuid2(&cpuid(52)).unwrap();
    vcpu.tdx_init_vcpu(rcx).unwrap();
    vcpu
}

/// A vCPU of a TD that may run.
pub(crate) fn finalised<P, F>(vm: &Vm, program: P) -> Vcpu
where
    P: FnOnce(Cpu) -> F,
    F: Future<Output = Result<(), GuestFault>> + Send + 'static,
{
    let vcpu = vcpu_with(vm, 0, program);
    vm.tdx_finalize_vm().unwrap();
    vcpu
}

pub(crate) async fn halts(_: Cpu) -> Result<(), GuestFault> {
    Ok(())
}

/// Enters, and expects the guest to have nothing more to do: its vCPU blocks until a signal.
pub(crate) fn run_to_halt(vcpu: &mut Vcpu) {
    assert_eq!(vcpu.enter(), Err(Errno::EINTR));
    assert_eq!(vcpu.page().reason(), ExitReason::INTR);
}

pub(crate) fn payload<T: Payload>(vcpu: &Vcpu, reason: ExitReason) -> T {
    assert_eq!(vcpu.page().reason(), reason);
    vcpu.page().payload()
}

/// What a call left in R10 and R11.
pub(crate) fn r10_r11(regs: &TdRegs) -> (Status, u64) {
    (regs.status(), regs.r11)
}
