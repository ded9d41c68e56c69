//! Why a vCPU is not entered again.

use exeunt_proto::exit::{DecodeError, Exit, FailEntry, InternalError, MemoryFault, Other, SystemEvent};
use exeunt_proto::ghci::FatalError;
use exeunt_proto::termination::SevTermination;
use thiserror::Error;

/// The end of a run. Each cause carries what is needed to find it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Stop {
    /// The guest halted and no event can wake it, as the VMM keeps the local APIC.
    #[error("the guest halted")]
    Halted,
    /// A triple fault. It ends or resets the whole VM, whichever vCPU met it.
    #[error("the guest was shut down by a triple fault")]
    Shutdown,
    /// An SEV-ES or SNP guest asked to be terminated.
    #[error("the guest asked to be terminated: {0}")]
    Terminated(SevTermination),
    /// A TD reported a fatal error. The text is the TD's own.
    #[error("the TD gave up: {0}")]
    FatalError(Box<FatalError>),
    /// The guest asked for a shutdown, a reset or a suspend, woke up, or crashed.
    #[error("system event {event}, data {data:x?}", event = .0.event, data = .0.data.as_slice())]
    Event(Box<SystemEvent>),
    /// A system event of a type that has no meaning here. It is not taken for a shutdown or a reset.
    #[error("system event of {event}, data {data:x?}", event = .0.event, data = .0.data.as_slice())]
    UnknownEvent(Box<SystemEvent>),
    /// The page, or the error of `KVM_RUN`, has no meaning.
    #[error("{0}")]
    Enter(#[from] DecodeError),
    /// The vCPU could not be entered.
    #[error("the entry failed with reason {reason:#x} on CPU {cpu}", reason = .0.reason, cpu = .0.cpu)]
    FailEntry(FailEntry),
    /// KVM gave up.
    #[error("KVM internal error {suberror}, data {data:x?}", suberror = .0.suberror, data = .0.data.as_slice())]
    InternalError(Box<InternalError>),
    /// The VM context is corrupted.
    #[error("a notify exit says that the VM context is invalid (flags {flags:#x})")]
    ContextInvalid {
        /// `KVM_NOTIFY_*`.
        flags: u32,
    },
    /// A memory fault that the policy does not answer.
    #[error("memory fault at {gpa}, {size:#x} bytes, private {private}: {why}",
            gpa = fault.gpa, size = fault.size, private = fault.private)]
    MemoryFault {
        /// The fault.
        fault: MemoryFault,
        /// Why it ends the run.
        why: FaultCause,
    },
    /// The same memory fault came back again and again.
    #[error("no progress: {repeats} times the memory fault at {gpa}", gpa = fault.gpa)]
    NoProgress {
        /// The fault.
        fault: MemoryFault,
        /// How often it came.
        repeats: u32,
    },
    /// Answers led to exit after exit without the guest running.
    #[error("the vCPU made {exits} exits while its completions were drained")]
    Undrained {
        /// How many.
        exits: u32,
    },
    /// An exit without a meaning here.
    #[error("{reason} is not known here; its union starts with {bytes:02x?}",
            reason = .0.reason, bytes = .0.bytes.get(..64).unwrap_or_default())]
    UnknownExit(Box<Other>),
    /// A kind of exit that is younger than this crate's policy.
    #[error("no policy for {0:?}")]
    Unplanned(Box<Exit>),
}

/// Why a memory fault ends the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FaultCause {
    /// The page is poisoned, which no conversion mends.
    #[error("the page is poisoned")]
    Poisoned,
    /// A flag is set that has no meaning here.
    #[error("unknown flags {bits:#x}")]
    UnknownFlags {
        /// Only the unknown bits.
        bits: u64,
    },
    /// The range is empty, unaligned or wraps.
    #[error("the range is malformed")]
    BadRange,
    /// A part of the range lies outside every slot, or in one that has no private half where one is needed.
    #[error("no slot backs the range")]
    NoSlot,
    /// Implicit conversion was not chosen.
    #[error("implicit conversion is not allowed by the policy")]
    NotAllowed,
}
