//! What the hypervisor made of a page-based request: `SW_EXITINFO1` and `SW_EXITINFO2` afterwards.

use core::fmt;
use exeunt_abi::ghcb::page::{event_injection, exit_info_1, malformed};
use exeunt_abi::ghcb::{exit_code, guest_message, psc};
use exeunt_abi::kvm::sev::firmware;

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Done, with nothing more to say.
    Success,
    /// Done; the number is the answer, such as the features or the address of the jump table.
    Value(u64),
    /// The guest is to raise an exception.
    Exception(Exception),
    /// The request was malformed.
    Malformed(Malformed),
    /// The result of a page-state change.
    Psc(PscResult),
    /// The result of a guest request, with certificates or without.
    GuestRequest(GuestRequestResult),
    /// `SW_EXITINFO1` has a value that means nothing.
    Unknown {
        /// `SW_EXITINFO1`.
        info_1: u64,
        /// `SW_EXITINFO2`.
        info_2: u64,
    },
}

impl Outcome {
    /// Decodes the two words, which mean something else for each exit code. Of `SW_EXITINFO1` the low half counts, as
    /// Linux guests read it.
    ///
    /// Source: AMD 56421 revision 2.04, section 4; Linux v7.2 `arch/x86/coco/sev/vc-shared.c`,
    /// `verify_exception_info`.
    #[must_use]
    pub const fn decode(code: u64, info_1: u64, info_2: u64) -> Self {
        match info_1 & 0xffff_ffff {
            exit_info_1::NO_ACTION => match code {
                exit_code::PSC => Self::Psc(PscResult::from_number(info_2)),
                exit_code::GUEST_REQUEST | exit_code::EXT_GUEST_REQUEST => {
                    Self::GuestRequest(GuestRequestResult::from_number(info_2))
                }
                exit_code::HV_FEATURES | exit_code::AP_JUMP_TABLE => Self::Value(info_2),
                _ if info_2 != 0 => Self::Value(info_2),
                _ => Self::Success,
            },
            exit_info_1::ISSUE_EXCEPTION => Self::Exception(Exception(info_2)),
            exit_info_1::MALFORMED_INPUT => Self::Malformed(Malformed(info_2)),
            _ => Self::Unknown { info_1, info_2 },
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success"),
            Self::Value(value) => write!(f, "success, {value:#x}"),
            Self::Exception(exception) => fmt::Display::fmt(exception, f),
            Self::Malformed(code) => fmt::Display::fmt(code, f),
            Self::Psc(result) => fmt::Display::fmt(result, f),
            Self::GuestRequest(result) => fmt::Display::fmt(result, f),
            Self::Unknown { info_1, info_2 } => {
                write!(f, "SW_EXITINFO1 {info_1:#x} has no meaning (SW_EXITINFO2 {info_2:#x})")
            }
        }
    }
}

/// An event for the guest, in the format of `EVENTINJ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception(pub u64);

impl Exception {
    /// The vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        (self.0 & event_injection::VECTOR_MASK) as u8
    }

    /// The error code, if there is one.
    #[must_use]
    pub const fn error_code(self) -> Option<u32> {
        if self.0 & event_injection::ERROR_CODE_VALID == 0 { None } else { Some((self.0 >> 32) as u32) }
    }

    /// Whether a Linux guest raises it: a valid exception with the vector of `#UD` or `#GP`. Anything else ends the
    /// guest.
    #[must_use]
    pub const fn is_taken_by_linux(self) -> bool {
        let is_exception = self.0 & event_injection::TYPE_MASK == event_injection::TYPE_EXCEPTION;
        self.0 & event_injection::VALID != 0 && is_exception && matches!(self.vector(), 6 | 13)
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vector() {
            6 => f.write_str("raise #UD")?,
            13 => f.write_str("raise #GP")?,
            vector => write!(f, "raise vector {vector}")?,
        }
        if let Some(error_code) = self.error_code() {
            write!(f, " with error code {error_code:#x}")?;
        }
        if self.is_taken_by_linux() { Ok(()) } else { write!(f, ", which Linux refuses ({:#x})", self.0) }
    }
}

