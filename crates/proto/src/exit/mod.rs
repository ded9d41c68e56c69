//! What an exit of `KVM_RUN` means.

mod decode;
mod emulation;
mod encode;
mod msr;
mod tdx;

use core::fmt;
use exeunt_abi::kvm::run::coco_v1::COCO;
use exeunt_abi::kvm::run::vmgexit_v10::VMGEXIT;
use exeunt_abi::kvm::run::{ExitReason, UNION_BYTES};
use exeunt_abi::{CertsForm, Dialect, Errno, Gpa};

pub use decode::{DecodeError, decode};
pub use emulation::{EmulationFailure, Instruction};
pub use encode::{encode, map_gpa_range_by_psc};
pub use msr::{Rdmsr, Wrmsr};
pub use tdx::{Tdx, TdxCall};

/// What `KVM_RUN` returned: nothing, or the error number.
pub type Entered = Result<(), Errno>;

/// One exit, as a value. What this crate does not know is carried in [`Exit::Other`] with its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// `KVM_RUN` returned `EINTR` or `EAGAIN`: nothing to answer, enter again. `exit_reason` is stale.
    Again(Errno),
    /// Port I/O. The data is in the vCPU's port page.
    Io(Io),
    /// Memory-mapped I/O.
    Mmio(Mmio),
    /// The guest halted, with a userspace local APIC.
    Hlt,
    /// A hypercall that KVM forwards.
    Hypercall(Hypercall),
    /// A triple fault, or what KVM makes of one. There is no payload.
    Shutdown,
    /// The vCPU could not be entered.
    FailEntry(FailEntry),
    /// KVM cannot go on with this vCPU.
    InternalError(InternalError),
    /// The guest asked for a shutdown, reset or termination, or crashed.
    SystemEvent(SystemEvent),
    /// No event window opened for too long; with `context_invalid` the vCPU is not to be entered again.
    Notify {
        /// `KVM_NOTIFY_*`.
        flags: u32,
    },
    /// An access that KVM could not resolve: the memory-attribute mismatch or a poisoned page.
    MemoryFault(MemoryFault),
    /// An SNP guest asks for certificates.
    SnpReqCerts(SnpReqCerts),
    /// A `VMGEXIT` that the kernel did not decode, in the dialect `vmgexit-v10`.
    Vmgexit {
        /// The GHCB MSR: a request, or the address of a GHCB page in guest memory.
        ghcb_msr: u64,
    },
    /// An SEV-ES guest holds this processor in reset until a startup interrupt comes. There is no payload.
    ApResetHold,
    /// A TD made a call that userspace answers.
    Tdx(Tdx),
    /// The guest reads a model-specific register that userspace emulates.
    Rdmsr(Rdmsr),
    /// The guest writes a model-specific register that userspace emulates.
    Wrmsr(Wrmsr),
    /// An exit without a meaning here.
    Other(Other),
}

/// Port I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// The guest writes to the port.
    pub is_out: bool,
    /// Bytes of one element: 1, 2 or 4, or what an SEV-ES guest makes of the bits for these, up to 7.
    pub size: u8,
    /// The port.
    pub port: u16,
    /// Elements; more than one for string instructions.
    pub count: u32,
    /// Where the data starts in the port page, in bytes.
    pub start: u16,
}

impl Io {
    /// The bytes of the port page that hold the data.
    #[must_use]
    pub fn data_range(&self) -> core::ops::Range<usize> {
        let start = usize::from(self.start);
        let bytes = (self.count as usize).saturating_mul(usize::from(self.size));
        start..start.saturating_add(bytes)
    }
}

/// Memory-mapped I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mmio {
    /// Where.
    pub gpa: Gpa,
    /// The bytes written; for a read, what the page held.
    pub data: [u8; 8],
    /// How many bytes count, 1 to 8.
    pub len: u8,
    /// The guest writes.
    pub is_write: bool,
}

/// A forwarded hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hypercall {
    /// The number; 12 is `KVM_HC_MAP_GPA_RANGE`.
    pub nr: u64,
    /// The arguments. For `KVM_HC_MAP_GPA_RANGE` only three are written by KVM and the rest is zero here.
    pub args: [u64; 6],
    /// `KVM_EXIT_HYPERCALL_*`; stale where an SNP page-state change made the exit.
    pub flags: u64,
}

/// A refused entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailEntry {
    /// The vendor's exit code.
    pub reason: u64,
    /// The host CPU.
    pub cpu: u32,
}

/// KVM's own failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InternalError {
    /// `KVM_INTERNAL_ERROR_*`.
    pub suberror: u32,
    /// What it says about itself.
    pub data: Words,
}

/// A system event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemEvent {
    /// What happened.
    pub event: EventType,
    /// What the event says about itself. Empty where the kernel did not write it.
    pub data: Words,
}

/// `system_event.type`, all 32 bits of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventType {
    /// The guest asked to be shut down.
    Shutdown,
    /// The guest asked to be reset.
    Reset,
    /// The guest crashed.
    Crash,
    /// A suspended vCPU wakes up.
    Wakeup,
    /// The guest asked to be suspended.
    Suspend,
    /// An SEV-ES or SNP guest asked to be terminated.
    SevTerm,
    /// A TD reported a fatal error.
    TdxFatal,
    /// A type without a meaning here. Bit 31 is part of the number.
    Unknown(u32),
}

