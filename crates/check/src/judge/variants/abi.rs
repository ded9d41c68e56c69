//! Wrong about the kernel that it runs on.

use super::{Variant, end};
use crate::judge::transcript::Status;
use crate::judge::twist::Twist;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{ExitReason, SystemEvent, event_type};
use exeunt_proto::exit::{EventType, Exit, SystemEvent as Event};

pub(super) const VARIANTS: &[Variant] = &[
    Variant {
        name: "certificates-by-the-posting",
        what: "knows requests for certificates by the number 40 of a posting",
        breaks: &["AB-1"],
        twist: || renumbers(ExitReason::SNP_REQ_CERTS, ExitReason(44)),
    },
    Variant {
        name: "faults-by-the-posting",
        what: "knows memory faults by the number 38 of a posting",
        breaks: &["AB-1"],
        twist: || renumbers(ExitReason::MEMORY_FAULT, ExitReason(38)),
    },
    Variant {
        name: "terminations-by-the-posting",
        what: "knows terminations by the type 0x80000004 of a posting",
        breaks: &["AB-1", "SE-5"],
        twist: || Twist {
            end: Some(Box::new(|seen, told| match seen.exit {
                Some(Exit::SystemEvent(Event { event: EventType::SevTerm, .. })) => {
                    let number = event_type::SEV_TERM;
                    Some(end(Status::Failure, format!("system event of unknown type {number:#x}")))
                }
                _ => Some(told),
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "old-layout-of-i386",
        what: "reads flags where a 32-bit process had them before 5.18",
        breaks: &["AB-2"],
        twist: || Twist {
            read_as_32_bit: Some(Box::new(|page| {
                if page.reason() == ExitReason::SYSTEM_EVENT {
                    let mut event: SystemEvent = page.payload();
                    event.data[0] = event.data[0] << 32 | u64::from(event.ndata);
                    page.set_payload(&event);
                }
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "enables-unasked",
        what: "enables a capability without asking whether it is there",
        breaks: &["AB-3"],
        twist: || Twist {
            believes: Some(Box::new(|cap| (cap == Cap::X86_TRIPLE_FAULT_EVENT).then_some(1))),
            ..Twist::default()
        },
    },
];

/// Takes an exit for one of another number.
fn renumbers(from: ExitReason, to: ExitReason) -> Twist {
    Twist {
        read: Some(Box::new(move |_, page, _| {
            if page.reason() == from {
                page.exit_reason = to.0;
            }
        })),
        ..Twist::default()
    }
}
