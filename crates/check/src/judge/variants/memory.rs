//! Wrong in what conversions do to memory.

use super::Variant;
use super::conversions::{is_conversion, misread};
use crate::judge::transcript::Effect;
use crate::judge::twist::{Seen, Twist};
use exeunt_abi::Gfn;
use exeunt_abi::kvm::run::Hypercall;
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::Exit;
use exeunt_proto::host::Backing;

pub(super) const VARIANTS: &[Variant] = &[
    Variant {
        name: "counts-large-pages",
        what: "takes npages for pages of 2 MiB when the hint says so",
        breaks: &["HC-4"],
        twist: || {
            misread(|call| call.args[1] = call.args[1].saturating_mul(if hint(call) { 512 } else { 1 }))
        },
    },
    Variant {
        name: "counts-in-2m",
        what: "divides npages by 512 when the hint says 2 MiB",
        breaks: &["HC-4"],
        twist: || misread(|call| call.args[1] /= if hint(call) { 512 } else { 1 }),
    },
    Variant {
        name: "only-zero-is-shared",
        what: "takes attributes other than 0 for private",
        breaks: &["HC-5"],
        twist: || misread(|call| call.args[2] |= if call.args[2] == 0 { 0 } else { 0x10 }),
    },
    Variant {
        name: "masks-reserved-bits",
        what: "does not look at reserved attribute bits",
        breaks: &["HC-5"],
        twist: || misread(|call| call.args[2] &= 0x1f),
    },
    Variant {
        name: "discards-nothing",
        what: "changes attributes and keeps the memory of the old side",
        breaks: &["HC-8"],
        twist: || on_discard(|_, _| Vec::new()),
    },
    Variant {
        name: "discards-shared-only",
        what: "keeps private memory when pages become shared",
        breaks: &["HC-8"],
        twist: || {
            on_discard(|range, backing| match backing {
                Backing::Shared => vec![Effect::Discard { range, backing }],
                Backing::Private => Vec::new(),
            })
        },
    },
    Variant {
        name: "discards-first",
        what: "discards before it changes the attributes",
        breaks: &["HC-8"],
        twist: || Twist {
            effect: Some(Box::new(|seen, effect| match effect {
                Effect::Attributes { range, to } if is_conversion(&seen.page) => {
                    let backing = if to == PageState::Private { Backing::Shared } else { Backing::Private };
                    vec![Effect::Discard { range, backing }, effect]
                }
                Effect::Discard { .. } if is_conversion(&seen.page) => Vec::new(),
                effect => vec![effect],
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "discards-the-new-side",
        what: "discards the memory that the pages use now",
        breaks: &["HC-13", "HC-8"],
        twist: || {
            on_discard(|range, backing| {
                let backing = if backing == Backing::Shared { Backing::Private } else { Backing::Shared };
                vec![Effect::Discard { range, backing }]
            })
        },
    },
    Variant {
        name: "first-slot-only",
        what: "converts what lies in the first slot of a range",
        breaks: &["HC-9"],
        twist: || {
            over_slots(|effect, _| match effect.range() {
                Some(range) if range.gfn() < Gfn(0x600) => vec![effect],
                _ => Vec::new(),
            })
        },
    },
    Variant {
        name: "discards-the-hole",
        what: "discards the whole range, with what lies between the slots",
        breaks: &["HC-9"],
        twist: || {
            over_slots(|effect, asked| match effect {
                Effect::Discard { backing, .. } => vec![Effect::Discard { range: asked, backing }],
                effect => vec![effect],
            })
        },
    },
    Variant {
        name: "converts-a-page-more",
        what: "changes the attributes of the page in front of the range, too",
        breaks: &["HC-9"],
        twist: || {
            over_slots(|effect, asked| match effect {
                Effect::Attributes { range, to } if range.gfn() == asked.gfn() => {
                    let wider = PageRange::new(Gfn(range.gfn().0 - 1), range.pages() + 1).unwrap_or(range);
                    vec![Effect::Attributes { range: wider, to }]
                }
                effect => vec![effect],
            })
        },
    },
    Variant {
        name: "discards-late",
        what: "lets another vCPU convert between attributes and discard",
        breaks: &["HC-13"],
        twist: || {
            let mut late = None;
            Twist {
                effect: Some(Box::new(move |seen, effect| match (seen.vcpu, &effect) {
                    (1, Effect::Discard { .. }) => {
                        late = Some(effect);
                        Vec::new()
                    }
                    (0, Effect::Discard { .. }) => [effect].into_iter().chain(late.take()).collect(),
                    _ => vec![effect],
                })),
                ..Twist::default()
            }
        },
    },
    Variant {
        name: "faults-discard-nothing",
        what: "keeps the memory of the old side when it converts for a fault",
        breaks: &["MF-6"],
        twist: || Twist {
            effect: Some(Box::new(|seen, effect| match (&seen.exit, &effect) {
                (Some(Exit::MemoryFault(_)), Effect::Discard { .. }) => Vec::new(),
                _ => vec![effect],
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "reads-the-page-twice",
        what: "checks the arguments in the live page, and reads them again to use them",
        breaks: &["RN-3"],
        twist: || Twist {
            read: Some(Box::new(|_, page, live| {
                if is_conversion(page) {
                    page.set_payload(&live.payload::<Hypercall>());
                }
            })),
            ..Twist::default()
        },
    },
];

/// The hint says 2 MiB.
fn hint(call: &Hypercall) -> bool {
    call.args[2] & 0xf == 1
}

/// Does something else instead of a discard of a conversion that the guest asked for.
fn on_discard(instead: fn(PageRange, Backing) -> Vec<Effect>) -> Twist {
    let effect = move |seen: &Seen, effect| match effect {
        Effect::Discard { range, backing } if is_conversion(&seen.page) => instead(range, backing),
        effect => vec![effect],
    };
    Twist { effect: Some(Box::new(effect)), ..Twist::default() }
}

/// Pages from the first slot of the scenario to the last: only such a range is treated otherwise.
const OVER_SLOTS: u64 = 0x4e0;

fn over_slots(instead: fn(Effect, PageRange) -> Vec<Effect>) -> Twist {
    let effect = move |seen: &Seen, effect| {
        let [gpa, pages, ..] = seen.page.payload::<Hypercall>().args;
        match PageRange::new(Gfn(gpa >> 12), pages) {
            Some(asked) if pages == OVER_SLOTS && is_conversion(&seen.page) => instead(effect, asked),
            _ => vec![effect],
        }
    };
    Twist { effect: Some(Box::new(effect)), ..Twist::default() }
}
