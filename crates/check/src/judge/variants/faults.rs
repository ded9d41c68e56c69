//! Wrong with memory faults.

use super::Variant;
use crate::judge::transcript::{Effect, End};
use crate::judge::twist::{Seen, Twist};
use exeunt_abi::kvm::run::{ExitReason, MemoryFault as Wire, RunPage};
use exeunt_abi::{Errno, PAGE_SIZE};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::{Exit, MemoryFault};
use exeunt_proto::host::Backing;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const VARIANTS: &[Variant] = &[
    Variant {
        name: "efault-is-enough",
        what: "takes EFAULT for a memory fault, whatever exit_reason says",
        breaks: &["MF-1"],
        twist: || Twist {
            read: Some(Box::new(|entered, page, _| {
                if *entered == Err(Errno::EFAULT) && page.reason() == ExitReason::UNKNOWN {
                    page.exit_reason = ExitReason::MEMORY_FAULT.0;
                }
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "efault-is-retried",
        what: "enters again after EFAULT without a memory fault",
        breaks: &["MF-1"],
        twist: || goes_on(|seen| seen.entered == Err(Errno::EFAULT) && fault(seen).is_none()),
    },
    Variant {
        name: "unknown-flags-are-masked",
        what: "looks at bit 3 of the flags and at no other",
        breaks: &["MF-2"],
        twist: || Twist {
            read: Some(Box::new(|_, page: &mut RunPage, _| {
                if page.reason() == ExitReason::MEMORY_FAULT {
                    let wire: Wire = page.payload();
                    page.set_payload(&Wire { flags: wire.flags & 8, ..wire });
                }
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "retries-for-ever",
        what: "answers the same fault again and again",
        breaks: &["MF-3"],
        twist: || Twist {
            end: Some(Box::new(|_, told| (!told.text.starts_with("no progress")).then_some(told))),
            ..Twist::default()
        },
    },
    Variant {
        name: "no-progress-is-success",
        what: "gives up on a fault without saying that something is wrong",
        breaks: &["MF-3"],
        twist: || Twist {
            end: Some(Box::new(|_, told| {
                let gives_up = told.text.starts_with("no progress");
                Some(if gives_up {
                    End { status: crate::judge::transcript::Status::Success, ..told }
                } else {
                    told
                })
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "poison-is-a-fault-like-any-other",
        what: "takes EHWPOISON for EFAULT",
        breaks: &["MF-4"],
        twist: || Twist {
            read: Some(Box::new(|entered, _, _| {
                if *entered == Err(Errno::EHWPOISON) {
                    *entered = Err(Errno::EFAULT);
                }
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "poison-is-converted",
        what: "makes a poisoned page shared and enters again",
        breaks: &["MF-4"],
        twist: || converts(|fault| fault.poisoned, PageState::Shared),
    },
    Variant {
        name: "faults-outside-are-retried",
        what: "enters again after a fault where no memory is",
        breaks: &["MF-5"],
        twist: || goes_on(|seen| fault(seen).is_some_and(is_outside)),
    },
    Variant {
        name: "faults-outside-are-converted",
        what: "makes private what an access wants, where no memory is",
        breaks: &["MF-5"],
        twist: || converts(is_outside, PageState::Private),
    },
    Variant {
        name: "converts-unasked",
        what: "converts for a fault although nobody chose that",
        breaks: &["MF-7"],
        twist: || {
            let is_due = Arc::new(AtomicBool::new(false));
            let due = Arc::clone(&is_due);
            Twist {
                end: Some(Box::new(move |_, told| {
                    let is_refused = told.text.contains("not allowed by the policy");
                    due.store(is_refused, Ordering::Relaxed);
                    (!is_refused).then_some(told)
                })),
                before_entry: Some(Box::new(move |seen| {
                    let range =
                        fault(seen).and_then(range_of).filter(|_| is_due.swap(false, Ordering::Relaxed));
                    range.into_iter().flat_map(to_shared).collect()
                })),
                ..Twist::default()
            }
        },
    },
];

fn fault(seen: &Seen) -> Option<MemoryFault> {
    match seen.exit {
        Some(Exit::MemoryFault(fault)) => Some(fault),
        _ => None,
    }
}

fn range_of(fault: MemoryFault) -> Option<PageRange> {
    PageRange::new(fault.gpa.gfn(), fault.size / PAGE_SIZE)
}

fn to_shared(range: PageRange) -> [Effect; 2] {
    [
        Effect::Attributes { range, to: PageState::Shared },
        Effect::Discard { range, backing: Backing::Private },
    ]
}

/// Above all memory of the scenarios.
fn is_outside(fault: MemoryFault) -> bool {
    fault.gpa.0 >= 0x1_0000_0000 >> 1
}

/// Enters again where it is to end.
fn goes_on(when: fn(&Seen) -> bool) -> Twist {
    Twist { end: Some(Box::new(move |seen, told| (!when(seen)).then_some(told))), ..Twist::default() }
}

/// Changes attributes for some faults, and enters again.
fn converts(which: fn(MemoryFault) -> bool, to: PageState) -> Twist {
    Twist {
        end: Some(Box::new(move |seen, told| (!fault(seen).is_some_and(which)).then_some(told))),
        before_entry: Some(Box::new(move |seen| {
            let range = fault(seen).filter(|fault| which(*fault)).and_then(range_of);
            range.map(|range| Effect::Attributes { range, to }).into_iter().collect()
        })),
        ..Twist::default()
    }
}
