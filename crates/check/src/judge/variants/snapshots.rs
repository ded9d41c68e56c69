//! Wrong with triple faults that are pending.

use super::Variant;
use crate::judge::twist::Twist;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::{VALID_TRIPLE_FAULT, VcpuEvents};
use exeunt_proto::events::{triple_fault, with_triple_fault};

pub(super) const VARIANTS: &[Variant] = &[
    Variant {
        name: "does-not-enable-218",
        what: "leaves capability 218 off",
        breaks: &["TF-1"],
        twist: || Twist {
            enable: Some(Box::new(|cap, _, wanted| (cap != Cap::X86_TRIPLE_FAULT_EVENT).then_some(wanted))),
            ..Twist::default()
        },
    },
    Variant {
        name: "loses-the-byte",
        what: "does not carry the byte of the triple fault over",
        breaks: &["TF-2"],
        twist: || saved(|events| with_triple_fault(events, false)),
    },
    Variant {
        name: "loses-the-flag",
        what: "carries a pending triple fault over without its flag",
        breaks: &["TF-2"],
        twist: || saved(|events| VcpuEvents { flags: events.flags & !VALID_TRIPLE_FAULT, ..events }),
    },
    Variant {
        name: "runs-what-it-could-not-restore",
        what: "runs a target that cannot take the pending triple fault",
        breaks: &["TF-2"],
        twist: || Twist { runs_unrestored: true, ..Twist::default() },
    },
    Variant {
        name: "clears-what-it-read",
        what: "takes a pending triple fault away from the vCPU that it read it from",
        breaks: &["TF-3"],
        twist: || Twist {
            after_save: Some(Box::new(|events| {
                (triple_fault(&events) == Some(true)).then(|| with_triple_fault(events, false))
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "only-sets-and-never-clears",
        what: "leaves the flag out when no triple fault is pending",
        breaks: &["TF-4"],
        twist: || {
            sets(|events| {
                let flag = if events.triple_fault_pending == 0 { VALID_TRIPLE_FAULT } else { 0 };
                vec![VcpuEvents { flags: events.flags & !flag, ..events }]
            })
        },
    },
    Variant {
        name: "always-sets-the-flag",
        what: "sets the flag of the triple fault without capability 218",
        breaks: &["TF-5"],
        twist: || sets(|events| vec![VcpuEvents { flags: events.flags | VALID_TRIPLE_FAULT, ..events }]),
    },
    Variant {
        name: "tries-again-without-reading",
        what: "sets events with a flag that no kernel has, and after EINVAL without it",
        breaks: &["TF-5"],
        twist: || sets(|events| vec![VcpuEvents { flags: events.flags | 0x40, ..events }, events]),
    },
];

/// Saves other events where a triple fault is pending.
fn saved(change: fn(VcpuEvents) -> VcpuEvents) -> Twist {
    Twist {
        saved: Some(Box::new(
            move |events| {
                if triple_fault(&events) == Some(true) { change(events) } else { events }
            },
        )),
        ..Twist::default()
    }
}

fn sets(change: fn(VcpuEvents) -> Vec<VcpuEvents>) -> Twist {
    Twist { set: Some(Box::new(change)), ..Twist::default() }
}
