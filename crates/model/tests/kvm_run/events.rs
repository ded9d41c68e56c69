//! Triple faults, and the events that carry them across a snapshot.

use crate::world::{Seen, kernel, launched, reason, run_to_halt};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::{
    VALID_NMI_PENDING, VALID_PAYLOAD, VALID_SHADOW, VALID_SIPI_VECTOR, VALID_SMM, VALID_TRIPLE_FAULT,
    VcpuEvents,
};
use exeunt_abi::kvm::mp_state::SIPI_RECEIVED;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno};
use exeunt_model::guest::{Cpu, Note};
use exeunt_model::{Host, Kvm, Vcpu};
use exeunt_proto::events::{triple_fault, with_triple_fault};
use exeunt_proto::host::{Events as _, Vcpu as _};
use zerocopy::FromZeros as _;

/// A general-protection fault as userspace injects it.
const GP: u8 = 13;

fn halting(capability: bool) -> (Vcpu, Seen<u64>) {
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    vm.enable_cap(Cap::X86_TRIPLE_FAULT_EVENT, u64::from(capability)).unwrap();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        for turn in 0.. {
            log.push(turn);
            cpu.hlt().await;
        }
        Ok(())
    };
    (vm.create_vcpu(0, program).unwrap(), seen)
}

fn with_gp(mut events: VcpuEvents) -> VcpuEvents {
    events.exception_injected = 1;
    events.exception_nr = GP;
    events
}

#[test]
fn a_requested_triple_fault_is_one_shutdown_and_the_guest_runs_on() {
    let (mut vcpu, seen) = halting(true);
    vcpu.raise_triple_fault();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
    assert!(seen.take().is_empty(), "the guest was entered");
    run_to_halt(&mut vcpu);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [0, 1]);
}

#[test]
fn a_triple_fault_moves_with_the_events_and_reading_them_does_not_take_it() {
    let (mut source, _) = halting(true);
    source.raise_triple_fault();
    let events = source.events().unwrap();
    assert_eq!(triple_fault(&events), Some(true));
    assert_eq!(source.events(), Ok(events), "reading is idempotent");

    let (mut target, seen) = halting(true);
    target.set_events(&events).unwrap();
    assert_eq!(target.events(), Ok(events));
    assert_eq!(target.enter(), Ok(()));
    assert_eq!(reason(&target), ExitReason::SHUTDOWN);
    assert_eq!(triple_fault(&target.events().unwrap()), Some(false), "the exit took it");
    assert!(seen.take().is_empty());
}

#[test]
fn events_can_take_a_triple_fault_back() {
    let (mut vcpu, seen) = halting(true);
    vcpu.raise_triple_fault();
    let events = vcpu.events().unwrap();
    vcpu.set_events(&with_triple_fault(events, false)).unwrap();
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [0]);
}

#[test]
fn without_the_capability_a_triple_fault_is_not_reported_and_still_happens() {
    let (mut vcpu, _) = halting(false);
    vcpu.raise_triple_fault();
    let events = vcpu.events().unwrap();
    assert_eq!(triple_fault(&events), None);
    assert_eq!(vcpu.event_flags() & VALID_TRIPLE_FAULT, 0);
    vcpu.set_events(&events).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
}

#[test]
fn a_triple_fault_without_the_capability_is_refused_after_the_exception_is_taken() {
    let (mut vcpu, _) = halting(false);
    let events = with_triple_fault(with_gp(vcpu.events().unwrap()), true);
    assert_eq!(vcpu.set_events(&events), Err(Errno::EINVAL));
    let after = vcpu.events().unwrap();
    assert_eq!((after.exception_injected, after.exception_nr), (1, GP));
    run_to_halt(&mut vcpu);
}

#[test]
fn unknown_flags_and_impossible_exceptions_change_nothing() {
    let (mut vcpu, _) = halting(true);
    let before = vcpu.events().unwrap();
    let mut unknown = with_gp(before);
    unknown.flags |= 0x40;
    assert_eq!(vcpu.set_events(&unknown), Err(Errno::EINVAL));
    for nr in [2, 32, 255] {
        let mut impossible = with_gp(before);
        impossible.exception_nr = nr;
        assert_eq!(vcpu.set_events(&impossible), Err(Errno::EINVAL));
    }
    assert_eq!(vcpu.events(), Ok(before));
}

