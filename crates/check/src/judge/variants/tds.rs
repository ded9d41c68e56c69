//! Wrong with calls of TDs.

use super::{Variant, end};
use crate::judge::transcript::Status as How;
use crate::judge::twist::{Seen, Twist};
use exeunt_abi::ghci::Status;
use exeunt_abi::kvm::run::{Hypercall, RunPage, Tdx};
use exeunt_proto::exit::{Exit, TdxCall};

pub(super) const VARIANTS: &[Variant] = &[
    Variant {
        name: "unknown-call-succeeds",
        what: "answers SUCCESS to a call that it does not know",
        breaks: &["TD-1"],
        twist: || answer(|call| matches!(call, TdxCall::Unknown { .. }), Status::SUCCESS),
    },
    Variant {
        name: "unknown-call-ends-the-td",
        what: "ends a TD that makes a call that it does not know",
        breaks: &["TD-1"],
        twist: || Twist {
            give_up: Some(Box::new(|seen, _| {
                let is_unknown = matches!(call(seen), Some(TdxCall::Unknown { .. }));
                is_unknown.then(|| end(How::Failure, "unknown TDVMCALL"))
            })),
            ..Twist::default()
        },
    },
    Variant {
        name: "any-buffer-takes-a-quote",
        what: "accepts each request for a quote",
        breaks: &["TD-2"],
        twist: || answer(|call| matches!(call, TdxCall::GetQuote { .. }), Status::SUCCESS),
    },
    Variant {
        name: "quotes-are-checked-for-alignment-only",
        what: "accepts a request for a quote whose address is aligned",
        breaks: &["TD-2"],
        twist: || {
            answer(
                |call| matches!(call, TdxCall::GetQuote { gpa, .. } if gpa.is_page_aligned()),
                Status::SUCCESS,
            )
        },
    },
    Variant {
        name: "quotes-into-private-memory",
        what: "accepts a request for a quote in memory, shared or not",
        breaks: &["TD-2"],
        twist: || {
            answer(
                |call| matches!(call, TdxCall::GetQuote { gpa, .. } if gpa.0 == 0x50_0000),
                Status::SUCCESS,
            )
        },
    },
    Variant {
        name: "vector-255-is-too-high",
        what: "takes vectors up to 254",
        breaks: &["TD-3"],
        twist: || {
            answer(|call| matches!(call, TdxCall::SetupEventNotify { vector: 255 }), Status::INVALID_OPERAND)
        },
    },
    Variant {
        name: "vector-32-is-too-low",
        what: "takes vectors from 33 on",
        breaks: &["TD-3"],
        twist: || {
            answer(|call| matches!(call, TdxCall::SetupEventNotify { vector: 32 }), Status::INVALID_OPERAND)
        },
    },
    Variant {
        name: "what-passes-is-an-error",
        what: "answers EINVAL to a TD where EAGAIN would let it ask again",
        breaks: &["TD-4"],
        twist: || Twist {
            answer: Some(Box::new(|seen, page| {
                let is_chunk = |call: &Hypercall| call.nr == 12 && call.args[1] == 512 && call.ret == 11;
                let wire: Hypercall = page.payload();
                if matches!(seen.exit, Some(Exit::Hypercall(_))) && is_chunk(&wire) {
                    page.set_payload(&Hypercall { ret: 22, ..wire });
                }
            })),
            ..Twist::default()
        },
    },
];

fn call(seen: &Seen) -> Option<TdxCall> {
    match seen.exit {
        Some(Exit::Tdx(tdx)) => Some(tdx.call),
        _ => None,
    }
}

/// Gives another status to some calls.
fn answer(which: fn(TdxCall) -> bool, status: Status) -> Twist {
    let answer = move |seen: &Seen, page: &mut RunPage| {
        if call(seen).is_some_and(which) {
            page.set_bytes(core::mem::offset_of!(Tdx, ret), &status.0.to_le_bytes());
        }
    };
    Twist { answer: Some(Box::new(answer)), ..Twist::default() }
}
