use super::*;
use crate::layer::trace::Observer;
use crate::memory::{GuestMemory, MemorySlot};
use crate::policy::Policy;
use crate::stop::Stop;
use exeunt_abi::ghci::Status;
use exeunt_abi::kvm::run::RunPage;
use exeunt_abi::{Gfn, Kernel};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::{self, Hypercall};
use exeunt_proto::host::Host;
use exeunt_proto::reply;
use std::collections::BTreeSet;

/// Keeps all events.
#[derive(Default)]
struct Events(Vec<Event>);

impl Observer for Events {
    fn event(&mut self, event: &Event) {
        self.0.push(*event);
    }
}

/// A host whose discards fail.
struct Sticky;

impl Host for Sticky {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        if matches!(action, Action::Discard { .. }) { Err(Errno::EIO) } else { Ok(()) }
    }
}

#[test]
fn names_are_labels_and_no_two_kinds_share_one() {
    fn check(names: &[&str]) {
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        for name in names {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        }
    }
    check(&ExitKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>());
    check(&PlanKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>());
    check(&ActionKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>());
    check(&ReplyKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>());
    check(&StopKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>());
    assert!(ExitKind::ALL.iter().enumerate().all(|(index, kind)| kind.index() == index));
}

#[test]
fn an_event_is_small() {
    assert!(size_of::<Event>() <= 56, "{}", size_of::<Event>());
}

#[test]
fn an_exit_is_told_from_its_start_to_its_answer_with_failed_effects() {
    let range = PageRange::new(Gfn(0x100), 16).unwrap();
    let policy = Policy::new(GuestMemory::new([MemorySlot { range, has_private: true }]).unwrap());
    let kernel = Kernel::default();
    let mut page = RunPage::zeroed();
    let call = Hypercall { nr: 12, args: [0x10_0000, 16, 0x10, 0, 0, 0], flags: 1 };
    let entered = exit::encode(&Exit::Hypercall(call), kernel, &mut page);
    let mut seen = Events::default();
    let decoded = exit::decode(entered, &page, kernel);
    seen.exit(entered, &page, &decoded);
    let plan = policy.plan(decoded.as_ref().unwrap()).unwrap();
    seen.plan(&plan);
    let answer = plan.carry_out_observed(&mut Sticky, &mut [], &mut seen).reply;
    reply::encode(answer, kernel, &mut page);
    seen.reply(answer, &page);
    seen.stop(&Stop::Halted);
    let effect =
        |kind, result| Event::Effect(Effect { kind, gpa: Gpa(0x10_0000), size_bytes: 0x1_0000, result });
    assert_eq!(
        seen.0,
        [
            Event::Exit { kind: ExitKind::Hypercall, errno: None },
            Event::Plan(PlanKind::Convert),
            effect(ActionKind::MakePrivate, Ok(())),
            effect(ActionKind::DiscardShared, Err(Errno::EIO)),
            Event::Reply(Reply::Conversion(ConversionReply::Done)),
            Event::Stop(StopKind::Halted),
        ]
    );
}

#[test]
fn an_entry_that_failed_is_an_exit_without_a_meaning_and_keeps_its_error() {
    let page = RunPage::zeroed();
    let entered = Err(Errno::EIO);
    let decoded = exit::decode(entered, &page, Kernel::default());
    let event = Event::of_exit(entered, &decoded);
    assert_eq!(event, Event::Exit { kind: ExitKind::Undecodable, errno: Some(Errno::EIO) });
}

#[test]
fn every_answer_has_its_kind() {
    let replies = [
        Reply::None,
        Reply::Conversion(ConversionReply::Done),
        Reply::Conversion(ConversionReply::Invalid),
        Reply::Conversion(ConversionReply::Again),
        Reply::UnknownHypercall,
        Reply::Certs(CertsReply::Installed),
        Reply::Certs(CertsReply::TooSmall { pages: 4 }),
        Reply::Certs(CertsReply::Busy),
        Reply::Certs(CertsReply::Failed),
        Reply::MmioRead([0; 8]),
        Reply::Tdx(TdxReply::Status(Status::SUCCESS)),
        Reply::Tdx(TdxReply::Status(Status::SUBFUNC_UNSUPPORTED)),
        Reply::Msr(MsrReply::Written),
        Reply::Msr(MsrReply::Fault),
        Reply::Vmgexit(VmgexitReply::Page(0)),
    ];
    let kinds: Vec<_> = replies.iter().map(ReplyKind::of).collect();
    assert_eq!(kinds, ReplyKind::ALL);
}