#[test]
fn a_triple_fault_of_the_guest_itself_is_a_shutdown_too() {
    for vm_type in [VmType::Default, VmType::SevEs, VmType::Snp] {
        let vm = launched(Dialect::Linux7_2, vm_type);
        let program = |cpu: Cpu| async move {
            cpu.triple_fault().await;
            Ok(())
        };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        vcpu.page_mut().exit = [0xaa; 256];
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
        assert_eq!(vcpu.page().exit, [0xaa; 256], "there is no payload");
        if vm_type == VmType::Default {
            run_to_halt(&mut vcpu);
            continue;
        }
        for _ in 0..2 {
            assert_eq!(vcpu.enter(), Ok(()));
            assert_eq!(reason(&vcpu), ExitReason::FAIL_ENTRY, "an encrypted guest stays shut down");
        }
    }
}

/// A vCPU with both capabilities of events, or without.
fn with_caps(on: bool) -> Vcpu {
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    for cap in [Cap::EXCEPTION_PAYLOAD, Cap::X86_TRIPLE_FAULT_EVENT] {
        vm.enable_cap(cap, u64::from(on)).unwrap();
    }
    vm.create_vcpu(0, |_| async { Ok(()) }).unwrap()
}

/// A page fault with a payload, as step 2 of `KVM_SET_VCPU_EVENTS` judges it.
fn page_fault(flags: u32, injected: u8, pending: u8) -> VcpuEvents {
    let mut events = VcpuEvents::new_zeroed();
    events.flags = flags;
    (events.exception_injected, events.exception_pending, events.exception_nr) = (injected, pending, 14);
    (events.exception_has_payload, events.exception_payload) = (1, 0x5000);
    events
}

#[test]
fn a_payload_needs_its_capability_and_a_pending_exception() {
    let mut without = with_caps(false);
    let before = without.events().unwrap();
    assert_eq!(without.set_events(&page_fault(VALID_PAYLOAD, 0, 1)), Err(Errno::EINVAL));
    assert_eq!(without.events(), Ok(before), "nothing changed");

    for (injected, pending) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut vcpu = with_caps(true);
        vcpu.set_events(&page_fault(VALID_PAYLOAD, injected, pending)).unwrap();
        let got = vcpu.events().unwrap();
        assert_eq!(got.exception_pending, pending);
        assert_eq!(got.exception_injected, injected & !pending, "pending wins");
        assert_eq!(got.exception_has_payload, pending, "only what waits has a payload");

        let mut vcpu = with_caps(true);
        vcpu.set_events(&page_fault(0, injected, pending)).unwrap();
        let got = vcpu.events().unwrap();
        let state = (got.exception_pending, got.exception_injected, got.exception_has_payload);
        assert_eq!(state, (0, injected, 0), "without the flag nothing is pending");
    }
}

#[test]
fn what_has_a_flag_is_taken_with_it_and_the_rest_always() {
    for flags in 0..16 {
        let mut vcpu = with_caps(true);
        let mut events = VcpuEvents::new_zeroed();
        events.flags = flags;
        (events.interrupt_injected, events.interrupt_nr, events.interrupt_shadow) = (1, 99, 1);
        (events.nmi_injected, events.nmi_pending, events.nmi_masked) = (1, 1, 1);
        (events.smi_smm, events.smi_pending, events.smi_smm_inside_nmi) = (1, 1, 1);
        (events.nmi_pad, events.reserved) = (0xff, [0xff; 26]);
        vcpu.set_events(&events).unwrap();
        let got = vcpu.events().unwrap();
        assert_eq!((got.interrupt_injected, got.interrupt_nr), (1, 99));
        assert_eq!((got.nmi_injected, got.nmi_masked), (1, 1));
        let if_set = |flag: u32| u8::from(flags & flag != 0);
        assert_eq!(got.interrupt_shadow, 3 * if_set(VALID_SHADOW), "SVM cannot tell the two apart");
        assert_eq!(got.nmi_pending, if_set(VALID_NMI_PENDING));
        let smm = (got.smi_smm, got.smi_pending, got.smi_smm_inside_nmi);
        assert_eq!(smm, (if_set(VALID_SMM), if_set(VALID_SMM), if_set(VALID_SMM)));
        assert_eq!(got.sipi_vector, 0, "never reported");
        assert_eq!((got.nmi_pad, got.reserved), (0, [0; 26]), "never checked, never kept");
    }
}

