//! Fields of the GHCB page. The page lies in guest memory that the guest can write at any time, so it is read
//! field by field and never borrowed.
//!
//! Sources: Linux v7.2 `arch/x86/include/asm/svm.h`, `struct ghcb`; AMD 56421 revision 2.04, table 3.

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

        /// Every field that has a bit in the bitmap and a name, in the order of the page.
        pub const FIELDS: &[Field] = &[$($name),*];

        impl Field {
            /// The name in capitals; `None` for an offset that is no field.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.offset {
                    $($offset => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// The field with this bit of the bitmap.
            #[must_use]
            pub const fn from_bit(bit: u16) -> Option<Self> {
                match bit {
                    $($bit => Some($name),)*
                    _ => None,
                }
            }

            /// The field with this name in capitals.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
    CPL = 0x0cb, 25; XSS = 0x140, 40; DR7 = 0x160, 44; RIP = 0x178, 47; RSP = 0x1d8, 59; RAX = 0x1f8, 63;
    RCX = 0x308, 97; RDX = 0x310, 98; RBX = 0x318, 99; RBP = 0x328, 101; RSI = 0x330, 102; RDI = 0x338, 103;
    R8 = 0x340, 104; R9 = 0x348, 105; R10 = 0x350, 106; R11 = 0x358, 107; R12 = 0x360, 108; R13 = 0x368, 109;
    R14 = 0x370, 110; R15 = 0x378, 111; SW_EXIT_CODE = 0x390, 114; SW_EXIT_INFO_1 = 0x398, 115;
    SW_EXIT_INFO_2 = 0x3a0, 116; SW_SCRATCH = 0x3a8, 117; XCR0 = 0x3e8, 125;
}

/// Bytes of the page.
pub const GHCB_BYTES: usize = 4096;
/// Bytes of the save area, with the bitmap and `x87_state_gpa`.
pub const SAVE_AREA_BYTES: u64 = 0x408;
/// `valid_bitmap`, 16 bytes: bit n lies in byte n/8, bit n%8.
pub const VALID_BITMAP: u64 = 0x3f0;
/// `x87_state_gpa`, a `u64` without a bit in the bitmap.
pub const X87_STATE_GPA: u64 = 0x400;
/// Start of `shared_buffer`.
pub const SHARED_BUFFER: u64 = 0x800;
/// End of `shared_buffer`; what follows is reserved.
pub const SHARED_BUFFER_END: u64 = 0xff0;
/// `protocol_version`, a `u16` that the guest negotiated. KVM does not look at it.
pub const PROTOCOL_VERSION: u64 = 0xffa;
/// `ghcb_usage`, a `u32` that must be 0.
pub const GHCB_USAGE: u64 = 0xffc;

/// `SW_EXITINFO1`: what the hypervisor made of the request.
pub mod exit_info_1 {
    crate::named::named! {
        u64;
        NO_ACTION = 0, "The request was done, or its own code says otherwise.";
        ISSUE_EXCEPTION = 1, "The guest should raise the exception of `SW_EXITINFO2`.";
        MALFORMED_INPUT = 2, "The request was malformed; `SW_EXITINFO2` says how.";
    }
}

/// `SW_EXITINFO2` of a malformed request.
pub mod malformed {
    crate::named::named! {
        u64;
        NOT_REGISTERED = 1, "The GHCB was not registered.";
        INVALID_USAGE = 2, "`ghcb_usage` is not 0.";
        INVALID_SCRATCH_AREA = 3, "The scratch area is not usable.";
        MISSING_INPUT = 4, "A field that the exit needs is not valid.";
        INVALID_INPUT = 5, "A field has a value that the exit does not take.";
        INVALID_EVENT = 6, "The exit code is not supported.";
    }
}

/// `SW_EXITINFO2` with [`exit_info_1::ISSUE_EXCEPTION`]: the format of `EVENTINJ`.
///
/// Source: AMD 24593 "Architecture Programmer's Manual, volume 2", section 15.20.
pub mod event_injection {
    /// Bits 7:0: the vector.
    pub const VECTOR_MASK: u64 = 0xff;
    /// Bits 10:8: the type.
    pub const TYPE_MASK: u64 = 0x700;
    /// The type of an exception. Linux guests take no other.
    pub const TYPE_EXCEPTION: u64 = 3 << 8;
    /// Bit 11: bits 63:32 are an error code.
    pub const ERROR_CODE_VALID: u64 = 1 << 11;
    /// Bit 31: there is an event.
    pub const VALID: u64 = 1 << 31;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_and_a_name_lead_back_to_their_field() {
        for bit in 0..1024 {
            if let Some(field) = Field::from_bit(bit) {
                assert_eq!((field.bit(), field.name().and_then(Field::from_name)), (bit, Some(field)));
            }
        }
        let with_bit = (0..1024).filter(|bit| Field::from_bit(*bit).is_some()).count();
        let with_offset = (0..4096).filter(|offset| Field { offset: *offset }.name().is_some()).count();
        assert_eq!((with_bit, with_offset), (FIELDS.len(), FIELDS.len()));
        assert_eq!(Field::from_name("RFLAGS"), None);
    }

    #[test]
    fn the_fields_are_in_the_order_of_the_page_and_before_the_bitmap() {
        assert!(FIELDS.windows(2).all(|pair| pair[0].offset < pair[1].offset));
        assert!(FIELDS.iter().all(|field| u64::from(field.offset) < VALID_BITMAP));
    }
}
