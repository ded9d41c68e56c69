use super::*;
use exeunt_abi::Gpa;
use exeunt_abi::kvm::run::{ExitReason, UNION_BYTES};
use exeunt_proto::exit::{Exit, FailEntry, InternalError, Other, Words};
use exeunt_proto::ghci::FatalError;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

fn event(event: EventType, data: &[u64]) -> SystemEvent {
    SystemEvent { event, data: Words::from_slice(data) }
}

fn fault(poisoned: bool) -> MemoryFault {
    MemoryFault { gpa: Gpa(0x5000), size: 0x1000, private: true, unknown_flags: 0x10, poisoned }
}

/// One stop of each variant and of each kind, and words of the guest that try to get into the log.
fn every() -> Vec<Stop> {
    let boxed = |kind, data: &[u64]| Stop::Event(Box::new(event(kind, data)));
    let mut message = [0; 64];
    message[..25].copy_from_slice(b"\n2026 error: \x1b[31mroot\0\0\0");
    let other = Other { reason: ExitReason(777), bytes: [0xaa; UNION_BYTES] };
    vec![
        Stop::Halted,
        Stop::Shutdown,
        Stop::Terminated(SevTermination::Reason { set: 1, code: 2 }),
        Stop::Terminated(SevTermination::ByPage { ghcb: Gpa(0x3000) }),
        Stop::Terminated(SevTermination::NeedsSnp { msr: 0x14 }),
        Stop::Terminated(SevTermination::Unknown { msr: 0xfff }),
        Stop::FatalError(Box::new(FatalError { error: 1, gpa: Some(Gpa(0x7000)), message })),
        boxed(EventType::Shutdown, &[1]),
        boxed(EventType::Reset, &[]),
        boxed(EventType::Crash, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        boxed(EventType::Wakeup, &[]),
        boxed(EventType::Suspend, &[]),
        boxed(EventType::SevTerm, &[]),
        boxed(EventType::TdxFatal, &[1]),
        boxed(EventType::Unknown(99), &[]),
        Stop::UnknownEvent(Box::new(event(EventType::Unknown(0x8000_0004), &[7]))),
        Stop::Enter(DecodeError::Failed { errno: Errno::EIO, stale: ExitReason(3) }),
        Stop::Enter(DecodeError::Failed { errno: Errno::EHWPOISON, stale: ExitReason(3) }),
        Stop::Enter(DecodeError::IoData { offset: 1, bytes: 2 }),
        Stop::Enter(DecodeError::IoSize { size: 9 }),
        Stop::Enter(DecodeError::IoDirection { direction: 9 }),
        Stop::Enter(DecodeError::MmioLen { len: 9 }),
        Stop::FailEntry(FailEntry { reason: 0x8000_0021, cpu: 3 }),
        Stop::InternalError(Box::new(InternalError { suberror: 1, data: Words::from_slice(&[5]) })),
        Stop::ContextInvalid { flags: 1 },
        Stop::MemoryFault { fault: fault(false), why: FaultCause::NoSlot },
        Stop::MemoryFault { fault: fault(true), why: FaultCause::Poisoned },
        Stop::NoProgress { fault: fault(false), repeats: 16 },
        Stop::Undrained { exits: 1024 },
        Stop::UnknownExit(Box::new(other)),
        Stop::Unplanned(Box::new(Exit::ApResetHold)),
    ]
}

#[test]
fn every_kind_has_a_stop_a_status_of_its_own_and_a_name() {
    let seen: BTreeSet<_> = every().iter().map(|stop| stop.kind().index()).collect();
    assert_eq!(seen.len(), StopKind::ALL.len());
    let mut statuses = BTreeSet::new();
    for (index, kind) in StopKind::ALL.iter().enumerate() {
        assert_eq!(kind.index(), index);
        let is_new = statuses.insert(kind.exit_status());
        assert!(is_new || kind.exit_status() == 0, "{kind}");
    }
}

#[test]
fn only_a_guest_that_asked_for_it_or_halted_ends_with_status_0() {
    for kind in StopKind::ALL {
        let is_wanted = matches!(kind, StopKind::Shutdown | StopKind::Halted);
        assert_eq!(kind.exit_status() == 0, is_wanted, "{kind}");
        assert!(!(kind.is_failure() && kind.exit_status() < 20), "{kind}");
        assert_eq!(kind.next() == Next::End, kind.is_failure() || is_wanted, "{kind}");
    }
}

#[test]
fn a_line_for_the_log_is_one_line_whatever_the_guest_said() {
    for stop in every() {
        let line = stop.log_line().to_string();
        assert!(!line.chars().any(char::is_control), "{line:?}");
        let kind = stop.kind();
        assert!(line.starts_with(&format!("{}: {kind}: ", kind.severity())), "{line}");
        assert!(line.ends_with(&format!("(exit status {})", kind.exit_status())), "{line}");
    }
}

#[test]
fn fields_carry_the_numbers_and_escape_the_text_of_the_guest() {
    let fields = |stop: &Stop| {
        let mut all = Vec::new();
        stop.fields(|name, field| all.push(format!("{name}={field}")));
        all.join(" ")
    };
    for stop in every() {
        let text = fields(&stop);
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert_eq!(text.is_empty(), matches!(stop, Stop::Halted | Stop::Shutdown), "{stop}");
    }
    let term = Stop::Terminated(SevTermination::Reason { set: 1, code: 2 });
    assert_eq!(fields(&term), "reason_set=0x1 code=0x2 meaning=PVALIDATE failed (PVALIDATE)");
    let fatal = every().into_iter().find(|stop| matches!(stop, Stop::FatalError(_))).unwrap();
    assert_eq!(fields(&fatal), r"error=0x1 gpa=0x7000 message=\n2026 error: \x1b[31mroot");
    let stuck = Stop::NoProgress { fault: fault(false), repeats: 16 };
    assert_eq!(fields(&stuck), "gpa=0x5000 size=0x1000 private=true unknown_flags=0x10 repeats=16");
}

#[test]
fn the_first_stop_ends_the_vm_and_kicks_once() {
    let kicks = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&kicks);
    let end = VmEnd::with_kick(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    assert!(!end.is_over() && end.stop().is_none());
    assert!(end.end(Stop::Shutdown));
    assert!(!end.end(Stop::Halted));
    assert!(end.is_over());
    assert_eq!(end.stop(), Some(&Stop::Shutdown));
    assert_eq!(kicks.load(Ordering::SeqCst), 1);
}

#[test]
fn every_thread_leaves_when_one_vcpu_shuts_down() {
    let parked = Arc::new(AtomicBool::new(false));
    let kicked = Arc::clone(&parked);
    let end = VmEnd::with_kick(move || kicked.store(true, Ordering::SeqCst));
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    // A vCPU in its guest: only a kick takes it out.
                    while !parked.load(Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                    end.is_over() && !end.end(Stop::Halted)
                })
            })
            .collect();
        assert!(end.end(Stop::Shutdown));
        assert!(others.into_iter().all(|other| other.join().unwrap()));
    });
    assert_eq!(end.stop().map(Stop::kind), Some(StopKind::TripleFault));
}