#[test]
fn more_nmis_than_can_wait_are_clamped_when_they_are_looked_at() {
    for (sent, masked, waits) in [(0, 0, 0), (1, 0, 1), (2, 0, 2), (200, 0, 2), (2, 1, 1)] {
        let mut vcpu = with_caps(true);
        let mut events = VcpuEvents::new_zeroed();
        events.flags = VALID_NMI_PENDING;
        (events.nmi_pending, events.nmi_masked) = (sent, masked);
        vcpu.set_events(&events).unwrap();
        assert_eq!(vcpu.events().unwrap().nmi_pending, waits, "{sent} sent");
    }
}

#[test]
fn a_shadow_on_intel_is_one_of_two() {
    for (set, got) in [(0, 0), (1, 1), (2, 2), (3, 1), (4, 0), (0xff, 1)] {
        let vm = Kvm::on(Host::INTEL, kernel(Dialect::Linux7_2)).create_vm(VmType::Default).unwrap();
        let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        let mut events = VcpuEvents::new_zeroed();
        (events.flags, events.interrupt_shadow) = (VALID_SHADOW, set);
        vcpu.set_events(&events).unwrap();
        assert_eq!(vcpu.events().unwrap().interrupt_shadow, got, "{set}");
    }
}

#[test]
fn what_was_injected_reaches_the_guest_and_its_vector_stays_stale() {
    let mut vcpu = with_caps(true);
    let _ = vcpu.take_notes();
    let mut events = page_fault(VALID_PAYLOAD, 0, 1);
    events.interrupt_injected = 1;
    events.interrupt_nr = 99;
    vcpu.set_events(&events).unwrap();
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
    assert_eq!(vcpu.events().unwrap().exception_pending, 1, "the guest was not entered");
    run_to_halt(&mut vcpu);
    let got = vcpu.events().unwrap();
    assert_eq!((got.exception_pending, got.exception_injected, got.exception_nr), (0, 0, 14));
    assert_eq!((got.interrupt_injected, got.interrupt_nr), (0, 99));
    let notes = ["takes exception 14", "takes interrupt 99"].map(|note| Note::Did(note.into()));
    assert_eq!(vcpu.take_notes(), notes);
}

/// An application processor of a VM with local APICs in the kernel, or one without.
fn application_processor(in_kernel: bool) -> (Vcpu, Vcpu, Seen<u64>) {
    let vm = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::Default).unwrap();
    if in_kernel {
        vm.create_irqchip().unwrap();
    }
    let first = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        log.push(cpu.sipi_vector().map_or(0, u64::from));
        Ok(())
    };
    (first, vm.create_vcpu(0, program).unwrap(), seen)
}

#[test]
fn a_startup_vector_is_taken_with_its_flag_where_the_kernel_has_the_apic() {
    for (flags, vector) in [(0, 0), (VALID_SIPI_VECTOR, 0x9a)] {
        let (_first, mut vcpu, seen) = application_processor(true);
        let mut events = VcpuEvents::new_zeroed();
        (events.flags, events.sipi_vector) = (flags, 0x9a);
        vcpu.set_events(&events).unwrap();
        assert_eq!(vcpu.events().unwrap().sipi_vector, 0, "never reported");
        vcpu.set_mp_state(SIPI_RECEIVED).unwrap();
        assert_eq!(vcpu.enter(), Err(Errno::EINTR), "the program ends, and the processor halts");
        assert_eq!(seen.take(), [vector], "flags {flags:#x}");
    }
    let (_first, mut vcpu, _) = application_processor(false);
    assert_eq!(vcpu.set_mp_state(SIPI_RECEIVED), Err(Errno::EINVAL));
}

#[test]
fn an_init_is_latched_where_the_kernel_has_the_apic() {
    for in_kernel in [false, true] {
        for flags in [0, VALID_SMM] {
            let (_first, mut vcpu, _) = application_processor(in_kernel);
            let mut events = VcpuEvents::new_zeroed();
            // In system management mode it stays latched.
            (events.flags, events.smi_smm, events.smi_latched_init) = (flags, 1, 1);
            vcpu.set_events(&events).unwrap();
            let latched = in_kernel && flags != 0;
            assert_eq!(vcpu.events().unwrap().smi_latched_init, u8::from(latched));
            events.smi_latched_init = 0;
            vcpu.set_events(&events).unwrap();
            assert_eq!(vcpu.events().unwrap().smi_latched_init, 0);
        }
    }
}
