//! Wrong with `KVM_RUN`.

use super::conversions::is_conversion;
use super::{Variant, end};
use crate::judge::transcript::{Effect, End, Status};
use crate::judge::twist::{Seen, Twist};
use exeunt_abi::kvm::run::{ExitReason, Hypercall, RunPage};
use exeunt_abi::{Errno, Gpa};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::Exit;

pub(super) const VARIANTS: &[Variant] = &[
    Variant {
        name: "unknown-exit-crashes",
        what: "looks the name of an exit up in a table that ends",
        breaks: &["RN-1"],
        twist: || at_unknown(|_| Some(end(Status::Crashed, "index out of bounds"))),
    },
    Variant {
        name: "unknown-exit-is-ignored",
        what: "enters again after an exit that it does not know",
        breaks: &["RN-1"],
        twist: || at_unknown(|_| None),
    },
    Variant {
        name: "unknown-exit-succeeds",
        what: "ends with success after an exit that it does not know",
        breaks: &["RN-1"],
        twist: || at_unknown(|told| Some(End { status: Status::Success, ..told })),
    },
    Variant {
        name: "unknown-exit-without-bytes",
        what: "names the number of an exit that it does not know, and not what it brought",
        breaks: &["RN-1"],
        twist: || at_unknown(|_| Some(end(Status::Failure, "unknown exit 64"))),
    },
    Variant {
        name: "eintr-ends",
        what: "takes a signal for the end",
        breaks: &["RN-2"],
        twist: || Twist {
            give_up: Some(Box::new(|seen, _| {
                is_interrupted(seen).then(|| end(Status::Failure, "KVM_RUN failed with EINTR"))
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "eagain-ends",
        what: "takes EAGAIN of a processor that is being started for the end",
        breaks: &["RN-2"],
        twist: || Twist {
            give_up: Some(Box::new(|seen, _| {
                let is_started = seen.entered == Err(Errno::EAGAIN);
                is_started.then(|| end(Status::Failure, "KVM_RUN failed with EAGAIN"))
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "serves-the-stale-exit",
        what: "serves the exit before a signal once more",
        breaks: &["RN-2"],
        twist: || Twist {
            before_entry: Some(Box::new(|seen| {
                let mut page: RunPage = seen.page.clone();
                page.exit_reason = ExitReason::HYPERCALL.0;
                let [gpa, pages, attributes, ..] = page.payload::<Hypercall>().args;
                let is_stale = is_interrupted(seen) && is_conversion(&page);
                let range = PageRange::new(Gpa(gpa).gfn(), pages).filter(|_| is_stale);
                let to = if attributes & 0x10 == 0 { PageState::Shared } else { PageState::Private };
                range.map(|range| Effect::Attributes { range, to }).into_iter().collect()
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "shutdown-stops-one-vcpu",
        what: "goes on with the other vCPUs when one is shut down",
        breaks: &["RN-4"],
        twist: || Twist { shuts_down_one: true, ..Twist::default() },
    },
    Variant {
        name: "shutdown-is-ignored",
        what: "enters a vCPU again that was shut down",
        breaks: &["RN-4"],
        twist: || Twist {
            end: Some(Box::new(|seen, told| (!matches!(seen.exit, Some(Exit::Shutdown))).then_some(told))),
            ..Twist::default()
        },
    },
];

/// The last `KVM_RUN` was ended by a signal while the guest ran.
fn is_interrupted(seen: &Seen) -> bool {
    seen.entered == Err(Errno::EINTR) && seen.page.reason() == ExitReason::INTR
}

/// Ends otherwise at exits that nobody knows.
fn at_unknown(instead: fn(End) -> Option<End>) -> Twist {
    Twist {
        end: Some(Box::new(move |seen, told| match seen.exit {
            Some(Exit::Other(_)) => instead(told),
            _ => Some(told),
        })),
        ..Twist::default()
    }
}
