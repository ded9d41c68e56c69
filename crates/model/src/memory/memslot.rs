//! Memory slots.

use exeunt_abi::{Gfn, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;

/// A handle of a `guest_memfd` of one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestMemfd(pub(crate) usize);

/// A memory slot: shared memory of the VMM, and beside it perhaps a part of a `guest_memfd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The slot's number.
    pub slot: u32,
    /// The first frame and the length.
    pub range: PageRange,
    /// The private half: the file and the offset in it, in bytes.
    pub guest_memfd: Option<(GuestMemfd, u64)>,
}

impl Slot {
    /// A slot of `bytes` from `gpa` on, without a private half.
    #[must_use]
    pub const fn shared(slot: u32, gpa: Gpa, bytes: u64) -> Option<Self> {
        if !gpa.is_page_aligned() || bytes & (PAGE_SIZE - 1) != 0 {
            return None;
        }
        match PageRange::new(gpa.gfn(), bytes / PAGE_SIZE) {
            Some(range) => Some(Self { slot, range, guest_memfd: None }),
            None => None,
        }
    }

    /// The slot with a private half.
    #[must_use]
    pub const fn with_guest_memfd(mut self, file: GuestMemfd, offset_bytes: u64) -> Self {
        self.guest_memfd = Some((file, offset_bytes));
        self
    }

    /// Whether the slot holds the frame.
    #[must_use]
    pub fn contains(&self, gfn: Gfn) -> bool {
        self.range.gfn() <= gfn && gfn < self.range.end()
    }

    /// The file and page that back the private half of a frame of this slot.
    pub(crate) fn private_page(&self, gfn: Gfn) -> Option<(GuestMemfd, u64)> {
        let (file, offset_bytes) = self.guest_memfd?;
        let distance = gfn.0.checked_sub(self.range.gfn().0)?;
        Some((file, (offset_bytes / PAGE_SIZE).checked_add(distance)?))
    }
}
