//! Fields of the GHCB page. The page lies in guest memory that the guest can write at any time, so it is read
//! field by field and never borrowed.

use crate::addr::Gpa;

/// One quadword of the save area with its bit in the valid bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the start of the page.
    pub offset: u16,
}

impl Field {
    /// The bit of `valid_bitmap`, which counts quadwords of the save area.
    #[must_use]
    pub const fn bit(self) -> u16 {
        self.offset >> 3
    }

    /// The address of the field in the GHCB page at `ghcb`.
    #[must_use]
    pub const fn at(self, ghcb: Gpa) -> Gpa {
        Gpa(ghcb.0.wrapping_add(self.offset as u64))
    }

    /// The field as a bit of the bitmap read as one little-endian number.
    #[must_use]
    pub const fn mask(self) -> u128 {
        1 << self.bit()
    }
}

macro_rules! fields {
    ($($name:ident = $offset:literal, $bit:literal;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` at ", stringify!($offset), ".")]
            pub const $name: Field = Field { offset: $offset };
            const _: () = assert!($name.bit() == $bit);
        )*
    };
}

fields! {
    CPL = 0x0cb, 25; XSS = 0x140, 40; RAX = 0x1f8, 63; RCX = 0x308, 97; RDX = 0x310, 98; RBX = 0x318, 99;
    RSI = 0x330, 102; SW_EXIT_CODE = 0x390, 114; SW_EXIT_INFO_1 = 0x398, 115; SW_EXIT_INFO_2 = 0x3a0, 116;
    SW_SCRATCH = 0x3a8, 117; XCR0 = 0x3e8, 125;
}

/// `valid_bitmap`, 16 bytes: bit n lies in byte n/8, bit n%8.
pub const VALID_BITMAP: u64 = 0x3f0;
/// Start of `shared_buffer`.
pub const SHARED_BUFFER: u64 = 0x800;
/// End of `shared_buffer`; what follows is reserved.
pub const SHARED_BUFFER_END: u64 = 0xff0;
/// `ghcb_usage`, a `u32` that must be 0.
pub const GHCB_USAGE: u64 = 0xffc;

/// `SW_EXITINFO1`: what the hypervisor made of the request.
pub mod exit_info_1 {
    /// The request was done, or its own code says otherwise.
    pub const NO_ACTION: u64 = 0;
    /// The guest should raise the exception of `SW_EXITINFO2`.
    pub const ISSUE_EXCEPTION: u64 = 1;
    /// The request was malformed; `SW_EXITINFO2` says how.
    pub const MALFORMED_INPUT: u64 = 2;
}

/// `SW_EXITINFO2` of a malformed request.
pub mod malformed {
    /// The GHCB was not registered.
    pub const NOT_REGISTERED: u64 = 1;
    /// `ghcb_usage` is not 0.
    pub const INVALID_USAGE: u64 = 2;
    /// The scratch area is not usable.
    pub const INVALID_SCRATCH_AREA: u64 = 3;
    /// A field that the exit needs is not valid.
    pub const MISSING_INPUT: u64 = 4;
    /// A field has a value that the exit does not take.
    pub const INVALID_INPUT: u64 = 5;
    /// The exit code is not supported.
    pub const INVALID_EVENT: u64 = 6;
}
