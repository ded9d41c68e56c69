//! The end of a VM: what to log, what to do next, and which status the process ends with.
//!
//! | status | what happened |
//! |---|---|
//! | 0 | the guest asked to be shut down, or halted for good |
//! | 10 | the guest asked to be reset, and the VMM did not restart it |
//! | 11, 12 | the guest asked to be suspended; a suspended vCPU woke up |
//! | 20 | a triple fault |
//! | 21 | the guest reported a crash |
//! | 22, 23 | an SEV-ES or SNP guest asked to be terminated; a TD reported a fatal error |
//! | 30, 31, 32 | a memory fault that nothing answers; one that comes back; a poisoned page |
//! | 40, 41, 42, 43 | `KVM_RUN` failed; the entry failed; KVM gave up; the VM context is corrupt |
//! | 50, 51, 52, 53 | an unknown event; an unknown exit; bytes without a meaning; one exit after the other |
//!
//! A number stays what it is, so that a supervisor can decide by it. What is not known never ends with 0.

use crate::layer::event::kinds;
use crate::stop::{FaultCause, Stop};
use exeunt_abi::Errno;
use exeunt_proto::exit::{DecodeError, EventType, MemoryFault, SystemEvent};
use exeunt_proto::termination::SevTermination;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

kinds! {
    /// Which end. [`Stop::Event`] is one kind for each type of event.
    StopKind {
        /// `HLT` that nothing ends.
        Halted = "halted",
        /// `KVM_SYSTEM_EVENT_SHUTDOWN`.
        Shutdown = "shutdown",
        /// `KVM_SYSTEM_EVENT_RESET`.
        Reset = "reset",
        /// `KVM_SYSTEM_EVENT_SUSPEND`.
        Suspend = "suspend",
        /// `KVM_SYSTEM_EVENT_WAKEUP`.
        Wakeup = "wakeup",
        /// `KVM_EXIT_SHUTDOWN`.
        TripleFault = "triple_fault",
        /// `KVM_SYSTEM_EVENT_CRASH`.
        Crash = "crash",
        /// `KVM_SYSTEM_EVENT_SEV_TERM`.
        SevTerm = "sev_term",
        /// `KVM_SYSTEM_EVENT_TDX_FATAL`.
        TdxFatal = "tdx_fatal",
        /// A memory fault that the policy does not answer.
        MemoryFault = "memory_fault",
        /// The same memory fault again and again.
        NoProgress = "no_progress",
        /// A poisoned page.
        Poisoned = "poisoned",
        /// `KVM_RUN` failed.
        RunFailed = "run_failed",
        /// `KVM_EXIT_FAIL_ENTRY`.
        FailEntry = "fail_entry",
        /// `KVM_EXIT_INTERNAL_ERROR`.
        InternalError = "internal_error",
        /// `KVM_EXIT_NOTIFY` with an invalid context.
        ContextInvalid = "context_invalid",
        /// A system event of an unknown type.
        UnknownEvent = "unknown_event",
        /// An exit of an unknown number, or one that no policy knows.
        UnknownExit = "unknown_exit",
        /// A run page that contradicts itself.
        BadPage = "bad_page",
        /// Answers that led from exit to exit.
        Undrained = "undrained",
    }
}

/// How loud to say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The guest did what guests do.
    Info,
    /// The guest is gone, by its own decision or fault.
    Warning,
    /// The guest was ended by something that should not be.
    Error,
    /// The host is at fault: its hardware, its kernel, or this code.
    Critical,
}

/// What to do with the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// End it: no vCPU of it is entered again.
    End,
    /// Start it anew. A confidential guest is launched and measured again; it has no reset that keeps its memory.
    Restart,
    /// Keep it, and enter the vCPU again when something wakes it.
    Suspend,
    /// Enter this vCPU again, after the VMM has made it runnable.
    Wake,
}

