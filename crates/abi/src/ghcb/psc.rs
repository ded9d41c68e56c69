//! The page-state change descriptor: a header and up to 253 entries in the scratch area.
//!
//! Source: Linux v7.2 `arch/x86/include/asm/sev-common.h`, `struct psc_hdr` and `psc_entry`.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the header: `cur_entry` u16, `end_entry` u16 (the last index, inclusive), `reserved` u32.
pub const HEADER_BYTES: u64 = 8;
/// Bytes of an entry.
pub const ENTRY_BYTES: u64 = 8;
/// Entries that fit into the shared buffer.
pub const MAX_ENTRIES: u64 = 253;

/// `operation` of an entry.
pub mod operation {
    crate::named::named! {
        u8;
        PRIVATE = 1, "The range becomes private.";
        SHARED = 2, "The range becomes shared.";
        PSMASH = 3, "A hint: split the 2 MiB page. KVM takes the entry for done.";
        UNSMASH = 4, "A hint: join the 4 KiB pages. KVM takes the entry for done.";
    }
}

/// `SW_EXITINFO2` after a page-state change.
pub mod result {
    crate::named::named! {
        u64;
        SUCCESS = 0, "All entries are done, or the guest is to go on from `cur_entry`.";
        INVALID_HDR = 1 << 32 | 1, "The header does not fit.";
        INVALID_ENTRY = 1 << 32 | 2, "An entry is malformed.";
        GENERIC = 0x100 << 32, "Anything else, among it an answer of `EINVAL` or `EAGAIN` from userspace.";
    }
}

/// The head of the descriptor.
///
/// Layout: Linux v7.2 `arch/x86/include/asm/sev-common.h`, `struct psc_hdr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// The first entry that is not done. The hypervisor advances it.
    pub cur_entry: u16,
    /// The last entry, inclusive.
    pub end_entry: u16,
    /// Reserved; a Linux guest takes it for an error if it is not 0 afterwards.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Header>() as u64 == HEADER_BYTES && size_of::<Header>() == 8);
const _: () = assert!(offset_of!(Header, end_entry) == 2 && offset_of!(Header, reserved) == 4);

/// One entry: `cur_page` 11:0, `gfn` 51:12, `operation` 55:52, 2M flag 56, reserved 63:57.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry(pub u64);

impl Entry {
    /// An entry that asks for `operation` on one page of 4 KiB or 2 MiB. Bits that do not fit are dropped.
    #[must_use]
    pub const fn new(gfn: u64, operation: u8, huge: bool) -> Self {
        Self((gfn & 0xff_ffff_ffff) << 12 | ((operation & 0xf) as u64) << 52 | (huge as u64) << 56)
    }

    /// Pages of the entry that are done already.
    #[must_use]
    pub const fn cur_page(self) -> u64 {
        self.0 & 0xfff
    }

    /// First frame, 40 bits.
    #[must_use]
    pub const fn gfn(self) -> u64 {
        self.0 >> 12 & 0xff_ffff_ffff
    }

    /// What is asked for, 4 bits.
    #[must_use]
    pub const fn operation(self) -> u8 {
        (self.0 >> 52 & 0xf) as u8
    }

    /// Bits 63:57, which mean nothing.
    #[must_use]
    pub const fn reserved(self) -> u8 {
        (self.0 >> 57) as u8
    }

    /// Whether the entry covers 2 MiB.
    #[must_use]
    pub const fn is_2m(self) -> bool {
        self.0 >> 56 & 1 == 1
    }

    /// 4 KiB pages that the entry covers.
    #[must_use]
    pub const fn pages(self) -> u64 {
        if self.is_2m() { 512 } else { 1 }
    }

    /// The entry with another `cur_page`.
    #[must_use]
    pub const fn with_cur_page(self, cur_page: u64) -> Self {
        Self(self.0 & !0xfff | cur_page & 0xfff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_of_an_entry_is_where_the_layout_says() {
        let entry = Entry(0xff00_0000_0000_0000 | 0x1 << 52 | 0x12_3456_789a << 12 | 0x1ff);
        assert_eq!(entry.cur_page(), 0x1ff);
        assert_eq!(entry.gfn(), 0x12_3456_789a);
        assert_eq!(entry.operation(), 1);
        assert!(entry.is_2m());
        assert_eq!(entry.with_cur_page(512).cur_page(), 512);
        assert_eq!(entry.with_cur_page(512).gfn(), entry.gfn());
        assert_eq!(Entry::new(0x200, operation::SHARED, true).0, 0x120_0000_0020_0000);
    }
}
