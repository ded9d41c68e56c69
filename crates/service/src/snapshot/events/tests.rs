use super::*;
use exeunt_abi::kvm::events::{VALID_ALL, VALID_NMI_PENDING};
use exeunt_proto::events::with_triple_fault;
use zerocopy::FromZeros;

/// A target that takes these flags, and what it was given.
struct Target {
    takes: u32,
    given: Option<VcpuEvents>,
    errno: Option<Errno>,
}

impl Target {
    const fn new(takes: u32) -> Self {
        Self { takes, given: None, errno: None }
    }
}

impl Events for Target {
    fn events(&mut self) -> Result<VcpuEvents, Errno> {
        self.given.ok_or(Errno::EIO)
    }

    fn set_events(&mut self, events: &VcpuEvents) -> Result<(), Errno> {
        self.given = Some(*events);
        self.errno.map_or(Ok(()), Err)
    }

    fn event_flags(&self) -> u32 {
        self.takes
    }
}

const WITHOUT_TRIPLE_FAULT: u32 = VALID_ALL & !VALID_TRIPLE_FAULT;

#[test]
fn a_pending_triple_fault_is_restored_or_refused_and_never_dropped() {
    let saved = SavedEvents(with_triple_fault(VcpuEvents::new_zeroed(), true));
    let mut target = Target::new(VALID_ALL);
    assert_eq!(saved.restore(&mut target), Ok(()));
    assert_eq!(target.given, Some(*saved.events()));
    let mut target = Target::new(WITHOUT_TRIPLE_FAULT);
    assert_eq!(saved.restore(&mut target), Err(SnapshotError::TripleFault));
    assert_eq!(target.given, None, "the target is as it was");
}

#[test]
fn a_triple_fault_that_is_not_pending_does_not_keep_events_from_a_target_without_the_capability() {
    let saved = SavedEvents(with_triple_fault(VcpuEvents::new_zeroed(), false));
    let mut target = Target::new(WITHOUT_TRIPLE_FAULT);
    assert_eq!(saved.restore(&mut target), Ok(()));
    assert_eq!(target.given.map(|events| events.flags), Some(0), "no valid bit without the capability");
}

#[test]
fn a_pending_exception_is_restored_or_refused() {
    let mut events = VcpuEvents::new_zeroed();
    events.flags = VALID_PAYLOAD | VALID_NMI_PENDING;
    let mut target = Target::new(VALID_NMI_PENDING);
    assert_eq!(SavedEvents(events).restore(&mut target), Ok(()));
    assert_eq!(target.given.map(|events| events.flags), Some(VALID_NMI_PENDING));
    events.exception_pending = 1;
    assert_eq!(SavedEvents(events).restore(&mut target), Err(SnapshotError::ExceptionPayload));
}

#[test]
fn unknown_flags_and_failed_ioctls_are_errors() {
    for bit in 6..32 {
        let mut events = VcpuEvents::new_zeroed();
        events.flags = 1 << bit;
        let refused = SavedEvents(events).restore(&mut Target::new(u32::MAX));
        assert_eq!(refused, Err(SnapshotError::UnknownFlags { bits: 1 << bit }));
    }
    let mut target = Target::new(VALID_ALL);
    assert_eq!(SavedEvents::save(&mut target), Err(SnapshotError::Get { errno: Errno::EIO }));
    target.errno = Some(Errno::EINVAL);
    let saved = SavedEvents(VcpuEvents::new_zeroed());
    let left = *saved.events();
    let differ = EventParts::default();
    assert_eq!(
        saved.restore(&mut target),
        Err(SnapshotError::SetInPart { errno: Errno::EINVAL, left, differ })
    );
    target.errno = Some(Errno::EIO);
    assert_eq!(saved.restore(&mut target), Err(SnapshotError::Set { errno: Errno::EIO }));
}

#[test]
fn what_was_not_taken_over_is_named_part_by_part() {
    type Change = fn(&mut VcpuEvents);
    let base = VcpuEvents { flags: VALID_ALL, ..VcpuEvents::new_zeroed() };
    let changed: [(Change, &str); 6] = [
        (|it| it.exception_injected = 1, "the exception"),
        (|it| it.interrupt_injected = 1, "the interrupt"),
        (|it| it.interrupt_shadow = 1, "the interrupt shadow"),
        (|it| it.nmi_pending = 1, "NMIs"),
        (|it| it.smi_pending = 1, "system management mode"),
        (|it| it.triple_fault_pending = 1, "the triple fault"),
    ];
    for (change, name) in changed {
        let mut wanted = base;
        change(&mut wanted);
        let differ = EventParts::differing(&wanted, &base);
        assert_eq!(differ.names().collect::<Vec<_>>(), [name]);
        assert!(EventParts::differing(&wanted, &wanted).is_empty());
    }
    assert_eq!(EventParts::default().to_string(), "none of the events");
}
