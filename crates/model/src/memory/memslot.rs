//! Memory slots.

use exeunt_abi::{Gfn, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;

/// A handle of a `guest_memfd` of one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestMemfd(pub(crate) usize);

/// Where the shared half of a slot at address 0 lies, if the model chooses.
const SHARED_BASE: u64 = 0x1000_0000;

/// A memory slot: shared memory of the VMM, and beside it perhaps a part of a `guest_memfd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The slot's number.
    pub slot: u32,
    /// The first frame and the length.
    pub range: PageRange,
    /// Start of the shared half: an address in the VMM's process.
    pub userspace_addr: u64,
    /// The private half: the file and the offset in it, in bytes.
    pub guest_memfd: Option<(GuestMemfd, u64)>,
}

impl Slot {
    /// A slot of `bytes` from `gpa` on, without a private half. Its shared half lies at an address that the model
    /// chooses, and that no other slot made so has.
    #[must_use]
    pub const fn shared(slot: u32, gpa: Gpa, bytes: u64) -> Option<Self> {
        if !gpa.is_page_aligned() || bytes & (PAGE_SIZE - 1) != 0 {
            return None;
        }
        match PageRange::new(gpa.gfn(), bytes / PAGE_SIZE) {
            Some(range) => {
                let userspace_addr = gpa.0.wrapping_add(SHARED_BASE);
                Some(Self { slot, range, userspace_addr, guest_memfd: None })
            }
            None => None,
        }
    }

    /// The slot with its shared half at another address.
    #[must_use]
    pub const fn with_userspace_addr(mut self, userspace_addr: u64) -> Self {
        self.userspace_addr = userspace_addr;
        self
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

    /// The address in the VMM's process of a byte of this slot.
    pub(crate) const fn uaddr(&self, gpa: Gpa) -> u64 {
        gpa.0.wrapping_sub(self.range.gpa().0).wrapping_add(self.userspace_addr)
    }

    /// The file and page that back the private half of a frame of this slot.
    pub(crate) fn private_page(&self, gfn: Gfn) -> Option<(GuestMemfd, u64)> {
        let (file, offset_bytes) = self.guest_memfd?;
        let distance = gfn.0.checked_sub(self.range.gfn().0)?;
        Some((file, (offset_bytes / PAGE_SIZE).checked_add(distance)?))
    }
}
