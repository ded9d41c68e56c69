//! Wrong with system events.

use super::{Variant, end};
use crate::judge::transcript::{End, Status};
use crate::judge::twist::{Seen, Twist};
use exeunt_abi::PAGE_SIZE;
use exeunt_abi::kvm::run::{ExitReason, RunPage, SystemEvent, event_type};

pub(super) const VARIANTS: &[Variant] = &[
    Variant {
        name: "masks-bit-31",
        what: "clears bit 31 of the type before it looks at it",
        breaks: &["SE-1"],
        twist: || on_event(|event| event.event_type &= !(1 << 31)),
    },
    Variant {
        name: "type-is-a-byte",
        what: "looks at the low byte of the type only",
        breaks: &["SE-1"],
        twist: || on_event(|event| event.event_type &= 0xff),
    },
    Variant {
        name: "bit-31-reboots",
        what: "starts the guest anew for a type with bit 31",
        breaks: &["SE-1"],
        twist: || at_end(|event| event.event_type >> 31 == 1, |_, _| Some(end(Status::Reset, "rebooting"))),
    },
    Variant {
        name: "reports-16-words",
        what: "reports all 16 words of data of a termination",
        breaks: &["SE-2"],
        twist: || {
            at_end(
                |event| event.event_type == event_type::SEV_TERM,
                |event, told| Some(End { text: format!("{}, data {:x?}", told.text, event.data), ..told }),
            )
        },
    },
    Variant {
        name: "indexes-by-ndata",
        what: "takes ndata for a length without a limit, and runs over the end of data",
        breaks: &["SE-2"],
        twist: || {
            at_end(
                |event| event.event_type == event_type::RESET && event.ndata > 16,
                |_, _| Some(end(Status::Crashed, "index out of bounds")),
            )
        },
    },
    Variant {
        name: "believes-ndata",
        what: "reports data[..ndata] of a reset, whether capability 215 is there or not",
        breaks: &["SE-3"],
        twist: || {
            at_end(
                |event| event.event_type == event_type::RESET,
                |event, told| {
                    let words = event.data.get(..event.ndata as usize).unwrap_or(&event.data);
                    Some(End { text: format!("{}, words {words:x?}", told.text), ..told })
                },
            )
        },
    },
    Variant {
        name: "unknown-event-crashes",
        what: "has no arm for a type that it does not know",
        breaks: &["SE-4"],
        twist: || at_end(is_unknown, |_, _| Some(end(Status::Crashed, "not implemented"))),
    },
    Variant {
        name: "unknown-event-reboots",
        what: "starts the guest anew for a type that it does not know",
        breaks: &["SE-4"],
        twist: || at_end(is_unknown, |_, told| Some(End { status: Status::Reset, ..told })),
    },
    Variant {
        name: "unknown-event-succeeds",
        what: "takes a type that it does not know for a shutdown",
        breaks: &["SE-4"],
        twist: || at_end(is_unknown, |_, told| Some(End { status: Status::Success, ..told })),
    },
    Variant {
        name: "unknown-event-is-ignored",
        what: "enters again after a type that it does not know",
        breaks: &["SE-4"],
        twist: || at_end(is_unknown, |_, _| None),
    },
    Variant {
        name: "unknown-event-without-a-number",
        what: "ends with an error that does not name the type",
        breaks: &["SE-4"],
        twist: || at_end(is_unknown, |_, _| Some(end(Status::Failure, "unexpected system event"))),
    },
    Variant {
        name: "page-form-is-reason-0",
        what: "takes the address of a GHCB for reason set 0, code 0",
        breaks: &["SE-5"],
        twist: || {
            on_event(|event| {
                if event.event_type == event_type::SEV_TERM && event.data[0] % PAGE_SIZE == 0 {
                    event.data[0] = 0x100;
                }
            })
        },
    },
    Variant {
        name: "termination-without-a-reason",
        what: "drops the data of a termination",
        breaks: &["SE-5"],
        twist: || {
            at_end(
                |event| event.event_type == event_type::SEV_TERM,
                |_, _| Some(end(Status::Failure, "the guest ended itself")),
            )
        },
    },
    Variant {
        name: "termination-reboots",
        what: "starts a guest anew that asked to be terminated",
        breaks: &["SE-5"],
        twist: || {
            at_end(
                |event| event.event_type == event_type::SEV_TERM,
                |_, told| Some(End { status: Status::Reset, ..told }),
            )
        },
    },
    Variant {
        name: "fatal-error-shifted",
        what: "takes the registers of a fatal error for those of the next encoding",
        breaks: &["SE-6"],
        twist: || {
            on_event(|event| {
                if event.event_type == event_type::TDX_FATAL {
                    event.data.rotate_left(1);
                }
            })
        },
    },
    Variant {
        name: "fatal-error-without-registers",
        what: "says that a TD gave up and not why",
        breaks: &["SE-6"],
        twist: || {
            at_end(
                |event| event.event_type == event_type::TDX_FATAL,
                |_, _| Some(end(Status::Failure, "the TD gave up")),
            )
        },
    },
    Variant {
        name: "flags-are-ndata-and-half-a-word",
        what: "reads the 64 bits at 36 for the flags of a reset",
        breaks: &["SE-7"],
        twist: || {
            on_event(|event| {
                if event.event_type == event_type::RESET && event.ndata == 1 {
                    event.data[0] = event.data[0] << 32 | u64::from(event.ndata);
                }
            })
        },
    },
    Variant {
        name: "flags-dropped",
        what: "does not look at the flags of a reset",
        breaks: &["SE-7"],
        twist: || {
            at_end(
                |event| event.event_type == event_type::RESET && event.ndata == 1,
                |_, _| Some(end(Status::Reset, "the guest asked for a reset")),
            )
        },
    },
    Variant {
        name: "cannot-ignore",
        what: "ends at a reset that it was told to ignore",
        breaks: &["SE-8"],
        twist: || Twist {
            give_up: Some(Box::new(|seen, _| event_of(seen).map(|_| end(Status::Reset, "rebooting")))),
            ..Twist::default()
        },
    },
];

fn is_event(page: &RunPage) -> bool {
    page.reason() == ExitReason::SYSTEM_EVENT
}

fn event_of(seen: &Seen) -> Option<SystemEvent> {
    (seen.entered.is_ok() && is_event(&seen.page)).then(|| seen.page.payload())
}

fn is_unknown(event: &SystemEvent) -> bool {
    (event_type::TDX_FATAL + 1..1 << 31).contains(&event.event_type)
}

/// Misreads each event.
fn on_event(misread: fn(&mut SystemEvent)) -> Twist {
    let read = move |_: &mut _, page: &mut RunPage, _: &RunPage| {
        if is_event(page) {
            let mut event: SystemEvent = page.payload();
            misread(&mut event);
            page.set_payload(&event);
        }
    };
    Twist { read: Some(Box::new(read)), ..Twist::default() }
}

/// Ends otherwise at some events.
fn at_end(which: fn(&SystemEvent) -> bool, instead: fn(SystemEvent, End) -> Option<End>) -> Twist {
    let end = move |seen: &Seen, told| match event_of(seen).filter(which) {
        Some(event) => instead(event, told),
        None => Some(told),
    };
    Twist { end: Some(Box::new(end)), ..Twist::default() }
}
