//! Memory slots.

use exeunt_abi::kvm::memory::MEM_GUEST_MEMFD;
use exeunt_abi::{Gfn, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;
use std::collections::BTreeMap;
use std::fmt;

/// A handle of a `guest_memfd` of one VM.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestMemfd {
    /// Tells the VMs of a process apart, and is in no output.
    pub(crate) vm: u64,
    /// The file's place in the order of creation.
    pub(crate) file: usize,
}

impl fmt::Debug for GuestMemfd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestMemfd({})", self.file)
    }
}

/// Where the shared half of a slot at address 0 lies, if the model chooses.
const SHARED_BASE: u64 = 0x1000_0000;

/// A memory slot: shared memory of the VMM, and beside it perhaps a part of a `guest_memfd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The slot's number in bits 15:0, its address space in bits 31:16.
    pub slot: u32,
    /// `KVM_MEM_*`.
    pub flags: u32,
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
                Some(Self { slot, flags: 0, range, userspace_addr, guest_memfd: None })
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

    /// The slot with more flags, `KVM_MEM_READONLY` or `KVM_MEM_LOG_DIRTY_PAGES`.
    #[must_use]
    pub const fn with_flags(mut self, flags: u32) -> Self {
        self.flags |= flags;
        self
    }

    /// The slot with a private half.
    #[must_use]
    pub const fn with_guest_memfd(mut self, file: GuestMemfd, offset_bytes: u64) -> Self {
        self.guest_memfd = Some((file, offset_bytes));
        self.flags |= MEM_GUEST_MEMFD;
        self
    }

    /// Whether the slot holds the frame.
    #[must_use]
    pub fn contains(&self, gfn: Gfn) -> bool {
        self.range.gfn() <= gfn && gfn < self.range.end()
    }

    /// Whether a flag is set.
    pub(crate) const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
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

/// The slots of one address space. No two of them overlap.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// In the order of their addresses.
    slots: Vec<Slot>,
    /// The first frame of each by its number.
    numbers: BTreeMap<u32, Gfn>,
}

impl Slots {
    /// All of them, in the order of their addresses.
    pub(crate) fn as_slice(&self) -> &[Slot] {
        &self.slots
    }

    /// The slot that holds a frame.
    pub(crate) fn at(&self, gfn: Gfn) -> Option<&Slot> {
        let behind = self.slots.partition_point(|slot| slot.range.gfn() <= gfn);
        self.slots.get(behind.checked_sub(1)?).filter(|slot| slot.contains(gfn))
    }

    /// The slot with a number.
    pub(crate) fn numbered(&self, slot: u32) -> Option<&Slot> {
        self.at(*self.numbers.get(&slot)?)
    }

    /// The slots that overlap a run of frames, in the order of their addresses.
    pub(crate) fn overlapping(&self, range: PageRange) -> impl Iterator<Item = &Slot> {
        let first = self.slots.partition_point(|slot| slot.range.end() <= range.gfn());
        let slots = self.slots.get(first..).unwrap_or_default().iter();
        slots.take_while(move |slot| slot.range.gfn() < range.end())
    }

    /// Puts a slot in, in the place of the one with its number, if any. The caller has checked for overlaps.
    pub(crate) fn insert(&mut self, slot: Slot) {
        self.remove(slot.slot);
        let at = self.slots.partition_point(|old| old.range.gfn() < slot.range.gfn());
        self.slots.insert(at, slot);
        self.numbers.insert(slot.slot, slot.range.gfn());
    }

    /// Takes a slot out.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Slot> {
        let gfn = self.numbers.remove(&slot)?;
        let at = self.slots.partition_point(|old| old.range.gfn() < gfn);
        (at < self.slots.len()).then(|| self.slots.remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    #[test]
    fn a_slot_of_no_whole_pages_is_none() {
        assert!(Slot::shared(0, Gpa(1), 0x1000).is_none());
        assert!(Slot::shared(0, Gpa(0), 0x1001).is_none());
        assert!(Slot::shared(0, Gpa(0), 0).is_none());
    }

    #[test]
    fn every_frame_is_found_by_address_and_every_slot_by_number() {
        let mut rng = Rng::new(3);
        let mut slots = Slots::default();
        let mut table: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for _ in 0..2000 {
            let number = u32::try_from(rng.below(12)).unwrap();
            let (gfn, pages) = (rng.below(90), 1 + rng.below(9));
            let range = PageRange::new(Gfn(gfn), pages).unwrap();
            let others = table.iter().filter(|(other, _)| **other != number);
            let overlaps = others.clone().any(|(_, (start, end))| *start < gfn + pages && gfn < *end);
            let found = slots.overlapping(range).any(|slot| slot.slot != number);
            assert_eq!(found, overlaps);
            if rng.below(3) == 0 {
                assert_eq!(slots.remove(number).is_some(), table.remove(&number).is_some());
            } else if !overlaps {
                slots.insert(Slot::shared(number, Gfn(gfn).gpa(), pages << 12).unwrap());
                table.insert(number, (gfn, gfn + pages));
            }
            assert!(slots.as_slice().windows(2).all(|pair| pair[0].range.end() <= pair[1].range.gfn()));
            for frame in 0..100 {
                let by_table = table.iter().find(|(_, (start, end))| (*start..*end).contains(&frame));
                let expected = by_table.map(|(number, _)| *number);
                assert_eq!(slots.at(Gfn(frame)).map(|slot| slot.slot), expected, "{frame}");
            }
            for number in 0..12 {
                let start = slots.numbered(number).map(|slot| slot.range.gfn().0);
                assert_eq!(start, table.get(&number).map(|(start, _)| *start));
            }
        }
    }
}