impl EventType {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        use exeunt_abi::kvm::run::event_type as t;
        match self {
            Self::Shutdown => t::SHUTDOWN,
            Self::Reset => t::RESET,
            Self::Crash => t::CRASH,
            Self::Wakeup => t::WAKEUP,
            Self::Suspend => t::SUSPEND,
            Self::SevTerm => t::SEV_TERM,
            Self::TdxFatal => t::TDX_FATAL,
            Self::Unknown(number) => number,
        }
    }

    /// The type with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        use exeunt_abi::kvm::run::event_type as t;
        match number {
            t::SHUTDOWN => Self::Shutdown,
            t::RESET => Self::Reset,
            t::CRASH => Self::Crash,
            t::WAKEUP => Self::Wakeup,
            t::SUSPEND => Self::Suspend,
            t::SEV_TERM => Self::SevTerm,
            t::TDX_FATAL => Self::TdxFatal,
            number => Self::Unknown(number),
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("SHUTDOWN"),
            Self::Reset => f.write_str("RESET"),
            Self::Crash => f.write_str("CRASH"),
            Self::Wakeup => f.write_str("WAKEUP"),
            Self::Suspend => f.write_str("SUSPEND"),
            Self::SevTerm => f.write_str("SEV_TERM"),
            Self::TdxFatal => f.write_str("TDX_FATAL"),
            Self::Unknown(number) => write!(f, "unknown type {number:#x}"),
        }
    }
}

/// Up to 16 words with the count that the kernel gave. A count above 16 is kept and cannot be read past.
#[derive(Clone, Copy)]
pub struct Words {
    /// `ndata` as written.
    pub count: u32,
    words: [u64; 16],
}

impl Words {
    /// No words.
    pub const NONE: Self = Self { count: 0, words: [0; 16] };

    /// The first `count` of `words`; the rest cannot be read, because the kernel does not vouch for it.
    #[must_use]
    pub const fn new(count: u32, words: [u64; 16]) -> Self {
        Self { count, words }
    }

    /// Words from a slice; what does not fit into 16 is dropped.
    #[must_use]
    pub fn from_slice(from: &[u64]) -> Self {
        let mut words = [0; 16];
        let mut count = 0;
        for (to, word) in words.iter_mut().zip(from) {
            *to = *word;
            count += 1;
        }
        Self { count, words }
    }

    /// The valid words, never more than 16.
    #[must_use]
    pub fn as_slice(&self) -> &[u64] {
        self.words.get(..self.count as usize).unwrap_or(&self.words)
    }

    /// The first word, if it is valid.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.as_slice().first().copied()
    }
}

impl PartialEq for Words {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.as_slice() == other.as_slice()
    }
}

impl Eq for Words {}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:x?}", self.count, self.as_slice())
    }
}

/// An access that KVM could not resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFault {
    /// Start of the range.
    pub gpa: Gpa,
    /// Length of the range in bytes.
    pub size: u64,
    /// The access was private.
    pub private: bool,
    /// Bits of `flags` without a meaning here.
    pub unknown_flags: u64,
    /// The page is poisoned (`EHWPOISON`): no conversion helps.
    pub poisoned: bool,
}

/// A request for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnpReqCerts {
    /// Where the guest wants the table.
    pub gpa: Gpa,
    /// 4 KiB pages of its buffer, as the guest says.
    pub pages: u64,
}

/// An exit without a meaning here, with all it brought.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Other {
    /// The number.
    pub reason: ExitReason,
    /// The union. Which bytes of it the kernel wrote is not known.
    pub bytes: [u8; UNION_BYTES],
}

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:02x?}", self.reason, self.bytes)
    }
}

impl Exit {
    /// The exit number that a kernel of this dialect writes this exit under, if it writes one.
    #[must_use]
    pub fn reason(&self, dialect: Dialect) -> Option<ExitReason> {
        Some(match self {
            Self::Again(_) => return None,
            Self::Io(_) => ExitReason::IO,
            Self::Mmio(_) => ExitReason::MMIO,
            Self::Hlt => ExitReason::HLT,
            Self::Hypercall(_) => ExitReason::HYPERCALL,
            Self::Shutdown => ExitReason::SHUTDOWN,
            Self::FailEntry(_) => ExitReason::FAIL_ENTRY,
            Self::InternalError(_) => ExitReason::INTERNAL_ERROR,
            Self::SystemEvent(_) => ExitReason::SYSTEM_EVENT,
            Self::Notify { .. } => ExitReason::NOTIFY,
            Self::MemoryFault(_) => ExitReason(dialect.memory_fault_number()),
            Self::SnpReqCerts(_) if dialect.certs_form() == CertsForm::Coco => COCO,
            Self::SnpReqCerts(_) => ExitReason::SNP_REQ_CERTS,
            Self::Vmgexit { .. } => VMGEXIT,
            Self::ApResetHold => ExitReason::AP_RESET_HOLD,
            Self::Tdx(_) => ExitReason::TDX,
            Self::Rdmsr(_) => ExitReason::X86_RDMSR,
            Self::Wrmsr(_) => ExitReason::X86_WRMSR,
            Self::Other(other) => other.reason,
        })
    }
}

#[cfg(test)]
mod tests;
