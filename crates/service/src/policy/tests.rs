use super::*;
use crate::memory::{MemorySlot, PageInfo};
use crate::stop::FaultCause;
use crate::tdx::TdxPlan;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::{Errno, Gfn};
use exeunt_proto::conversion::{Conversion, PageState};
use exeunt_proto::exit::{FailEntry, InternalError, MemoryFault, Other, Rdmsr, Tdx, TdxCall, Words};

fn policy() -> Policy {
    let range = PageRange::new(Gfn(0x100), 16).unwrap();
    Policy::new(GuestMemory::new([MemorySlot { range, has_private: true }]).unwrap())
}

fn hypercall(nr: u64, args: [u64; 3]) -> Exit {
    let [gpa, pages, attributes] = args;
    Exit::Hypercall(Hypercall { nr, args: [gpa, pages, attributes, 0, 0, 0], flags: 0 })
}

fn event(event: EventType, data: &[u64]) -> Exit {
    Exit::SystemEvent(SystemEvent { event, data: Words::from_slice(data) })
}

#[test]
fn a_conversion_inside_the_memory_is_done_and_any_other_refused() {
    let policy = policy();
    let range = PageRange::new(Gfn(0x101), 2).unwrap();
    let conversion = Conversion { range, to: PageState::Private };
    let convert = Plan::Convert { conversion, memory: policy.memory() };
    assert_eq!(policy.plan(&hypercall(12, [0x10_1000, 2, 0x10])), Ok(convert));
    // A 2 MiB hint on a shared conversion is 0x1, which is not private.
    let shared = policy.plan(&hypercall(12, [0x10_1000, 2, 0x1]));
    let conversion = Conversion { range, to: PageState::Shared };
    assert_eq!(shared, Ok(Plan::Convert { conversion, memory: policy.memory() }));
    for args in [[0x10_1001, 1, 0], [0x10_1000, 0, 0], [0x1000, 1 << 52, 0], [0x10_1000, 1, 0x20]] {
        assert!(matches!(policy.plan(&hypercall(12, args)), Ok(Plan::RefuseConversion(_))), "{args:x?}");
    }
    for args in [[0xf_f000, 2, 0x10], [0x11_0000, 1, 0x10], [0, (1 << 52) - 1, 0x10]] {
        assert!(matches!(policy.plan(&hypercall(12, args)), Ok(Plan::NoPrivateMemory(_))), "{args:x?}");
    }
}

#[test]
fn every_other_hypercall_is_refused() {
    for nr in (0..12).chain(13..64).chain([u64::MAX]) {
        assert_eq!(policy().plan(&hypercall(nr, [0, 0, 0])), Ok(Plan::UnknownHypercall));
    }
}

#[test]
fn a_memory_fault_stops_by_default_and_converts_when_that_was_chosen() {
    let fault =
        |gpa, size, private| MemoryFault { gpa: Gpa(gpa), size, private, unknown_flags: 0, poisoned: false };
    let good = fault(0x10_2000, 0x1000, true);
    let cause = |policy: &Policy, fault| match policy.plan(&Exit::MemoryFault(fault)) {
        Err(Stop::MemoryFault { why, .. }) => Some(why),
        _ => None,
    };
    let mut policy = policy();
    assert_eq!(cause(&policy, good), Some(FaultCause::NotAllowed));
    policy.memory_faults = FaultPolicy::Convert;
    assert!(matches!(policy.plan(&Exit::MemoryFault(good)), Ok(Plan::ConvertForFault { .. })));
    assert_eq!(cause(&policy, MemoryFault { poisoned: true, ..good }), Some(FaultCause::Poisoned));
    let unknown = MemoryFault { unknown_flags: 1, ..good };
    assert_eq!(cause(&policy, unknown), Some(FaultCause::UnknownFlags { bits: 1 }));
    for (gpa, size) in [(0x10_2001, 0x1000), (0x10_2000, 0), (0x10_2000, 0x1001), (!0xfff, 0x1000)] {
        assert_eq!(cause(&policy, fault(gpa, size, false)), Some(FaultCause::BadRange), "{gpa:#x} {size:#x}");
    }
    // What the access wants is so already: another vCPU was faster, and the access is to be tried again.
    let range = PageRange::new(Gfn(0x102), 1).unwrap();
    policy.memory().assume(range, PageInfo::fresh(PageState::Private));
    for choice in [FaultPolicy::Convert, FaultPolicy::Stop] {
        policy.memory_faults = choice;
        assert_eq!(policy.plan(&Exit::MemoryFault(good)), Ok(Plan::Resume));
    }
    for private in [false, true] {
        assert_eq!(cause(&policy, fault(0x20_0000, 0x1000, private)), Some(FaultCause::NoSlot));
    }
}