impl StopKind {
    /// How loud to say it.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Halted | Self::Shutdown | Self::Reset | Self::Suspend | Self::Wakeup => Severity::Info,
            Self::TripleFault | Self::Crash | Self::SevTerm | Self::TdxFatal => Severity::Warning,
            Self::MemoryFault | Self::NoProgress | Self::UnknownEvent | Self::UnknownExit => Severity::Error,
            Self::Poisoned
            | Self::RunFailed
            | Self::FailEntry
            | Self::InternalError
            | Self::ContextInvalid
            | Self::BadPage
            | Self::Undrained => Severity::Critical,
        }
    }

    /// The exit status of a process whose VM ended so; see the table of this module.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Halted | Self::Shutdown => 0,
            Self::Reset => 10,
            Self::Suspend => 11,
            Self::Wakeup => 12,
            Self::TripleFault => 20,
            Self::Crash => 21,
            Self::SevTerm => 22,
            Self::TdxFatal => 23,
            Self::MemoryFault => 30,
            Self::NoProgress => 31,
            Self::Poisoned => 32,
            Self::RunFailed => 40,
            Self::FailEntry => 41,
            Self::InternalError => 42,
            Self::ContextInvalid => 43,
            Self::UnknownEvent => 50,
            Self::UnknownExit => 51,
            Self::BadPage => 52,
            Self::Undrained => 53,
        }
    }

    /// What to do with the VM, if nothing else was decided.
    #[must_use]
    pub const fn next(self) -> Next {
        match self {
            Self::Reset => Next::Restart,
            Self::Suspend => Next::Suspend,
            Self::Wakeup => Next::Wake,
            _ => Next::End,
        }
    }

    /// Whether something went wrong, so that a dump is worth its time.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        !matches!(self.severity(), Severity::Info)
    }
}

impl Stop {
    /// Which end it is.
    #[must_use]
    pub fn kind(&self) -> StopKind {
        match self {
            Self::Halted => StopKind::Halted,
            Self::Shutdown => StopKind::TripleFault,
            Self::Terminated(_) => StopKind::SevTerm,
            Self::FatalError(_) => StopKind::TdxFatal,
            Self::Event(event) => match event.event {
                EventType::Shutdown => StopKind::Shutdown,
                EventType::Reset => StopKind::Reset,
                EventType::Crash => StopKind::Crash,
                EventType::Wakeup => StopKind::Wakeup,
                EventType::Suspend => StopKind::Suspend,
                EventType::SevTerm => StopKind::SevTerm,
                EventType::TdxFatal => StopKind::TdxFatal,
                _ => StopKind::UnknownEvent,
            },
            Self::UnknownEvent(_) => StopKind::UnknownEvent,
            Self::Enter(DecodeError::Failed { errno: Errno::EHWPOISON, .. })
            | Self::MemoryFault { why: FaultCause::Poisoned, .. } => StopKind::Poisoned,
            Self::Enter(DecodeError::Failed { .. }) => StopKind::RunFailed,
            Self::Enter(_) => StopKind::BadPage,
            Self::FailEntry(_) => StopKind::FailEntry,
            Self::InternalError(_) => StopKind::InternalError,
            Self::ContextInvalid { .. } => StopKind::ContextInvalid,
            Self::MemoryFault { .. } => StopKind::MemoryFault,
            Self::NoProgress { .. } => StopKind::NoProgress,
            Self::Undrained { .. } => StopKind::Undrained,
            Self::UnknownExit(_) | Self::Unplanned(_) => StopKind::UnknownExit,
        }
    }

