//! The memory of a foreign VM, as its VMM told the kernel half: which addresses are memory, and what is behind them.

use exeunt_abi::kvm::memory::{MEM_GUEST_MEMFD, UserspaceMemoryRegion, UserspaceMemoryRegion2};
use exeunt_abi::{Gpa, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;
use exeunt_scenes::Part;
use std::collections::BTreeMap;
use zerocopy::FromBytes;

/// The slots of a VM by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    slots: BTreeMap<u32, Slot>,
    /// The files of private memory by the descriptor that a slot names, the last one that had it.
    files: BTreeMap<u32, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    gpa: u64,
    bytes: u64,
    uaddr: u64,
    /// The number of the file, and where the slot's memory begins in it.
    private: Option<(u32, u64)>,
}

impl Slots {
    /// A file for private memory was made.
    pub(super) fn file(&mut self, descriptor: u32, number: u32) {
        self.files.insert(descriptor, number);
    }

    /// `KVM_SET_USER_MEMORY_REGION` succeeded.
    pub(super) fn set(&mut self, bytes: &[u8]) {
        if let Ok((region, _)) = UserspaceMemoryRegion::read_from_prefix(bytes) {
            self.insert(&region, None);
        }
    }

    /// `KVM_SET_USER_MEMORY_REGION2` succeeded.
    pub(super) fn set2(&mut self, bytes: &[u8]) {
        let Ok((region, _)) = UserspaceMemoryRegion2::read_from_prefix(bytes) else { return };
        let UserspaceMemoryRegion2 { slot, flags, guest_phys_addr, memory_size, userspace_addr, .. } = region;
        let private = self.files.get(&region.guest_memfd).map(|file| (*file, region.guest_memfd_offset));
        let private = private.filter(|_| flags & MEM_GUEST_MEMFD != 0);
        let region = UserspaceMemoryRegion { slot, flags, guest_phys_addr, memory_size, userspace_addr };
        self.insert(&region, private);
    }

    /// A size of 0 takes a slot away. A slot that only changes its flags keeps its file.
    fn insert(&mut self, region: &UserspaceMemoryRegion, private: Option<(u32, u64)>) {
        let UserspaceMemoryRegion {
            slot,
            guest_phys_addr: gpa,
            memory_size: bytes,
            userspace_addr: uaddr,
            ..
        } = *region;
        if bytes == 0 {
            self.slots.remove(&slot);
        } else {
            self.slots.insert(slot, Slot { gpa, bytes, uaddr, private });
        }
    }

    /// What of the guest's addresses is memory. The other address space of a VM, that of SMM, shows the same guest
    /// addresses again and is left out.
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (number, slot) in &self.slots {
            let part = Part { gpa: slot.gpa, bytes: slot.bytes, has_private: slot.private.is_some() };
            if number >> 16 == 0 {
                parts.push(part);
            }
        }
        parts.sort_by_key(|part| part.gpa);
        parts
    }

    /// The guest's pages behind a piece of a file.
    pub(super) fn of_file(&self, file: u32, offset: u64, bytes: u64) -> Vec<PageRange> {
        let slots = self.slots.values().filter_map(|slot| match slot.private {
            Some((number, start)) if number == file => Some((start, *slot)),
            _ => None,
        });
        slots.filter_map(|(start, slot)| overlap(start, slot, offset, bytes)).collect()
    }

    /// The guest's pages behind addresses of the process.
    pub(super) fn of_process(&self, uaddr: u64, bytes: u64) -> Vec<PageRange> {
        self.slots.values().filter_map(|slot| overlap(slot.uaddr, *slot, uaddr, bytes)).collect()
    }
}

/// The whole pages of a slot that a range touches, where the slot begins at `start` in the same numbers.
fn overlap(start: u64, slot: Slot, at: u64, bytes: u64) -> Option<PageRange> {
    let from = at.max(start);
    let until = at.saturating_add(bytes).min(start.saturating_add(slot.bytes));
    let bytes = until.checked_sub(from)?;
    let gpa = slot.gpa.checked_add(from.checked_sub(start)?)?;
    PageRange::new(Gpa(gpa).gfn(), bytes / PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_abi::Gfn;
    use zerocopy::IntoBytes;

    fn region(slot: u32, gpa: u64, bytes: u64, uaddr: u64, file: Option<u32>) -> Vec<u8> {
        let flags = if file.is_some() { MEM_GUEST_MEMFD } else { 0 };
        let region = UserspaceMemoryRegion2 {
            slot,
            flags,
            guest_phys_addr: gpa,
            memory_size: bytes,
            userspace_addr: uaddr,
            guest_memfd_offset: 0x1000,
            guest_memfd: file.unwrap_or(0),
            pad1: 0,
            pad2: [0; 14],
        };
        region.as_bytes().to_vec()
    }

    fn pages(gfn: u64, pages: u64) -> Vec<PageRange> {
        PageRange::new(Gfn(gfn), pages).into_iter().collect()
    }

    #[test]
    fn pieces_of_files_and_of_the_process_are_pages_of_the_guest() {
        let mut slots = Slots::default();
        slots.file(9, 4);
        slots.set2(&region(1, 0x10_0000, 0x4000, 0x7000_0000, Some(9)));
        slots.set2(&region(0x1_0001, 0x10_0000, 0x4000, 0x7000_0000, None));
        slots.set2(&region(2, 0x20_0000, 0x1000, 0x8000_0000, None));
        assert_eq!(slots.of_file(4, 0x2000, 0x1000), pages(0x101, 1));
        assert_eq!(slots.of_file(4, 0, 0x1000), pages(0x100, 0), "before the slot");
        assert_eq!(slots.of_file(4, 0, u64::MAX), pages(0x100, 4));
        assert_eq!(slots.of_file(5, 0, u64::MAX), vec![]);
        assert_eq!(slots.of_process(0x8000_0000, 0x9000), pages(0x200, 1));
        let parts: Vec<_> = slots.parts().iter().map(|part| (part.gpa, part.has_private)).collect();
        assert_eq!(parts, [(0x10_0000, true), (0x20_0000, false)]);
        slots.set2(&region(2, 0, 0, 0, None));
        assert_eq!(slots.parts().len(), 1);
        slots.set(&[0; 7]);
        assert_eq!(slots.parts().len(), 1, "too few bytes change nothing");
    }
}
