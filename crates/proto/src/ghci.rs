//! What a TD asks for and says: calls, quotes and fatal errors.

use crate::exit::Words;
use core::fmt;
use core::mem::size_of;
use exeunt_abi::Gpa;
use exeunt_abi::ghci::{QUOTE_VERSION, QuoteHeader, fatal_error, leaf, quote_status};
use zerocopy::FromBytes;

/// A `TDG.VP.VMCALL`, from the registers of the TD.
///
/// Source: Intel 348552 "Guest-Host-Communication Interface for Intel TDX", version 1.5, section 3; Linux v7.2
/// `arch/x86/kvm/vmx/tdx.c`, `handle_tdvmcall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TdVmCall {
    /// R10 is not 0: the call is the vendor's. KVM takes it for a hypercall with this number.
    Vendor {
        /// R10.
        nr: u64,
        /// R11 to R14.
        args: [u64; 4],
    },
    /// `CPUID`.
    Cpuid {
        /// The leaf.
        leaf: u64,
        /// The subleaf.
        subleaf: u64,
    },
    /// `HLT`.
    Hlt {
        /// Interrupts are blocked.
        blocked: bool,
    },
    /// Port I/O.
    Io {
        /// Bytes: 1, 2 or 4.
        size_bytes: u64,
        /// The TD writes.
        is_out: bool,
        /// The port.
        port: u64,
        /// What it writes.
        value: u64,
    },
    /// `RDMSR`.
    Rdmsr {
        /// The register.
        index: u64,
    },
    /// `WRMSR`.
    Wrmsr {
        /// The register.
        index: u64,
        /// What the TD writes.
        value: u64,
    },
    /// Memory-mapped I/O.
    Mmio {
        /// Bytes: 1, 2, 4 or 8.
        size_bytes: u64,
        /// The TD writes.
        is_write: bool,
        /// Where.
        gpa: Gpa,
        /// What it writes.
        value: u64,
    },
    /// `GetTdVmCallInfo`.
    GetTdVmCallInfo {
        /// What is asked for.
        leaf: u64,
    },
    /// `MapGPA`. The shared bit of the address chooses the state.
    MapGpa {
        /// The start, with the shared bit.
        gpa: Gpa,
        /// Length in bytes.
        size_bytes: u64,
    },
    /// `GetQuote`.
    GetQuote {
        /// The buffer, with the shared bit.
        gpa: Gpa,
        /// Its length in bytes.
        size_bytes: u64,
    },
    /// `ReportFatalError`.
    ReportFatalError {
        /// R12.
        error: u64,
        /// R13.
        gpa: Gpa,
    },
    /// `SetupEventNotifyInterrupt`.
    SetupEventNotifyInterrupt {
        /// The vector.
        vector: u64,
    },
    /// A leaf that is not known here. KVM answers `SUBFUNC_UNSUPPORTED`.
    Unknown {
        /// R11.
        leaf: u64,
        /// R12 to R15.
        args: [u64; 4],
    },
}

impl TdVmCall {
    /// Decodes R10 to R15. Every call has a decoding; whether its arguments make sense is not decided here.
    #[must_use]
    pub const fn decode([r10, r11, r12, r13, r14, r15]: [u64; 6]) -> Self {
        if r10 != 0 {
            return Self::Vendor { nr: r10, args: [r11, r12, r13, r14] };
        }
        match r11 {
            leaf::CPUID => Self::Cpuid { leaf: r12, subleaf: r13 },
            leaf::HLT => Self::Hlt { blocked: r12 != 0 },
            leaf::IO => Self::Io { size_bytes: r12, is_out: r13 != 0, port: r14, value: r15 },
            leaf::RDMSR => Self::Rdmsr { index: r12 },
            leaf::WRMSR => Self::Wrmsr { index: r12, value: r13 },
            leaf::MMIO => Self::Mmio { size_bytes: r12, is_write: r13 != 0, gpa: Gpa(r14), value: r15 },
            leaf::GET_TD_VM_CALL_INFO => Self::GetTdVmCallInfo { leaf: r12 },
            leaf::MAP_GPA => Self::MapGpa { gpa: Gpa(r12), size_bytes: r13 },
            leaf::GET_QUOTE => Self::GetQuote { gpa: Gpa(r12), size_bytes: r13 },
            leaf::REPORT_FATAL_ERROR => Self::ReportFatalError { error: r12, gpa: Gpa(r13) },
            leaf::SETUP_EVENT_NOTIFY_INTERRUPT => Self::SetupEventNotifyInterrupt { vector: r12 },
            leaf => Self::Unknown { leaf, args: [r12, r13, r14, r15] },
        }
    }
}

