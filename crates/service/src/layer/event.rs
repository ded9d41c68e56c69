//! What happens on the way of an exit, as values: small, without an allocation, and without a reference into anything.

use crate::plan::Plan;
use crate::terminate::StopKind;
use exeunt_abi::{Errno, Gpa};
use exeunt_proto::conversion::PageState;
use exeunt_proto::exit::{DecodeError, Entered, Exit};
use exeunt_proto::host::{Action, Backing};
use exeunt_proto::reply::{CertsReply, ConversionReply, MsrReply, Reply, TdxReply, VmgexitReply};

/// One station of an exit. An exit makes an [`Event::Exit`] first and an [`Event::Reply`] or an [`Event::Stop`] last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// `KVM_RUN` came back.
    Exit {
        /// With what.
        kind: ExitKind,
        /// The error number, if it was not 0.
        errno: Option<Errno>,
    },
    /// This will be done.
    Plan(PlanKind),
    /// This was done, or failed.
    Effect(Effect),
    /// This was answered.
    Reply(Reply),
    /// The vCPU is not entered again.
    Stop(StopKind),
}

/// One effect on the host, with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// What it was.
    pub kind: ActionKind,
    /// Where it starts in guest memory.
    pub gpa: Gpa,
    /// How much of it, in bytes.
    pub size_bytes: u64,
    /// What the host said.
    pub result: Result<(), Errno>,
}