    /// The line for the log: severity, kind, what happened, and the status. It has no line break and no control
    /// character, whatever the guest put into its message.
    #[must_use]
    pub const fn log_line(&self) -> LogLine<'_> {
        LogLine(self)
    }

    /// The numbers of it one by one, for a log that keeps fields.
    pub fn fields(&self, mut each: impl FnMut(&'static str, Field<'_>)) {
        let each: &mut dyn FnMut(&'static str, Field<'_>) = &mut each;
        match self {
            Self::Halted | Self::Shutdown => {}
            Self::Terminated(termination) => termination_fields(*termination, each),
            Self::FatalError(error) => {
                each("error", Field::Hex(error.error));
                if let Some(gpa) = error.gpa {
                    each("gpa", Field::Hex(gpa.0));
                }
                each("message", Field::GuestText(error.text()));
            }
            Self::Event(event) | Self::UnknownEvent(event) => event_fields(event, each),
            Self::Enter(error) => decode_fields(*error, each),
            Self::FailEntry(fail) => {
                each("reason", Field::Hex(fail.reason));
                each("cpu", Field::Number(u64::from(fail.cpu)));
            }
            Self::InternalError(error) => {
                each("suberror", Field::Number(u64::from(error.suberror)));
                word_fields(error.data.as_slice(), each);
            }
            Self::ContextInvalid { flags } => each("flags", Field::Hex(u64::from(*flags))),
            Self::MemoryFault { fault, why } => {
                fault_fields(fault, each);
                each("why", Field::Text(cause_name(*why)));
            }
            Self::NoProgress { fault, repeats } => {
                fault_fields(fault, each);
                each("repeats", Field::Number(u64::from(*repeats)));
            }
            Self::Undrained { exits } => each("exits", Field::Number(u64::from(*exits))),
            Self::UnknownExit(other) => each("reason", Field::Number(u64::from(other.reason.0))),
            Self::Unplanned(exit) => {
                each("exit", Field::Text(crate::layer::event::ExitKind::of(exit).name()));
            }
        }
    }
}

/// One field of a log record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// A count or a number; printed in decimal.
    Number(u64),
    /// An address or bits; printed in hex.
    Hex(u64),
    /// Yes or no.
    Flag(bool),
    /// A word of this crate.
    Text(&'a str),
    /// Bytes that the guest chose; printed with everything but printable ASCII escaped.
    GuestText(&'a [u8]),
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Hex(bits) => write!(f, "{bits:#x}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Text(text) => f.write_str(text),
            Self::GuestText(bytes) => write!(f, "{}", bytes.escape_ascii()),
        }
    }
}

/// See [`Stop::log_line`].
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a>(&'a Stop);

impl fmt::Display for LogLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.0.kind();
        let severity = kind.severity();
        write!(
            f,
            "{severity}: {kind}: {stop} (exit status {status})",
            stop = self.0,
            status = kind.exit_status()
        )
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        })
    }
}

type Each<'e> = &'e mut dyn FnMut(&'static str, Field<'_>);

fn termination_fields(termination: SevTermination, each: Each<'_>) {
    match termination {
        SevTermination::Reason { set, code } => {
            each("reason_set", Field::Hex(u64::from(set)));
            each("code", Field::Hex(u64::from(code)));
            each("meaning", Field::Text(termination.meaning().unwrap_or("unknown reason")));
        }
        SevTermination::ByPage { ghcb } => each("ghcb", Field::Hex(ghcb.0)),
        SevTermination::NeedsSnp { msr } | SevTermination::Unknown { msr } => {
            each("ghcb_msr", Field::Hex(msr));
        }
    }
}

fn event_fields(event: &SystemEvent, each: Each<'_>) {
    each("event_type", Field::Hex(u64::from(event.event.number())));
    each("ndata", Field::Number(u64::from(event.data.count)));
    word_fields(event.data.as_slice(), each);
}

fn word_fields(words: &[u64], each: Each<'_>) {
    const NAMES: [&str; 16] = [
        "data0", "data1", "data2", "data3", "data4", "data5", "data6", "data7", "data8", "data9", "data10",
        "data11", "data12", "data13", "data14", "data15",
    ];
    for (name, word) in NAMES.into_iter().zip(words) {
        each(name, Field::Hex(*word));
    }
}