impl fmt::Display for TdVmCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vendor { nr, args } => write!(f, "hypercall {nr}, arguments {args:x?}"),
            Self::Cpuid { leaf, subleaf } => write!(f, "CPUID {leaf:#x}, sub-leaf {subleaf:#x}"),
            Self::Hlt { .. } => f.write_str("HLT"),
            Self::Io { size_bytes, is_out: true, port, value } => {
                write!(f, "OUT {value:#x} to port {port:#x}, {size_bytes} bytes")
            }
            Self::Io { size_bytes, port, .. } => write!(f, "IN from port {port:#x}, {size_bytes} bytes"),
            Self::Rdmsr { index } => write!(f, "RDMSR {index:#x}"),
            Self::Wrmsr { index, value } => write!(f, "WRMSR {index:#x} := {value:#x}"),
            Self::Mmio { size_bytes, is_write: true, gpa, value } => {
                write!(f, "MMIO write of {value:#x} at {gpa}, {size_bytes} bytes")
            }
            Self::Mmio { size_bytes, gpa, .. } => write!(f, "MMIO read at {gpa}, {size_bytes} bytes"),
            Self::GetTdVmCallInfo { leaf } => write!(f, "GetTdVmCallInfo of leaf {leaf}"),
            Self::MapGpa { gpa, size_bytes } => write!(f, "MapGPA of {size_bytes:#x} bytes at {gpa}"),
            Self::GetQuote { gpa, size_bytes } => write!(f, "GetQuote into {size_bytes} bytes at {gpa}"),
            Self::ReportFatalError { error, .. } => write!(f, "ReportFatalError {error:#x}"),
            Self::SetupEventNotifyInterrupt { vector } => {
                write!(f, "SetupEventNotifyInterrupt with vector {vector}")
            }
            Self::Unknown { leaf, args } => write!(f, "leaf {leaf:#x}, arguments {args:x?}"),
        }
    }
}

/// The buffer of a `GetQuote`, copied out of the TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote<'a> {
    /// How far it is.
    pub status: QuoteStatus,
    /// What the TD handed over: its report.
    pub request: &'a [u8],
    /// The quote, if it is there.
    pub quote: &'a [u8],
}

/// How far a quote is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteStatus {
    /// The quote is there. The TD writes the same number when it asks.
    Success,
    /// The request is being worked on.
    InFlight,
    /// There will be no quote.
    Error,
    /// The quoting service cannot be reached.
    ServiceUnavailable,
    /// A number without a meaning here.
    Unknown(u64),
}

/// Why a buffer is refused. The TD gets `INVALID_OPERAND`, or an error in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuoteError {
    /// There is no room for the header.
    Short {
        /// Bytes that there are.
        bytes: usize,
    },
    /// `version` is not 1.
    Version {
        /// The version.
        version: u64,
    },
    /// A length goes behind the end of the buffer.
    Length {
        /// The larger of the two lengths, in bytes.
        length: u32,
        /// Bytes behind the header.
        room: usize,
    },
    /// The TD handed nothing over that a quote could be made of.
    Empty,
}

impl fmt::Display for QuoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { bytes } => write!(f, "{bytes} bytes hold no header of a quote"),
            Self::Version { version } => write!(f, "the buffer of the quote has version {version}"),
            Self::Length { length, room } => write!(f, "{length} bytes lie in a buffer for {room}"),
            Self::Empty => f.write_str("there is no report to make a quote of"),
        }
    }
}

impl core::error::Error for QuoteError {}

