//! Wrong in what is answered to hypercalls, and in what is asked for.

use super::{Variant, end};
use crate::judge::transcript::{Effect, Status};
use crate::judge::twist::{Drain, Seen, Twist};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{ExitReason, Hypercall, MAP_GPA_RANGE, RunPage, VmgexitV10};
use exeunt_abi::{Errno, Gfn, PAGE_SIZE};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::Exit;

pub(super) const VARIANTS: &[Variant] = &[
    Variant {
        name: "enables-all-hypercalls",
        what: "enables the whole mask that the kernel offers",
        breaks: &["HC-1"],
        twist: || Twist {
            enable: Some(Box::new(|cap, offered, wanted| {
                Some(if cap == Cap::EXIT_HYPERCALL { offered } else { wanted })
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "negative-errno",
        what: "answers -EINVAL",
        breaks: &["HC-2"],
        twist: || answer(|_, call| replace(call, EINVAL, EINVAL.wrapping_neg())),
    },
    Variant {
        name: "errno-of-the-ioctl",
        what: "answers with whatever the ioctl failed with",
        breaks: &["HC-2"],
        twist: || answer(|_, call| replace(call, EINVAL, 5)),
    },
    Variant {
        name: "does-not-write-success",
        what: "leaves ret as it is when all went well",
        breaks: &["HC-3"],
        twist: || answer(|before, call| replace(call, 0, before.ret)),
    },
    Variant {
        name: "says-done-when-it-failed",
        what: "answers 0 for a page whose attributes could not be changed",
        breaks: &["HC-3"],
        twist: || {
            answer(|before, call| {
                if before.args[1] == 1 {
                    replace(call, EAGAIN, 0);
                }
            })
        },
    },
    Variant {
        name: "stops-at-a-failed-conversion",
        what: "ends the VM when attributes cannot be changed",
        breaks: &["HC-3"],
        twist: || Twist {
            give_up: Some(Box::new(|seen, page| {
                let failed = is_conversion(&seen.page) && page.payload::<Hypercall>().ret == EAGAIN;
                let is_small = seen.page.payload::<Hypercall>().args[1] == 1;
                (failed && is_small).then(|| end(Status::Failure, "cannot convert"))
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "clips-what-wraps",
        what: "converts up to the end of memory where the end of the range wraps",
        breaks: &["HC-6"],
        twist: || {
            misread(|call| {
                if call.args[1].checked_mul(4096).is_none() {
                    call.args[1] = 0x10;
                }
            })
        },
    },
    Variant {
        name: "asks-for-what-is-no-memory",
        what: "hands the guest's range to the ioctl as it is",
        breaks: &["HC-6"],
        twist: || Twist {
            effect: Some(Box::new(|seen, effect| match (effect, asked(seen)) {
                (Effect::Attributes { to: PageState::Shared, .. }, Some(range)) => {
                    vec![Effect::Attributes { range, to: PageState::Shared }]
                }
                (effect, _) => vec![effect],
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "unaligned-succeeds",
        what: "answers success to 2 MiB from an address that is not aligned so",
        breaks: &["HC-7"],
        twist: || Twist {
            answer: Some(Box::new(|seen, page| {
                if is_page_request(seen) {
                    let wire: VmgexitV10 = page.payload();
                    page.set_payload(&VmgexitV10 { ret: 0, ..wire });
                }
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "rounds-down",
        what: "converts the 2 MiB around an address that is not aligned",
        breaks: &["HC-7"],
        twist: || Twist {
            before_entry: Some(Box::new(|seen| {
                let range = PageRange::new(Gfn(0x200), 512).filter(|_| is_page_request(seen));
                let effect = |range| Effect::Attributes { range, to: PageState::Shared };
                range.map(effect).into_iter().collect()
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "refuses-where-no-memory-is",
        what: "answers EINVAL to a conversion of a device's range to shared",
        breaks: &["HC-10"],
        twist: || {
            answer(|before, call| {
                if before.args[0] >= 0xfe00_0000 {
                    replace(call, 0, EINVAL);
                }
            })
        },
    },
    Variant {
        name: "refuses-repeats",
        what: "answers EINVAL to a conversion that is done already",
        breaks: &["HC-11"],
        twist: || {
            let mut last: Option<(u64, [u64; 6])> = None;
            Twist {
                answer: Some(Box::new(move |seen, page| {
                    if is_conversion(&seen.page) {
                        let this = (seen.vcpu, seen.page.payload::<Hypercall>().args);
                        let mut call: Hypercall = page.payload();
                        let is_done = call.ret == 0;
                        if last == Some(this) {
                            replace(&mut call, 0, EINVAL);
                            page.set_payload(&call);
                        }
                        last = Some(this).filter(|_| is_done);
                    }
                })),
                ..Twist::default()
            }
        },
    },
    Variant {
        name: "unknown-hypercall-succeeds",
        what: "answers 0 to a hypercall that it does not know",
        breaks: &["HC-12"],
        twist: || Twist {
            answer: Some(Box::new(|seen, page| {
                if is_hypercall(&seen.page) && !is_conversion(&seen.page) {
                    let call: Hypercall = page.payload();
                    page.set_payload(&Hypercall { ret: 0, ..call });
                }
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "every-hypercall-converts",
        what: "does not look at the number of a hypercall",
        breaks: &["HC-12"],
        twist: || Twist {
            read: Some(Box::new(|_, page, _| {
                if is_hypercall(page) {
                    let call: Hypercall = page.payload();
                    page.set_payload(&Hypercall { nr: MAP_GPA_RANGE, ..call });
                }
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "saves-without-draining",
        what: "reads the state of a vCPU whose completion is pending",
        breaks: &["HC-14"],
        twist: || drain_first(Drain::Skip),
    },
    Variant {
        name: "drains-one-exit-only",
        what: "enters once with immediate_exit, whatever comes of it",
        breaks: &["HC-14"],
        twist: || drain_first(Drain::Enter),
    },
    Variant {
        name: "drains-by-running",
        what: "enters once without immediate_exit before it reads the state",
        breaks: &["HC-14"],
        twist: || drain_first(Drain::Run),
    },
    Variant {
        name: "retries-einval",
        what: "enters again after KVM_RUN failed with EINVAL",
        breaks: &["HC-15"],
        twist: || Twist {
            end: Some(Box::new(|seen, told| (seen.entered != Err(Errno::EINVAL)).then_some(told))),
            ..Twist::default()
        },
    },
    Variant {
        name: "einval-is-an-end-like-any-other",
        what: "ends with success after KVM_RUN failed with EINVAL",
        breaks: &["HC-15"],
        twist: || Twist {
            end: Some(Box::new(|seen, told| {
                let failed = seen.entered == Err(Errno::EINVAL);
                Some(if failed { end(Status::Success, told.text) } else { told })
            })),
            ..Twist::default()
        },
    },
];

const EINVAL: u64 = 22;
const EAGAIN: u64 = 11;

fn is_hypercall(page: &RunPage) -> bool {
    page.reason() == ExitReason::HYPERCALL
}

/// The exit is `KVM_HC_MAP_GPA_RANGE`.
pub(super) fn is_conversion(page: &RunPage) -> bool {
    is_hypercall(page) && page.payload::<Hypercall>().nr == MAP_GPA_RANGE
}

/// A page-state change by GHCB page, of the proposal that forwards it undecoded.
fn is_page_request(seen: &Seen) -> bool {
    matches!(seen.exit, Some(Exit::Vmgexit { ghcb_msr }) if ghcb_msr % PAGE_SIZE == 0)
}

/// The range that the guest asked for.
fn asked(seen: &Seen) -> Option<PageRange> {
    let [gpa, pages, ..] = seen.page.payload::<Hypercall>().args;
    PageRange::new(Gfn(gpa >> 12), pages).filter(|_| is_conversion(&seen.page))
}

fn replace(call: &mut Hypercall, ret: u64, by: u64) {
    if call.ret == ret {
        call.ret = by;
    }
}

/// Changes the answer to a conversion. The hook gets what the kernel left, and the answer.
fn answer(change: fn(Hypercall, &mut Hypercall)) -> Twist {
    let answer = move |seen: &Seen, page: &mut RunPage| {
        if is_conversion(&seen.page) {
            let mut call: Hypercall = page.payload();
            change(seen.page.payload(), &mut call);
            page.set_payload(&call);
        }
    };
    Twist { answer: Some(Box::new(answer)), ..Twist::default() }
}

/// Misreads the arguments of conversions.
pub(super) fn misread(change: fn(&mut Hypercall)) -> Twist {
    let read = move |_: &mut _, page: &mut RunPage, _: &RunPage| {
        if is_conversion(page) {
            let mut call: Hypercall = page.payload();
            change(&mut call);
            page.set_payload(&call);
        }
    };
    Twist { read: Some(Box::new(read)), ..Twist::default() }
}

/// Drains with one entry, and takes nothing for pending after it.
fn drain_first(first: Drain) -> Twist {
    let mut is_first = true;
    Twist {
        drain: Some(Box::new(move |seen| match seen.exit {
            // The answer is handed over for a lease, which is another matter.
            Some(Exit::SnpReqCerts(_)) => Drain::Enter,
            _ if std::mem::take(&mut is_first) => first,
            _ => Drain::Skip,
        })),
        ..Twist::default()
    }
}
