//! Guest physical addresses and frame numbers, kept apart by type.

use core::fmt;

/// Bytes in the small page that every count of the boundary is measured in.
pub const PAGE_SIZE: u64 = 4096;

/// Small pages in a 2 MiB page.
pub const PAGES_PER_2M: u64 = 512;

/// A guest physical address in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpa(pub u64);

/// A guest frame number: a guest physical address divided by 4096.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gfn(pub u64);

impl Gpa {
    /// The frame that holds this address.
    #[must_use]
    pub const fn gfn(self) -> Gfn {
        Gfn(self.0 >> 12)
    }

    /// The distance in bytes from the start of the frame.
    #[must_use]
    pub const fn offset_in_page(self) -> u64 {
        self.0 & (PAGE_SIZE - 1)
    }

    /// Whether the address is the start of a frame.
    #[must_use]
    pub const fn is_page_aligned(self) -> bool {
        self.offset_in_page() == 0
    }
}

impl Gfn {
    /// The address of the first byte of the frame. Bits above 2^52 frames are lost, as in the kernel's shift.
    #[must_use]
    pub const fn gpa(self) -> Gpa {
        Gpa(self.0 << 12)
    }
}

impl fmt::Display for Gpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Gfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_and_its_first_byte_are_inverse() {
        for gfn in [0, 1, 0x1234, (1 << 52) - 1] {
            assert_eq!(Gfn(gfn).gpa().gfn(), Gfn(gfn));
            assert!(Gfn(gfn).gpa().is_page_aligned());
        }
        assert_eq!(Gpa(0x1fff).offset_in_page(), 0xfff);
        assert!(!Gpa(0x1fff).is_page_aligned());
    }
}
