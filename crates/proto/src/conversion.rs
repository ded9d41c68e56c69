//! Page-state conversions: what `KVM_HC_MAP_GPA_RANGE` asks for.

use core::fmt;
use exeunt_abi::kvm::run::map_gpa_range as bits;
use exeunt_abi::{Gfn, Gpa, PAGE_SIZE};

/// Whether a page belongs to the guest alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageState {
    /// Host and guest see the page.
    Shared,
    /// Only the guest sees the page.
    Private,
}

impl fmt::Display for PageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared",
            Self::Private => "private",
        })
    }
}

/// A run of 4 KiB pages. It is never empty and its end in bytes does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageRange {
    gfn: Gfn,
    pages: u64,
}

impl PageRange {
    /// The run of `pages` pages from `gfn` on, or `None` if it is empty or ends above 2^64 bytes.
    #[must_use]
    pub const fn new(gfn: Gfn, pages: u64) -> Option<Self> {
        match gfn.0.checked_add(pages) {
            Some(end) if pages > 0 && end <= u64::MAX / PAGE_SIZE => Some(Self { gfn, pages }),
            _ => None,
        }
    }

    /// The first frame.
    #[must_use]
    pub const fn gfn(self) -> Gfn {
        self.gfn
    }

    /// How many pages.
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.pages
    }

    /// The frame behind the last one.
    #[must_use]
    pub const fn end(self) -> Gfn {
        Gfn(self.gfn.0.saturating_add(self.pages))
    }

    /// The first byte.
    #[must_use]
    pub const fn gpa(self) -> Gpa {
        self.gfn.gpa()
    }

    /// The length in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.pages.saturating_mul(PAGE_SIZE)
    }

    /// What both runs cover, if anything.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        let gfn = self.gfn.max(other.gfn);
        let pages = self.end().min(other.end()).0.checked_sub(gfn.0)?;
        Self::new(gfn, pages)
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.gpa().0.saturating_add(self.bytes().saturating_sub(1));
        write!(f, "[{:#x}-{last:#x}]", self.gpa().0)
    }
}

/// A request to make a run of pages shared or private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// Which pages.
    pub range: PageRange,
    /// What they become.
    pub to: PageState,
}

/// Why a conversion is refused. The guest is told so; the VM goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConversionError {
    /// The start is not a multiple of 4096.
    UnalignedGpa {
        /// The start.
        gpa: Gpa,
    },
    /// The range is empty, or ends above 2^64 bytes.
    BadRange {
        /// The start.
        gpa: Gpa,
        /// 4 KiB pages.
        pages: u64,
    },
    /// A bit of the attributes is set that has no meaning.
    ReservedBits {
        /// Only the offending bits.
        bits: u64,
    },
}

impl fmt::Display for ConversionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnalignedGpa { gpa } => write!(f, "the start {gpa} is not page aligned"),
            Self::BadRange { gpa, pages } => write!(f, "{pages} pages from {gpa} on are no range"),
            Self::ReservedBits { bits } => write!(f, "reserved attribute bits {bits:#x} are set"),
        }
    }
}

impl core::error::Error for ConversionError {}

/// Decodes the arguments of `KVM_HC_MAP_GPA_RANGE`.
///
/// `args` is \[GPA in bytes, count of 4 KiB pages, attributes\]. The page size in the attributes is a hint and is
/// dropped: pages are counted in 4 KiB whatever the hint says, and a partly done 2 MiB entry of an SNP guest comes
/// with the hint and an address that is not 2 MiB aligned.
///
/// Source: Linux v7.2 `Documentation/virt/kvm/x86/hypercalls.rst`, section 8.
///
/// # Errors
///
/// The first check that fails, in the order of the variants. Nothing has been changed.
pub fn map_gpa_range(args: [u64; 3]) -> Result<Conversion, ConversionError> {
    let [gpa, pages, attributes] = args;
    let gpa = Gpa(gpa);
    if !gpa.is_page_aligned() {
        return Err(ConversionError::UnalignedGpa { gpa });
    }
    let range = PageRange::new(gpa.gfn(), pages).ok_or(ConversionError::BadRange { gpa, pages })?;
    let reserved = attributes & !(bits::PAGE_SIZE_MASK | bits::ENCRYPTED);
    if reserved != 0 {
        return Err(ConversionError::ReservedBits { bits: reserved });
    }
    let to = if attributes & bits::ENCRYPTED == 0 { PageState::Shared } else { PageState::Private };
    Ok(Conversion { range, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_gpa_range_refuses_each_reserved_attribute_bit() {
        for bit in 5..64 {
            let got = map_gpa_range([0x1000, 1, 1 << bit]);
            assert_eq!(got, Err(ConversionError::ReservedBits { bits: 1 << bit }), "bit {bit}");
        }
    }

    #[test]
    fn map_gpa_range_takes_bit_4_for_private_whatever_the_size_hint_says() {
        for attributes in 0..32 {
            let to = if attributes & 0x10 == 0 { PageState::Shared } else { PageState::Private };
            let conversion = map_gpa_range([0x3000, 5, attributes]).unwrap();
            assert_eq!(conversion.to, to, "{attributes:#x}");
            assert_eq!((conversion.range.gfn(), conversion.range.pages()), (Gfn(3), 5));
        }
    }

    #[test]
    fn map_gpa_range_refuses_every_unaligned_start() {
        for offset in 1..4096 {
            let gpa = Gpa(0x1000 + offset);
            assert_eq!(map_gpa_range([gpa.0, 0, u64::MAX]), Err(ConversionError::UnalignedGpa { gpa }));
        }
    }

    #[test]
    fn map_gpa_range_refuses_an_empty_range_and_one_that_wraps() {
        let top = 1 << 52;
        for (gfn, pages) in
            [(1, 0), (1, u64::MAX), (top - 1, 1), (top - 1, 2), (0, top), (5, u64::MAX / 4096)]
        {
            let gpa = Gpa(gfn << 12);
            assert_eq!(map_gpa_range([gpa.0, pages, 0]), Err(ConversionError::BadRange { gpa, pages }));
        }
        assert!(map_gpa_range([(top - 2) << 12, 1, 0]).is_ok());
        assert!(map_gpa_range([0, top - 1, 0]).is_ok());
    }

    #[test]
    fn the_intersection_of_small_ranges_is_the_set_intersection() {
        let ranges = (0..6).flat_map(|gfn| (1..6).map(move |pages| PageRange::new(Gfn(gfn), pages).unwrap()));
        for a in ranges.clone() {
            for b in ranges.clone() {
                let inside = |r: PageRange, gfn: u64| r.gfn().0 <= gfn && gfn < r.end().0;
                for gfn in 0..12 {
                    let both = inside(a, gfn) && inside(b, gfn);
                    assert_eq!(a.intersect(b).is_some_and(|c| inside(c, gfn)), both, "{a} {b} {gfn}");
                }
            }
        }
    }
}