impl QuoteStatus {
    /// The status with this number.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        match number {
            quote_status::SUCCESS => Self::Success,
            quote_status::IN_FLIGHT => Self::InFlight,
            quote_status::ERROR => Self::Error,
            quote_status::SERVICE_UNAVAILABLE => Self::ServiceUnavailable,
            number => Self::Unknown(number),
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Success => quote_status::SUCCESS,
            Self::InFlight => quote_status::IN_FLIGHT,
            Self::Error => quote_status::ERROR,
            Self::ServiceUnavailable => quote_status::SERVICE_UNAVAILABLE,
            Self::Unknown(number) => number,
        }
    }
}

impl<'a> Quote<'a> {
    /// Parses a copy of the whole buffer.
    ///
    /// Source: Intel 348552 version 1.5, section 3.3.
    ///
    /// # Errors
    ///
    /// The first check that fails, in the order of the variants.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, QuoteError> {
        let short = QuoteError::Short { bytes: bytes.len() };
        let (header, data) = QuoteHeader::read_from_prefix(bytes).map_err(|_| short)?;
        if header.version != QUOTE_VERSION {
            return Err(QuoteError::Version { version: header.version });
        }
        let longer = header.in_len.max(header.out_len);
        let outside = QuoteError::Length { length: longer, room: data.len() };
        Ok(Self {
            status: QuoteStatus::from_number(header.status),
            request: data.get(..header.in_len as usize).ok_or(outside)?,
            quote: data.get(..header.out_len as usize).ok_or(outside)?,
        })
    }
}

/// Bytes of the report that a TD hands over, out of a copy of the head of its buffer. The buffer has `size_bytes`, the
/// head included. `out_len` does not count: it is the host's to write.
///
/// Source: Intel 348552 version 1.5, section 3.3.
///
/// # Errors
///
/// The first check that fails, in the order of the variants.
pub fn quote_request_bytes(head: &[u8], size_bytes: u64) -> Result<u32, QuoteError> {
    let size_bytes = usize::try_from(size_bytes).unwrap_or(usize::MAX);
    let short = QuoteError::Short { bytes: head.len().min(size_bytes) };
    let (header, _) = QuoteHeader::read_from_prefix(head).map_err(|_| short)?;
    let room = size_bytes.checked_sub(size_of::<QuoteHeader>()).ok_or(short)?;
    match header.in_len {
        _ if header.version != QUOTE_VERSION => Err(QuoteError::Version { version: header.version }),
        length if length as usize > room => Err(QuoteError::Length { length, room }),
        0 => Err(QuoteError::Empty),
        length => Ok(length),
    }
}

/// What a TD says when it ends itself: the 16 words of a `KVM_SYSTEM_EVENT_TDX_FATAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FatalError {
    /// R12 without the bit that says whether there is an address.
    pub error: u64,
    /// Where the TD put more of the story, in shared memory.
    pub gpa: Option<Gpa>,
    /// Text, as the TD chose it: up to 64 bytes, filled up with zeroes.
    pub message: [u8; 64],
}

impl FatalError {
    /// Decodes the words of the event, or `None` if there are not all 16.
    #[must_use]
    pub fn from_words(words: &Words) -> Option<Self> {
        let words: [u64; 16] = words.as_slice().try_into().ok()?;
        let word = |index: usize| words.get(index).copied().unwrap_or(0);
        let error = word(fatal_error::ERROR);
        let has_gpa = error & fatal_error::GPA_VALID != 0;
        let mut message = [0; 64];
        for (to, index) in message.chunks_exact_mut(8).zip(fatal_error::MESSAGE) {
            to.copy_from_slice(&word(index).to_le_bytes());
        }
        Some(Self {
            error: error & !fatal_error::GPA_VALID,
            gpa: has_gpa.then(|| Gpa(word(fatal_error::GPA))),
            message,
        })
    }

    /// The text up to its first zero. The TD chose these bytes: [`fmt::Display`] escapes them.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.message.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

impl fmt::Display for FatalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fatal error {:#x}: \"{}\"", self.error, self.text().escape_ascii())?;
        match self.gpa {
            Some(gpa) => write!(f, ", more at {gpa}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
