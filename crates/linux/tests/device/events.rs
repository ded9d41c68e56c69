//! The triple fault as an event of the vCPU.

use exeunt_abi::Errno;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::{VALID_ALL, VALID_TRIPLE_FAULT};
use exeunt_linux::{Vcpu, Vm, guests};
use exeunt_proto::events::{triple_fault, with_triple_fault};
use exeunt_proto::exit::Exit;
use exeunt_proto::host::Events as _;

use crate::boot::{boot, device, load, next, start};

/// A VM whose events carry the triple fault, and its vCPU; `None` with the reason printed.
fn boot_with_events(test: &str) -> Option<(Vm, Vcpu)> {
    let kvm = device(test)?;
    if kvm.check_extension(Cap::X86_TRIPLE_FAULT_EVENT) == 0 {
        exeunt_linux::print_skip(test, format_args!("this host lacks {}", Cap::X86_TRIPLE_FAULT_EVENT));
        return None;
    }
    let guest = guests::by_name("hlt").unwrap();
    let mut vm = load(&kvm, &guest);
    vm.enable_cap(Cap::X86_TRIPLE_FAULT_EVENT, 1).unwrap();
    let vcpu = start(&vm, &guest);
    Some((vm, vcpu))
}

#[test]
fn without_the_capability_the_triple_fault_flag_is_refused() {
    let Some((_vm, mut vcpu)) = boot("capability off", "hlt") else { return };
    let events = vcpu.events().unwrap();
    assert_eq!(vcpu.event_flags() & VALID_TRIPLE_FAULT, 0);
    assert_eq!(triple_fault(&events), None);
    assert_eq!(vcpu.set_events(&with_triple_fault(events, true)), Err(Errno::EINVAL));
    assert_eq!(next(&mut vcpu), Ok(Exit::Hlt));
}

#[test]
fn a_pending_triple_fault_is_reported_twice_and_then_shuts_down() {
    let Some((_vm, mut vcpu)) = boot_with_events("capability on") else { return };
    assert_ne!(vcpu.event_flags() & VALID_TRIPLE_FAULT, 0);
    let events = vcpu.events().unwrap();
    assert_eq!(triple_fault(&events), Some(false));
    vcpu.set_events(&with_triple_fault(events, true)).unwrap();
    for _ in 0..2 {
        assert_eq!(triple_fault(&vcpu.events().unwrap()), Some(true));
    }
    assert_eq!(next(&mut vcpu), Ok(Exit::Shutdown));
    assert_eq!(triple_fault(&vcpu.events().unwrap()), Some(false));
}

#[test]
fn a_triple_fault_that_is_taken_back_does_not_shut_down() {
    let Some((_vm, mut vcpu)) = boot_with_events("taken back") else { return };
    let events = vcpu.events().unwrap();
    vcpu.set_events(&with_triple_fault(events, true)).unwrap();
    vcpu.set_events(&with_triple_fault(events, false)).unwrap();
    assert_eq!(triple_fault(&vcpu.events().unwrap()), Some(false));
    assert_eq!(next(&mut vcpu), Ok(Exit::Hlt));
}

#[test]
fn the_events_of_a_vcpu_shut_another_one_down_unless_the_flag_is_lost() {
    let Some((_vm, mut vcpu)) = boot_with_events("restore") else { return };
    vcpu.raise_triple_fault().unwrap();
    let saved = vcpu.events().unwrap();
    assert_eq!(triple_fault(&saved), Some(true));
    let mut lossy = saved;
    lossy.flags &= !VALID_TRIPLE_FAULT;
    for (events, exit) in [(saved, Exit::Shutdown), (lossy, Exit::Hlt)] {
        let Some((_vm, mut other)) = boot_with_events("restore") else { return };
        other.set_events(&events).unwrap();
        assert_eq!(next(&mut other), Ok(exit));
    }
}

#[test]
fn a_raised_triple_fault_shuts_down_without_any_capability() {
    let Some((_vm, mut vcpu)) = boot("raise", "hlt") else { return };
    vcpu.raise_triple_fault().unwrap();
    assert_eq!(triple_fault(&vcpu.events().unwrap()), None, "the events do not say");
    assert_eq!(next(&mut vcpu), Ok(Exit::Shutdown));
}

#[test]
fn the_capability_can_be_turned_off_again() {
    let Some((mut vm, mut vcpu)) = boot_with_events("off again") else { return };
    vm.enable_cap(Cap::X86_TRIPLE_FAULT_EVENT, 0).unwrap();
    assert_eq!(vcpu.event_flags() & VALID_TRIPLE_FAULT, 0);
    assert_eq!(triple_fault(&vcpu.events().unwrap()), None);
}

#[test]
fn each_unknown_flag_is_refused() {
    let Some((_vm, mut vcpu)) = boot_with_events("unknown flags") else { return };
    let events = vcpu.events().unwrap();
    for bit in (0..32).filter(|bit| VALID_ALL & 1 << bit == 0) {
        let mut unknown = events;
        unknown.flags |= 1 << bit;
        assert_eq!(vcpu.set_events(&unknown), Err(Errno::EINVAL), "bit {bit}");
    }
}

#[test]
fn every_flag_that_a_vcpu_reports_is_one_that_it_takes() {
    let Some((_vm, mut vcpu)) = boot_with_events("own flags") else { return };
    let events = vcpu.events().unwrap();
    assert_eq!(events.flags & !vcpu.event_flags(), 0);
    assert_eq!(vcpu.set_events(&events), Ok(()));
}