/// Defines a list of kinds with their names, so that no kind can be left out of either.
macro_rules! kinds {
    ($(#[$about:meta])* $kind:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $kind { $($(#[$doc])* $variant,)* }

        impl $kind {
            /// All of them. The position of a kind is its [`Self::index`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name: lower case letters and `_`, one word for logs and metrics, which does not change.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Its place in [`Self::ALL`].
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(crate) use kinds;

kinds! {
    /// Which exit: the variants of `exeunt_proto::exit::Exit`, and what has no meaning.
    ExitKind {
        /// `EINTR` or `EAGAIN`.
        Again = "again",
        /// Port I/O.
        Io = "io",
        /// Memory-mapped I/O.
        Mmio = "mmio",
        /// The guest halted.
        Hlt = "hlt",
        /// A forwarded hypercall, a conversion as a rule.
        Hypercall = "hypercall",
        /// A triple fault.
        Shutdown = "shutdown",
        /// The vCPU could not be entered.
        FailEntry = "fail_entry",
        /// KVM gave up.
        InternalError = "internal_error",
        /// A system event.
        SystemEvent = "system_event",
        /// No event window opened for too long.
        Notify = "notify",
        /// An access that KVM could not resolve.
        MemoryFault = "memory_fault",
        /// A request for certificates.
        SnpReqCerts = "snp_req_certs",
        /// An undecoded `VMGEXIT`.
        Vmgexit = "vmgexit",
        /// A processor that is held in reset.
        ApResetHold = "ap_reset_hold",
        /// A call of a TD.
        Tdx = "tdx",
        /// A read of a model-specific register.
        Rdmsr = "rdmsr",
        /// A write of a model-specific register.
        Wrmsr = "wrmsr",
        /// An exit without a meaning here.
        Other = "other",
        /// `KVM_RUN` failed, or its page contradicts itself.
        Undecodable = "undecodable",
    }
}

kinds! {
    /// Which plan: the variants of [`Plan`].
    PlanKind {
        /// Enter again.
        Resume = "resume",
        /// Convert pages.
        Convert = "convert",
        /// Convert pages for an access.
        ConvertForFault = "convert_for_fault",
        /// Refuse a conversion that makes no sense.
        RefuseConversion = "refuse_conversion",
        /// Refuse a conversion of pages without private memory.
        NoPrivateMemory = "no_private_memory",
        /// Refuse a hypercall.
        UnknownHypercall = "unknown_hypercall",
        /// Refuse an access to a model-specific register.
        RefuseMsr = "refuse_msr",
        /// Answer a request for certificates.
        Certs = "certs",
        /// Decode and answer a `VMGEXIT`.
        Vmgexit = "vmgexit",
        /// Answer a call of a TD.
        Tdx = "tdx",
        /// Port I/O.
        PortIo = "port_io",
        /// Memory-mapped I/O.
        Mmio = "mmio",
    }
}

kinds! {
    /// Which effect: the variants of `exeunt_proto::host::Action`, by direction.
    ActionKind {
        /// Pages become private.
        MakePrivate = "make_private",
        /// Pages become shared.
        MakeShared = "make_shared",
        /// The memory that the VMM maps is given back.
        DiscardShared = "discard_shared",
        /// The memory of the `guest_memfd` is given back.
        DiscardPrivate = "discard_private",
        /// Private memory is put behind pages before the guest touches them.
        Prefault = "prefault",
        /// Shared guest memory is written.
        WriteGuest = "write_guest",
        /// An effect that is younger than this list.
        Other = "other",
    }
}

kinds! {
    /// Which answer, as the guest sees it.
    ReplyKind {
        /// None is taken.
        None = "none",
        /// A conversion is done.
        Converted = "converted",
        /// A conversion is refused.
        ConversionRefused = "conversion_refused",
        /// A conversion is to be asked for again.
        ConversionAgain = "conversion_again",
        /// A hypercall is not known.
        UnknownHypercall = "unknown_hypercall",
        /// Certificates are in place.
        CertsInstalled = "certs_installed",
        /// The buffer for certificates is too small.
        CertsTooSmall = "certs_too_small",
        /// Certificates are to be asked for again.
        CertsBusy = "certs_busy",
        /// There are no certificates.
        CertsFailed = "certs_failed",
        /// Bytes for an MMIO read.
        MmioRead = "mmio_read",
        /// A TD's call succeeded.
        TdxSuccess = "tdx_success",
        /// A TD's call has another status.
        TdxStatus = "tdx_status",
        /// An access to a model-specific register is done.
        MsrDone = "msr_done",
        /// An access to a model-specific register faults.
        MsrFault = "msr_fault",
        /// A `VMGEXIT` is answered.
        Vmgexit = "vmgexit",
    }
}

impl ExitKind {
    /// The kind of an exit.
    #[must_use]
    pub const fn of(exit: &Exit) -> Self {
        match exit {
            Exit::Again(_) => Self::Again,
            Exit::Io(_) => Self::Io,
            Exit::Mmio(_) => Self::Mmio,
            Exit::Hlt => Self::Hlt,
            Exit::Hypercall(_) => Self::Hypercall,
            Exit::Shutdown => Self::Shutdown,
            Exit::FailEntry(_) => Self::FailEntry,
            Exit::InternalError(_) => Self::InternalError,
            Exit::SystemEvent(_) => Self::SystemEvent,
            Exit::Notify { .. } => Self::Notify,
            Exit::MemoryFault(_) => Self::MemoryFault,
            Exit::SnpReqCerts(_) => Self::SnpReqCerts,
            Exit::Vmgexit { .. } => Self::Vmgexit,
            Exit::ApResetHold => Self::ApResetHold,
            Exit::Tdx(_) => Self::Tdx,
            Exit::Rdmsr(_) => Self::Rdmsr,
            Exit::Wrmsr(_) => Self::Wrmsr,
            _ => Self::Other,
        }
    }
}

impl PlanKind {
    /// The kind of a plan.
    #[must_use]
    pub const fn of(plan: &Plan<'_>) -> Self {
        match plan {
            Plan::Resume => Self::Resume,
            Plan::Convert { .. } => Self::Convert,
            Plan::ConvertForFault { .. } => Self::ConvertForFault,
            Plan::RefuseConversion(_) => Self::RefuseConversion,
            Plan::NoPrivateMemory(_) => Self::NoPrivateMemory,
            Plan::UnknownHypercall => Self::UnknownHypercall,
            Plan::RefuseMsr => Self::RefuseMsr,
            Plan::Certs(..) => Self::Certs,
            Plan::Vmgexit { .. } => Self::Vmgexit,
            Plan::Tdx(_) => Self::Tdx,
            Plan::PortIo(_) => Self::PortIo,
            Plan::Mmio(_) => Self::Mmio,
        }
    }
}

impl Effect {
    /// The effect of an action with this result.
    #[must_use]
    pub fn of(action: &Action<'_>, result: Result<(), Errno>) -> Self {
        let (kind, gpa, size_bytes) = match *action {
            Action::SetAttributes { range, to: PageState::Private } => {
                (ActionKind::MakePrivate, range.gpa(), range.bytes())
            }
            Action::SetAttributes { range, to: PageState::Shared } => {
                (ActionKind::MakeShared, range.gpa(), range.bytes())
            }
            Action::Discard { range, backing: Backing::Shared } => {
                (ActionKind::DiscardShared, range.gpa(), range.bytes())
            }
            Action::Discard { range, backing: Backing::Private } => {
                (ActionKind::DiscardPrivate, range.gpa(), range.bytes())
            }
            Action::Prefault { range } => (ActionKind::Prefault, range.gpa(), range.bytes()),
            Action::WriteGuest { gpa, bytes } => (ActionKind::WriteGuest, gpa, bytes.len() as u64),
            _ => (ActionKind::Other, Gpa(0), 0),
        };
        Self { kind, gpa, size_bytes, result }
    }
}

impl ReplyKind {
    /// The kind of an answer.
    #[must_use]
    pub fn of(reply: &Reply) -> Self {
        match reply {
            Reply::None => Self::None,
            Reply::Conversion(ConversionReply::Done) => Self::Converted,
            Reply::Conversion(ConversionReply::Invalid) => Self::ConversionRefused,
            Reply::Conversion(ConversionReply::Again) => Self::ConversionAgain,
            Reply::UnknownHypercall => Self::UnknownHypercall,
            Reply::Certs(CertsReply::Installed) => Self::CertsInstalled,
            Reply::Certs(CertsReply::TooSmall { .. }) => Self::CertsTooSmall,
            Reply::Certs(CertsReply::Busy) => Self::CertsBusy,
            Reply::Certs(CertsReply::Failed) => Self::CertsFailed,
            Reply::MmioRead(_) => Self::MmioRead,
            Reply::Tdx(TdxReply::Info { .. }) => Self::TdxSuccess,
            Reply::Tdx(TdxReply::Status(status)) if status.0 == 0 => Self::TdxSuccess,
            Reply::Tdx(TdxReply::Status(_)) => Self::TdxStatus,
            Reply::Msr(MsrReply::Fault) => Self::MsrFault,
            Reply::Msr(MsrReply::Read(_) | MsrReply::Written) => Self::MsrDone,
            Reply::Vmgexit(VmgexitReply::Page(_) | VmgexitReply::Msr(_)) => Self::Vmgexit,
        }
    }
}

impl Event {
    /// The event of an entry that came back.
    #[must_use]
    pub fn of_exit(entered: Entered, exit: &Result<Exit, DecodeError>) -> Self {
        let kind = exit.as_ref().map_or(ExitKind::Undecodable, ExitKind::of);
        Self::Exit { kind, errno: entered.err() }
    }
}

#[cfg(test)]
mod tests;