fn decode_fields(error: DecodeError, each: Each<'_>) {
    match error {
        DecodeError::Failed { errno, stale } => {
            each("errno", Field::Number(u64::from(errno.0.unsigned_abs())));
            each("stale_reason", Field::Number(u64::from(stale.0)));
        }
        DecodeError::IoDirection { direction } => each("direction", Field::Number(u64::from(direction))),
        DecodeError::IoSize { size } => each("size", Field::Number(u64::from(size))),
        DecodeError::IoData { offset, bytes } => {
            each("offset", Field::Hex(offset));
            each("bytes", Field::Number(bytes));
        }
        DecodeError::MmioLen { len } => each("len", Field::Number(u64::from(len))),
        _ => {}
    }
}

fn fault_fields(fault: &MemoryFault, each: Each<'_>) {
    each("gpa", Field::Hex(fault.gpa.0));
    each("size", Field::Hex(fault.size));
    each("private", Field::Flag(fault.private));
    if fault.unknown_flags != 0 {
        each("unknown_flags", Field::Hex(fault.unknown_flags));
    }
}

const fn cause_name(why: FaultCause) -> &'static str {
    match why {
        FaultCause::Poisoned => "poisoned",
        FaultCause::UnknownFlags { .. } => "unknown_flags",
        FaultCause::BadRange => "bad_range",
        FaultCause::NoSlot => "no_slot",
        FaultCause::NotAllowed => "not_allowed",
    }
}

/// The end of a VM as all of its vCPU threads see it. The first that stops says why, and the others are taken out
/// of the guest: a triple fault, a reset or a termination is of the VM, whichever vCPU met it.
///
/// It is a value and has no thread. Each vCPU thread asks [`VmEnd::is_over`] before it enters, and hands its own
/// [`Stop`] to [`VmEnd::end`] if [`StopKind::next`] is [`Next::End`] or [`Next::Restart`]: a guest that is suspended,
/// or wakes up, has not ended.
///
/// ```
/// use exeunt::terminate::VmEnd;
/// use exeunt::Stop;
///
/// let end = VmEnd::with_kick(|| { /* set immediate_exit of each vCPU, then signal its thread */ });
/// while !end.is_over() {
///     // enter and service; on a stop:
///     end.end(Stop::Shutdown);
/// }
/// assert_eq!(end.stop(), Some(&Stop::Shutdown));
/// ```
pub struct VmEnd {
    over: AtomicBool,
    stop: OnceLock<Stop>,
    kick: Box<dyn Fn() + Send + Sync>,
}

impl VmEnd {
    /// An end that nobody has to be told of: for one vCPU, or threads that look often.
    #[must_use]
    pub fn new() -> Self {
        Self::with_kick(|| {})
    }

    /// An end with a way to take every vCPU out of the guest. `kick` is called once, by the thread that ends the VM,
    /// after [`VmEnd::is_over`] is true; it must make an entry that begins later return at once as well, as
    /// `immediate_exit` does.
    #[must_use]
    pub fn with_kick(kick: impl Fn() + Send + Sync + 'static) -> Self {
        Self { over: AtomicBool::new(false), stop: OnceLock::new(), kick: Box::new(kick) }
    }

    /// Ends the VM. Only the first call counts, and says `true`.
    pub fn end(&self, stop: Stop) -> bool {
        if self.stop.set(stop).is_err() {
            return false;
        }
        self.over.store(true, Ordering::SeqCst);
        (self.kick)();
        true
    }

    /// Whether a vCPU has ended the VM. It is one load, so ask before each entry.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Why the VM ended, if it did: what the first vCPU that stopped said.
    #[must_use]
    pub fn stop(&self) -> Option<&Stop> {
        self.stop.get()
    }
}

impl Default for VmEnd {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for VmEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmEnd").field("stop", &self.stop).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