#[test]
fn system_events_stop_or_are_ignored_as_the_policy_says() {
    let mut ignoring = policy();
    ignoring.shutdown = EventPolicy::Ignore;
    ignoring.reset = EventPolicy::Ignore;
    ignoring.crash = EventPolicy::Ignore;
    for kind in [EventType::Shutdown, EventType::Reset, EventType::Crash] {
        let data = Words::from_slice(&[1]);
        let stop = Stop::Event(Box::new(SystemEvent { event: kind, data }));
        assert_eq!(policy().plan(&event(kind, &[1])), Err(stop));
        assert_eq!(ignoring.plan(&event(kind, &[1])), Ok(Plan::Resume));
    }
    for kind in [EventType::Wakeup, EventType::Suspend, EventType::TdxFatal] {
        assert!(matches!(ignoring.plan(&event(kind, &[])), Err(Stop::Event(_))));
    }
    // Bit 31 makes another type of it: neither a termination nor a reset.
    let stop = ignoring.plan(&event(EventType::from_number(0x8000_0006), &[0x100]));
    let number = EventType::Unknown(0x8000_0006);
    assert!(matches!(stop, Err(Stop::UnknownEvent(event)) if event.event == number));
    let stop = ignoring.plan(&event(EventType::SevTerm, &[0x2_1100]));
    assert_eq!(stop, Err(Stop::Terminated(SevTermination::Reason { set: 1, code: 2 })));
    let stop = ignoring.plan(&event(EventType::SevTerm, &[]));
    assert!(matches!(stop, Err(Stop::Event(event)) if event.event == EventType::SevTerm));
}

#[test]
fn exits_without_an_answer_end_the_run_with_what_they_brought() {
    let fail = FailEntry { reason: u64::MAX, cpu: 1 };
    let error = InternalError { suberror: 4, data: Words::NONE };
    let other = Other { reason: ExitReason(77), bytes: [3; 256] };
    let stops = [
        (Exit::Hlt, Stop::Halted),
        (Exit::Shutdown, Stop::Shutdown),
        (Exit::FailEntry(fail), Stop::FailEntry(fail)),
        (Exit::InternalError(error), Stop::InternalError(Box::new(error))),
        (Exit::Notify { flags: 1 }, Stop::ContextInvalid { flags: 1 }),
        (Exit::Other(other), Stop::UnknownExit(Box::new(other))),
    ];
    for (exit, stop) in stops {
        assert_eq!(policy().plan(&exit), Err(stop));
    }
    assert_eq!(policy().plan(&Exit::Notify { flags: 0 }), Ok(Plan::Resume));
    assert_eq!(policy().plan(&Exit::Again(Errno::EINTR)), Ok(Plan::Resume));
    assert_eq!(policy().plan(&Exit::ApResetHold), Err(Stop::Unplanned(Box::new(Exit::ApResetHold))));
    assert_eq!(policy().plan(&Exit::Rdmsr(Rdmsr { index: 0x10, reason: 1 })), Ok(Plan::RefuseMsr));
    let call = TdxCall::Unknown { nr: 0x1_0009, data: [7; 5] };
    assert_eq!(policy().plan(&Exit::Tdx(Tdx { flags: 0, call })), Ok(Plan::Tdx(TdxPlan::Preset)));
}

#[test]
fn a_td_that_reports_a_fatal_error_ends_the_run_with_its_own_words() {
    let mut words = [0; 16];
    words[12] = 0xbad;
    words[14] = u64::from_le_bytes(*b"no quote");
    let event = |words: &[u64]| {
        Exit::SystemEvent(SystemEvent { event: EventType::TdxFatal, data: Words::from_slice(words) })
    };
    let Err(stop @ Stop::FatalError(_)) = policy().plan(&event(&words)) else { panic!() };
    assert_eq!(stop.to_string(), "the TD gave up: fatal error 0xbad: \"no quote\"");
    // A kernel that does not write all of them is not believed.
    assert!(matches!(policy().plan(&event(&words[..15])), Err(Stop::Event(_))));
}

#[test]
fn what_is_dumped_before_the_end_is_what_was_chosen() {
    let asked = |event_type| match policy().plan(&event(event_type, &[])) {
        Err(stop) => stop,
        Ok(plan) => panic!("{plan:?}"),
    };
    let requests = [EventType::Shutdown, EventType::Reset, EventType::Crash].map(asked);
    let failures = [Stop::Shutdown, Stop::ContextInvalid { flags: 1 }, asked(EventType::Unknown(99))];
    for (chosen, all) in [(0, false), (1, false), (2, false), (3, false), (0, true)] {
        let dump = |nth| if chosen == nth { EventPolicy::Dump } else { EventPolicy::Stop };
        let policy = Policy {
            shutdown: dump(1),
            reset: dump(2),
            crash: dump(3),
            dumps_failures: all,
            ..Policy::default()
        };
        for (request, nth) in requests.iter().zip(1..) {
            let is_failure = all && nth == 3;
            assert_eq!(policy.wants_dump(request), chosen == nth || is_failure, "{request}");
        }
        for failure in &failures {
            assert_eq!(policy.wants_dump(failure), all, "{failure}");
        }
        assert!(!policy.wants_dump(&Stop::Halted));
        assert_eq!(policy.plan(&event(EventType::Crash, &[])).unwrap_err(), requests[2], "a dump is an end");
    }
}