/// Why a request was malformed: a number of [`malformed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub u64);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.0 {
            malformed::NOT_REGISTERED => "the GHCB is not the registered one (NOT_REGISTERED)",
            malformed::INVALID_USAGE => "ghcb_usage is not 0 (INVALID_USAGE)",
            malformed::INVALID_SCRATCH_AREA => "the scratch area is not usable (INVALID_SCRATCH_AREA)",
            malformed::MISSING_INPUT => "a field that the exit needs is not valid (MISSING_INPUT)",
            malformed::INVALID_INPUT => "a field has a value that the exit does not take (INVALID_INPUT)",
            malformed::INVALID_EVENT => "the exit code is not supported (INVALID_EVENT)",
            other => return write!(f, "malformed: unknown code {other:#x}"),
        };
        write!(f, "malformed: {meaning}")
    }
}

/// `SW_EXITINFO2` of a page-state change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PscResult {
    /// All entries are done, or the guest is to go on from `cur_entry`.
    Success,
    /// The header does not fit.
    InvalidHeader,
    /// An entry is malformed. The entries before it are done.
    InvalidEntry,
    /// Anything else; a refusal by userspace ends here.
    Generic,
    /// A number without a meaning here.
    Unknown(u64),
}

impl PscResult {
    /// The result with this number.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        match number {
            psc::result::SUCCESS => Self::Success,
            psc::result::INVALID_HDR => Self::InvalidHeader,
            psc::result::INVALID_ENTRY => Self::InvalidEntry,
            psc::result::GENERIC => Self::Generic,
            number => Self::Unknown(number),
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Success => psc::result::SUCCESS,
            Self::InvalidHeader => psc::result::INVALID_HDR,
            Self::InvalidEntry => psc::result::INVALID_ENTRY,
            Self::Generic => psc::result::GENERIC,
            Self::Unknown(number) => number,
        }
    }
}

impl fmt::Display for PscResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("page-state change: done, or to be continued"),
            Self::InvalidHeader => f.write_str("page-state change: the header is invalid"),
            Self::InvalidEntry => f.write_str("page-state change: an entry is invalid"),
            Self::Generic => f.write_str("page-state change: failed"),
            Self::Unknown(number) => write!(f, "page-state change: unknown result {number:#x}"),
        }
    }
}

/// `SW_EXITINFO2` of a guest request: two halves, from two parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRequestResult {
    /// Bits 63:32: the hypervisor, as in [`guest_message::vmm_error`] without its shift.
    pub vmm: u32,
    /// Bits 31:0: the firmware, as in [`firmware`].
    pub firmware: u32,
}

impl GuestRequestResult {
    /// Takes the halves apart.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self { vmm: (number >> 32) as u32, firmware: (number & 0xffff_ffff) as u32 }
    }

    /// Puts the halves together.
    #[must_use]
    pub const fn number(self) -> u64 {
        (self.vmm as u64) << 32 | self.firmware as u64
    }
}

impl fmt::Display for GuestRequestResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vmm, firmware: code } = *self;
        if vmm == 0 && code == 0 {
            return f.write_str("guest request: done");
        }
        f.write_str("guest request:")?;
        if vmm != 0 {
            match guest_message::vmm_error::name(u64::from(vmm) << 32) {
                Some(name) => write!(f, " hypervisor {name} ({vmm:#x})")?,
                None => write!(f, " hypervisor error {vmm:#x}")?,
            }
        }
        match firmware::name(code) {
            _ if code == 0 => Ok(()),
            Some(name) => write!(f, " firmware {name} ({code:#x})"),
            None => write!(f, " firmware error {code:#x}"),
        }
    }
}

#[cfg(test)]
mod tests;
