//! Guests that open no window for events: `KVM_EXIT_NOTIFY`.

use crate::world::{kernel, reason, run_to_halt};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{ExitReason, NOTIFY_CONTEXT_INVALID, Notify};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno};
use exeunt_model::guest::Cpu;
use exeunt_model::{Host, Kvm, Vm};
use exeunt_proto::events::with_triple_fault;
use exeunt_proto::host::{Events as _, Vcpu as _};

const ENABLED: u64 = 1;
const USER: u64 = 2;
/// A window, in the upper half of the argument.
const WINDOW: u64 = 0x2_0000 << 32;

fn intel(dialect: Dialect) -> Vm {
    Kvm::on(Host::INTEL, kernel(dialect)).create_vm(VmType::Default).unwrap()
}

#[test]
fn the_capability_needs_intel_the_flag_and_to_come_before_the_vcpus() {
    for flags in 0..16 {
        let result = intel(Dialect::Linux7_2).enable_cap(Cap::X86_NOTIFY_VMEXIT, WINDOW | flags);
        assert_eq!(result.is_ok(), matches!(flags, 1 | 3), "flags {flags:#x}");
    }
    assert_eq!(intel(Dialect::Linux6_1).check_extension(Cap::X86_NOTIFY_VMEXIT), 1);
    assert_eq!(intel(Dialect::Linux5_17).enable_cap(Cap::X86_NOTIFY_VMEXIT, ENABLED), Err(Errno::EINVAL));
    let amd = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::Default).unwrap();
    assert_eq!(amd.enable_cap(Cap::X86_NOTIFY_VMEXIT, ENABLED), Err(Errno::EINVAL));
    let vm = intel(Dialect::Linux7_2);
    let _vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    assert_eq!(vm.enable_cap(Cap::X86_NOTIFY_VMEXIT, ENABLED), Err(Errno::EINVAL), "after a vCPU");
}

#[test]
fn userspace_learns_of_it_if_it_asked_or_if_the_context_is_lost() {
    for (argument, invalid, exits) in [
        (0, false, false),
        (0, true, false),
        (ENABLED, false, false),
        (ENABLED, true, true),
        (ENABLED | USER, false, true),
        (ENABLED | USER, true, true),
    ] {
        let vm = intel(Dialect::Linux7_2);
        if argument != 0 {
            vm.enable_cap(Cap::X86_NOTIFY_VMEXIT, WINDOW | argument).unwrap();
        }
        let program = move |cpu: Cpu| async move { cpu.close_event_window(invalid).await };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        vcpu.page_mut().exit = [0xaa; 256];
        if exits {
            assert_eq!(vcpu.enter(), Ok(()));
            assert_eq!(reason(&vcpu), ExitReason::NOTIFY);
            let flags = if invalid { NOTIFY_CONTEXT_INVALID } else { 0 };
            assert_eq!(vcpu.page().payload::<Notify>().flags, flags);
            assert_eq!(vcpu.page().exit[4..], [0xaa; 252]);
        }
        run_to_halt(&mut vcpu);
    }
}

#[test]
fn a_vmm_ends_a_guest_that_lost_its_context_by_a_triple_fault() {
    let vm = intel(Dialect::Linux7_2);
    vm.enable_cap(Cap::X86_NOTIFY_VMEXIT, ENABLED).unwrap();
    vm.enable_cap(Cap::X86_TRIPLE_FAULT_EVENT, 1).unwrap();
    let mut vcpu = vm.create_vcpu(0, |cpu: Cpu| async move { cpu.close_event_window(true).await }).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::NOTIFY);
    let events = with_triple_fault(vcpu.events().unwrap(), true);
    vcpu.set_events(&events).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
}
