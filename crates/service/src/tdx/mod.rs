//! Calls of a TD: quotes, the interrupt that announces them, and which calls there are.
//!
//! A quote takes its time, so `GetQuote` is answered at once and the quote follows: [`Quotes`] takes a slot, marks the
//! buffer and hands the report to a [`QuoteProvider`]; whichever thread has the quote gives it to the [`QuoteSink`].
//! There is no thread in here.
//!
//! Source: Intel 348552 version 1.5, sections 3.1, 3.3 and 3.5; Linux v7.2 `Documentation/virt/kvm/api.rst`, `KVM_EXIT_TDX`.

mod quotes;
mod slots;

pub use quotes::{
    GuestWriter, NoQuote, Notifier, NotifyTarget, QuoteLimits, QuoteProvider, QuoteSink, Quotes,
};

use crate::layer::trace::Observer;
use crate::memory::GuestMemory;
use exeunt_abi::ghci::Status;
use exeunt_abi::kvm::tdx::{Capabilities, TDVMCALLINFO_SETUP_EVENT_NOTIFY_INTERRUPT};
use exeunt_abi::{Gpa, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::TdxCall;
use exeunt_proto::host::Host;
use exeunt_proto::reply::{Reply, TdxReply};
use std::fmt;
use std::ops::RangeInclusive;

/// The vectors that a TD may choose; the others are the processor's.
///
/// Source: Intel 348552 version 1.5, section 3.5.
const VECTORS: RangeInclusive<u8> = 32..=255;

/// What a VMM has decided about the calls of its TDs. By default every call keeps the answer that KVM preset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TdxPolicy {
    /// Where quotes come from. `None`: there are no quotes.
    pub quotes: Option<Quotes>,
    /// Which calls the kernel has, and which of them a VMM may say that it has.
    pub calls: CallInfo,
}

/// What `KVM_TDX_CAPABILITIES` says of calls beyond the base, for R11 and R12 of `GetTdVmCallInfo` leaf 1. By default
/// there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallInfo {
    /// What the kernel answers by itself. The TD is always told of these.
    pub kernel: [u64; 2],
    /// What a VMM may answer. The TD is told of those that the VMM answers.
    pub user: [u64; 2],
}

impl From<&Capabilities> for CallInfo {
    fn from(capabilities: &Capabilities) -> Self {
        Self {
            kernel: [capabilities.kernel_tdvmcallinfo_1_r11, capabilities.kernel_tdvmcallinfo_1_r12],
            user: [capabilities.user_tdvmcallinfo_1_r11, capabilities.user_tdvmcallinfo_1_r12],
        }
    }
}

/// What is to be done about one call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum TdxPlan<'a> {
    /// Enter again with the answer that KVM preset.
    Preset,
    /// Say this and do nothing.
    Answer(TdxReply),
    /// Signal this vector when a quote is there.
    SetVector {
        /// The vector.
        vector: u8,
        /// Whose it is.
        quotes: &'a Quotes,
    },
    /// Read a request out of a buffer, mark the buffer, and pass the request on.
    Quote {
        /// The buffer: whole pages of shared memory.
        range: PageRange,
        /// Who makes the quote.
        quotes: &'a Quotes,
    },
}

impl TdxPolicy {
    /// Plans the answer to a call. KVM checks neither the alignment nor the length of a buffer, nor whether it is shared.
    pub fn plan(&self, call: TdxCall, memory: &GuestMemory) -> TdxPlan<'_> {
        match call {
            TdxCall::GetQuote { gpa, size_bytes } => match &self.quotes {
                Some(quotes) => plan_quote(quotes, gpa, size_bytes, memory),
                None => TdxPlan::Preset,
            },
            TdxCall::GetTdVmCallInfo { leaf: 1 } => {
                let [r11, r12] = self.calls.kernel;
                let r11 =
                    if self.announces() { r11 | TDVMCALLINFO_SETUP_EVENT_NOTIFY_INTERRUPT } else { r11 };
                TdxPlan::Answer(TdxReply::Info { r11, r12, r13: 0, r14: 0 })
            }
            TdxCall::SetupEventNotify { vector } => {
                let Some(quotes) = self.quotes.as_ref().filter(|_| self.announces()) else {
                    return refuse(Status::SUBFUNC_UNSUPPORTED);
                };
                match u8::try_from(vector) {
                    Ok(vector) if VECTORS.contains(&vector) => TdxPlan::SetVector { vector, quotes },
                    _ => refuse(Status::INVALID_OPERAND),
                }
            }
            // KVM has put a safe answer to every call in place, also to those that are younger than this crate.
            _ => TdxPlan::Preset,
        }
    }

    /// Whether interrupts announce quotes: the kernel leaves it to the VMM, and the VMM can send them.
    fn announces(&self) -> bool {
        let [user, _] = self.calls.user;
        let is_offered = user & TDVMCALLINFO_SETUP_EVENT_NOTIFY_INTERRUPT != 0;
        is_offered && self.quotes.as_ref().is_some_and(Quotes::has_notifier)
    }
}

/// The checks come in the order of what they need: numbers first, then the map of memory.
fn plan_quote<'a>(quotes: &'a Quotes, gpa: Gpa, size_bytes: u64, memory: &GuestMemory) -> TdxPlan<'a> {
    if (gpa.0 | size_bytes) & (PAGE_SIZE - 1) != 0 {
        return refuse(Status::ALIGN_ERROR);
    }
    let range = PageRange::new(gpa.gfn(), size_bytes / PAGE_SIZE);
    match range.filter(|_| size_bytes <= quotes.max_bytes()) {
        Some(range) if memory.is_shared(range) => TdxPlan::Quote { range, quotes },
        _ => refuse(Status::INVALID_OPERAND),
    }
}

const fn refuse(status: Status) -> TdxPlan<'static> {
    TdxPlan::Answer(TdxReply::Status(status))
}

impl TdxPlan<'_> {
    /// Carries the plan out and returns the answer.
    pub fn carry_out(&self, host: &mut impl Host, observer: &mut impl Observer) -> Reply {
        match self {
            Self::Preset => Reply::None,
            Self::Answer(answer) => Reply::Tdx(*answer),
            Self::SetVector { vector, quotes } => {
                quotes.set_vector(NotifyTarget { vcpu: host.vcpu_id(), vector: *vector });
                Reply::Tdx(TdxReply::Status(Status::SUCCESS))
            }
            Self::Quote { range, quotes } => {
                Reply::Tdx(TdxReply::Status(quotes.request(*range, host, observer)))
            }
        }
    }
}

impl fmt::Display for TdxPlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset => f.write_str("enter again with the answer that KVM preset"),
            Self::Answer(TdxReply::Status(status)) => write!(f, "answer {status}"),
            Self::Answer(TdxReply::Info { r11, r12, .. }) => {
                write!(f, "tell of the calls {r11:#x} and {r12:#x}")
            }
            Self::SetVector { vector, .. } => write!(f, "signal quotes with vector {vector}"),
            Self::Quote { range, .. } => write!(f, "ask for a quote into {range}"),
        }
    }
}

#[cfg(test)]
mod tests;
