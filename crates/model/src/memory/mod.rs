//! Guest memory: slots, attributes, both backings, and who may touch what.

mod attributes;
mod gmem;
mod memslot;
mod user;

pub use memslot::{GuestMemfd, Slot};
pub use user::{Protection, SparseMemory, UserMemory};

use crate::state::PAGE;
use attributes::Attributes;
use exeunt_abi::{Errno, Gfn, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::{PageRange, PageState};
use gmem::{Gmem, GmemPage, remove_range};
use std::sync::Arc;

/// The memory of a VM.
#[derive(Debug)]
pub(crate) struct Memory {
    user: Arc<dyn UserMemory>,
    /// In the order of their addresses.
    slots: Vec<Slot>,
    files: Vec<Gmem>,
    pub(crate) attributes: Attributes,
}

impl Memory {
    /// No slots yet; those to come lie in this process.
    pub(crate) fn new(user: Arc<dyn UserMemory>) -> Self {
        Self { user, slots: Vec::new(), files: Vec::new(), attributes: Attributes::default() }
    }

    /// `KVM_CREATE_GUEST_MEMFD`.
    pub(crate) fn create_guest_memfd(&mut self, bytes: u64) -> Result<GuestMemfd, Errno> {
        // The kernel takes the size as a signed number.
        if bytes == 0 || bytes & (PAGE_SIZE - 1) != 0 || bytes > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        self.files.push(Gmem::new(bytes));
        Ok(GuestMemfd(self.files.len().saturating_sub(1)))
    }

    /// `KVM_SET_USER_MEMORY_REGION2` for a new slot.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_set_memory_region`, and `guest_memfd.c`, `kvm_gmem_bind`.
    pub(crate) fn add_slot(&mut self, slot: Slot) -> Result<(), Errno> {
        if self.slots.iter().any(|old| old.slot == slot.slot) {
            return Err(Errno::EINVAL);
        }
        if self.slots.iter().any(|old| old.range.intersect(slot.range).is_some()) {
            return Err(Errno::EEXIST);
        }
        if let Some((file, offset_bytes)) = slot.guest_memfd {
            let gmem = self.files.get(file.0).ok_or(Errno::EBADF)?;
            let end = offset_bytes.checked_add(slot.range.bytes());
            if offset_bytes & (PAGE_SIZE - 1) != 0 || end.is_none_or(|end| end > gmem.len()) {
                return Err(Errno::EINVAL);
            }
            let bound = self.slots.iter().filter_map(|old| Some((old.guest_memfd?, old.range.bytes())));
            for ((other, start), bytes) in bound {
                let apart = start >= offset_bytes.saturating_add(slot.range.bytes())
                    || offset_bytes >= start.saturating_add(bytes);
                if other == file && !apart {
                    return Err(Errno::EEXIST);
                }
            }
        }
        let at = self.slots.partition_point(|old| old.range.gfn() < slot.range.gfn());
        self.slots.insert(at, slot);
        Ok(())
    }

    /// The slots in the order of their addresses.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slot that holds a frame.
    pub(crate) fn slot_of(&self, gfn: Gfn) -> Option<&Slot> {
        let behind = self.slots.partition_point(|slot| slot.range.gfn() <= gfn);
        self.slots.get(behind.checked_sub(1)?).filter(|slot| slot.contains(gfn))
    }

    /// The private page of a frame, made at its first use. `None` where no `guest_memfd` backs it.
    pub(crate) fn private_page(&mut self, gfn: Gfn) -> Option<&mut GmemPage> {
        let (file, index) = self.slot_of(gfn)?.private_page(gfn)?;
        Some(self.files.get_mut(file.0)?.page(index))
    }

    /// Pages of a `guest_memfd` that are present.
    pub(crate) fn present_pages(&self, file: GuestMemfd) -> usize {
        self.files.get(file.0).map_or(0, Gmem::present)
    }

    /// Reads shared memory as the host sees it.
    ///
    /// # Errors
    ///
    /// `EFAULT` where no slot is, or the process maps nothing; bytes before that page have been read.
    pub(crate) fn read_shared(&self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        for (chunk, gfn, offset) in split_at_pages(gpa, bytes.len()) {
            let slot = self.slot_of(gfn).ok_or(Errno::EFAULT)?;
            let to = bytes.get_mut(chunk).ok_or(Errno::EFAULT)?;
            self.user.read(slot.uaddr(gfn.gpa()).wrapping_add(offset as u64), to)?;
        }
        Ok(())
    }

    /// Writes shared memory as the host does.
    ///
    /// # Errors
    ///
    /// `EFAULT` where no slot is, or the process maps nothing; bytes before that page have been written.
    pub(crate) fn write_shared(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        for (chunk, gfn, offset) in split_at_pages(gpa, bytes.len()) {
            let slot = self.slot_of(gfn).ok_or(Errno::EFAULT)?;
            let from = bytes.get(chunk).unwrap_or_default();
            self.user.write(slot.uaddr(gfn.gpa()).wrapping_add(offset as u64), from)?;
        }
        Ok(())
    }

    /// Reads a byte of shared memory.
    pub(crate) fn read_u8(&self, gpa: Gpa) -> Result<u8, Errno> {
        let mut bytes = [0];
        self.read_shared(gpa, &mut bytes)?;
        let [byte] = bytes;
        Ok(byte)
    }

    /// Reads a little-endian word of shared memory.
    pub(crate) fn read_u64(&self, gpa: Gpa) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        self.read_shared(gpa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a little-endian word of shared memory.
    pub(crate) fn write_u64(&mut self, gpa: Gpa, value: u64) -> Result<(), Errno> {
        self.write_shared(gpa, &value.to_le_bytes())
    }

    /// Gives back the shared memory of a run of pages: it reads as zero again.
    pub(crate) fn discard_shared(&mut self, range: PageRange) {
        for slot in &self.slots {
            if let Some(part) = slot.range.intersect(range) {
                self.user.discard(slot.uaddr(part.gpa()), part.bytes());
            }
        }
    }

    /// Punches the holes that back a run of pages, slot by slot.
    pub(crate) fn discard_private(&mut self, range: PageRange) {
        for slot in &self.slots {
            let Some(part) = slot.range.intersect(range) else { continue };
            let Some((file, index)) = slot.private_page(part.gfn()) else { continue };
            if let Some(gmem) = self.files.get_mut(file.0) {
                gmem.punch_hole(index, part.pages());
            }
        }
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES`, checks done: neither memory is touched.
    pub(crate) fn set_attributes(&mut self, range: PageRange, to: PageState) {
        self.attributes.set(range, to);
    }
}

/// Splits a run of bytes at page borders: where in the buffer, which frame, where in the frame. It ends where the
/// address would wrap.
pub(crate) fn split_at_pages(
    gpa: Gpa,
    bytes: usize,
) -> impl Iterator<Item = (std::ops::Range<usize>, Gfn, usize)> {
    let mut done = 0usize;
    std::iter::from_fn(move || {
        if done >= bytes {
            return None;
        }
        let at = Gpa(gpa.0.checked_add(done as u64)?);
        let offset = usize::try_from(at.offset_in_page()).ok()?;
        let take = PAGE.saturating_sub(offset).min(bytes.saturating_sub(done));
        let chunk = done..done.saturating_add(take);
        done = chunk.end;
        Some((chunk, at.gfn(), offset))
    })
}

/// Reads or writes the bytes of one private page, which the caller has looked up.
pub(crate) fn copy_private(page: &mut GmemPage, offset: usize, access: PrivateAccess<'_>) {
    match access {
        PrivateAccess::Read(to) => {
            page.bytes.iter().skip(offset).zip(to).for_each(|(from, to)| *to = *from);
        }
        PrivateAccess::Write(from) => {
            page.bytes.iter_mut().skip(offset).zip(from).for_each(|(to, from)| *to = *from);
        }
    }
}

/// A guest's access to private memory.
pub(crate) enum PrivateAccess<'a> {
    /// Out of the page.
    Read(&'a mut [u8]),
    /// Into the page.
    Write(&'a [u8]),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> (Memory, GuestMemfd) {
        let mut memory = Memory::new(Arc::new(SparseMemory::new()));
        let file = memory.create_guest_memfd(0x10_0000).unwrap();
        let slot = Slot::shared(0, Gpa(0x1000), 0x3000).unwrap().with_guest_memfd(file, 0);
        memory.add_slot(slot).unwrap();
        (memory, file)
    }

    #[test]
    fn shared_memory_reads_back_across_pages_and_is_zero_after_a_discard() {
        let (mut memory, _) = memory();
        let mut got = [0; 4];
        memory.write_shared(Gpa(0x1ffe), b"abcd").unwrap();
        memory.read_shared(Gpa(0x1ffe), &mut got).unwrap();
        assert_eq!(&got, b"abcd");
        memory.discard_shared(PageRange::new(Gfn(2), 1).unwrap());
        memory.read_shared(Gpa(0x1ffe), &mut got).unwrap();
        assert_eq!(&got, b"ab\0\0");
    }

    #[test]
    fn memory_without_a_slot_faults() {
        let (mut memory, _) = memory();
        for gpa in [0, 0xfff, 0x4000, 0x3fff, u64::MAX] {
            assert_eq!(memory.write_shared(Gpa(gpa), &[1, 2]), Err(Errno::EFAULT), "{gpa:#x}");
        }
        assert_eq!(memory.read_u64(Gpa(0x3ffc)), Err(Errno::EFAULT));
    }

    #[test]
    fn a_slot_is_refused_as_the_kernel_refuses_it() {
        let (mut memory, file) = memory();
        let slot = |number, gpa, bytes| Slot::shared(number, Gpa(gpa), bytes).unwrap();
        let at = |number, gpa, offset| slot(number, gpa, 0x1000).with_guest_memfd(file, offset);
        assert_eq!(memory.add_slot(slot(0, 0x9000, 0x1000)), Err(Errno::EINVAL));
        assert_eq!(memory.add_slot(slot(1, 0x3000, 0x1000)), Err(Errno::EEXIST));
        assert_eq!(memory.add_slot(at(1, 0x9000, 0x2000)), Err(Errno::EEXIST), "the file's part is bound");
        assert_eq!(memory.add_slot(at(1, 0x9000, 0x10_0000)), Err(Errno::EINVAL));
        assert_eq!(memory.add_slot(at(1, 0x9000, 0x3001)), Err(Errno::EINVAL));
        let other = slot(1, 0x9000, 0x1000).with_guest_memfd(GuestMemfd(9), 0);
        assert_eq!(memory.add_slot(other), Err(Errno::EBADF));
        assert_eq!(memory.add_slot(at(1, 0x9000, 0x3000)), Ok(()));
        for bytes in [0, 1, 0x1001, 1 << 63] {
            assert_eq!(memory.create_guest_memfd(bytes), Err(Errno::EINVAL));
        }
        assert!(Slot::shared(0, Gpa(1), 0x1000).is_none());
        assert!(Slot::shared(0, Gpa(0), 0x1001).is_none());
        assert!(Slot::shared(0, Gpa(0), 0).is_none());
    }

    #[test]
    fn a_private_page_is_not_the_shared_page_of_its_frame() {
        let (mut memory, file) = memory();
        memory.write_shared(Gpa(0x2000), b"host").unwrap();
        assert_eq!(memory.private_page(Gfn(2)).unwrap().bytes[..4], [0; 4]);
        assert_eq!(memory.present_pages(file), 1);
        memory.discard_private(PageRange::new(Gfn(0), 100).unwrap());
        assert_eq!(memory.present_pages(file), 0);
        assert!(memory.private_page(Gfn(9)).is_none());
    }
}
