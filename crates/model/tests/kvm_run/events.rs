//! Triple faults, and the events that carry them across a snapshot.

use crate::world::{Seen, launched, reason, run_to_halt};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::{VALID_TRIPLE_FAULT, VcpuEvents};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno};
use exeunt_model::Vcpu;
use exeunt_model::guest::Cpu;
use exeunt_proto::events::{triple_fault, with_triple_fault};
use exeunt_proto::host::{Events as _, Vcpu as _};

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
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
        run_to_halt(&mut vcpu);
    }
}
