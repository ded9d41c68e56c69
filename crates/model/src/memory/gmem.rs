//! `guest_memfd`: a file of pages that only guests see, unless it says otherwise.

use crate::faults::{Fault, Faults, Point};
use crate::memory::remove_range;
use crate::state::PAGE;
use exeunt_abi::kvm::memory::{GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP};
use exeunt_abi::{Errno, PAGE_SIZE};
use exeunt_runs::{Linear, RunMap};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Pages that a `fallocate` makes one by one while a fault plan is set. A signal ends a longer one.
const MAX_COUNTED_PAGES: u64 = 1 << 16;

/// The slot that a part of a file is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BoundTo(u32);

impl Linear for BoundTo {
    fn advance(self, _: u64) -> Self {
        self
    }
}

/// A `guest_memfd`: a sparse file of pages. Pages are present or not, and one that is holds content or zeros.
#[derive(Clone, Debug)]
pub(crate) struct Gmem {
    /// The host frame of its first page.
    base: u64,
    bytes: u64,
    flags: u64,
    is_open: bool,
    was_unbound: bool,
    present: RunMap<()>,
    content: BTreeMap<u64, Box<[u8; PAGE]>>,
    poisoned: BTreeSet<u64>,
    bindings: RunMap<BoundTo>,
}

impl Gmem {
    pub(crate) fn new(base: u64, bytes: u64, flags: u64) -> Self {
        Self {
            base,
            bytes,
            flags,
            is_open: true,
            was_unbound: false,
            present: RunMap::default(),
            content: BTreeMap::new(),
            poisoned: BTreeSet::new(),
            bindings: RunMap::default(),
        }
    }

    /// The size in bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.bytes
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// The host frame of a page.
    pub(crate) const fn pfn(&self, index: u64) -> u64 {
        self.base.saturating_add(index)
    }

    /// The host frames that are the file's.
    pub(crate) const fn pfns(&self) -> Range<u64> {
        self.base..self.pfn(self.bytes / PAGE_SIZE)
    }

    /// `KVM_MEMSLOT_GMEM_ONLY`: shared pages come from the file too.
    pub(crate) const fn is_gmem_only(&self) -> bool {
        self.flags & GUEST_MEMFD_FLAG_MMAP != 0
    }

    /// Pages that a VMM can map, and that no guest has for itself.
    pub(crate) const fn is_shared(&self) -> bool {
        self.flags & GUEST_MEMFD_FLAG_INIT_SHARED != 0
    }

    /// Whether a part of the file is bound to a slot.
    pub(crate) fn is_bound(&self, indices: Range<u64>) -> bool {
        !self.bindings.is_free(indices)
    }

    pub(crate) fn bind(&mut self, slot: u32, first: u64, pages: u64) {
        self.bindings.put(first..first.saturating_add(pages), BoundTo(slot));
    }

    pub(crate) fn unbind(&mut self, first: u64, pages: u64) {
        self.bindings.clear(first..first.saturating_add(pages));
        self.was_unbound = true;
    }

    /// The page at an index for a slot, made zeroed at its first use.
    ///
    /// Source: Linux v7.2 `virt/kvm/guest_memfd.c`, `__kvm_gmem_get_pfn`.
    pub(crate) fn get_folio(&mut self, slot: u32, index: u64, faults: &Faults) -> Result<(), Errno> {
        if !self.is_open {
            return Err(Errno::EFAULT);
        }
        if self.bindings.get(index) != Some(BoundTo(slot)) {
            return Err(Errno::EIO);
        }
        self.allocate(index, faults)?;
        if self.poisoned.contains(&index) { Err(Errno::EHWPOISON) } else { Ok(()) }
    }

    /// The page is in the file, and made if it is not.
    fn allocate(&mut self, index: u64, faults: &Faults) -> Result<(), Errno> {
        if self.present.get(index).is_some() {
            return Ok(());
        }
        match faults.at(Point::GmemPage) {
            Some(Fault::Fails(errno)) => return Err(errno),
            Some(Fault::Poison) => _ = self.poisoned.insert(index),
            _ => {}
        }
        self.present.put(index..index.saturating_add(1), ());
        Ok(())
    }

    /// As [`Gmem::get_folio`] for the pages that follow one another from `index` on. Returns how many were made or
    /// found before one failed; a run costs as much as a page, unless a fault plan counts them.
    pub(crate) fn get_folios(
        &mut self,
        slot: u32,
        indices: Range<u64>,
        faults: &Faults,
    ) -> Result<u64, Errno> {
        self.get_folio(slot, indices.start, faults)?;
        let indices = indices.start..indices.end.max(indices.start.saturating_add(1));
        let bound = self.bindings.run_from(indices.start).map_or(indices.start, |run| run.pages.end);
        let poisoned = self.poisoned.range(indices.clone()).next().copied().unwrap_or(u64::MAX);
        let end = indices.end.min(bound).min(poisoned);
        if faults.is_planned() {
            return Ok(1);
        }
        self.present.put(indices.start..end, ());
        Ok(end.saturating_sub(indices.start))
    }

    /// `fallocate` without `PUNCH_HOLE`.
    ///
    /// Source: Linux v7.2 `virt/kvm/guest_memfd.c`, `kvm_gmem_allocate`.
    pub(crate) fn allocate_range(&mut self, indices: Range<u64>, faults: &Faults) -> Result<(), Errno> {
        if !faults.is_planned() {
            self.present.put(indices, ());
            return Ok(());
        }
        let end = indices.end.min(indices.start.saturating_add(MAX_COUNTED_PAGES));
        for index in indices.start..end {
            self.allocate(index, faults)?;
        }
        if end < indices.end { Err(Errno::EINTR) } else { Ok(()) }
    }

    /// How many pages are present.
    pub(crate) fn present(&self) -> u64 {
        self.present.pages()
    }

    /// The present pages as runs.
    pub(crate) fn present_runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.present.runs(0..u64::MAX).map(|run| run.pages)
    }

    /// Whether a page is present.
    pub(crate) fn is_present(&self, index: u64) -> bool {
        self.present.get(index).is_some()
    }

    /// Whether every page of a range is present.
    pub(crate) fn has_all(&self, indices: Range<u64>) -> bool {
        self.present.covers(indices)
    }

    /// Whether a part of the file was ever bound and is no longer, so that pages may be at home elsewhere.
    pub(crate) const fn was_unbound(&self) -> bool {
        self.was_unbound
    }

    /// Whether no page of a range is present.
    pub(crate) fn is_free(&self, indices: Range<u64>) -> bool {
        self.present.is_free(indices)
    }

    /// Pages with content, which hold their bytes.
    pub(crate) fn content_pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.content.keys().copied()
    }

    /// Pages that are lost.
    pub(crate) fn poisoned_pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.poisoned.iter().copied()
    }

    /// The parts of a range that are bound, and to which slots.
    pub(crate) fn bindings_in(&self, indices: Range<u64>) -> impl Iterator<Item = (Range<u64>, u32)> + '_ {
        self.bindings.runs(indices).map(|run| (run.pages, run.first.0))
    }

    /// Memory failure at a page: it is lost, and stays in the file until its hole is punched.
    pub(crate) fn poison(&mut self, index: u64) {
        self.present.put(index..index.saturating_add(1), ());
        self.content.remove(&index);
        self.poisoned.insert(index);
    }

    /// Frees whole pages.
    pub(crate) fn truncate(&mut self, indices: Range<u64>) {
        self.present.clear(indices.clone());
        remove_range(&mut self.content, indices.clone());
        while let Some(&index) = self.poisoned.range(indices.clone()).next() {
            self.poisoned.remove(&index);
        }
    }

    /// The last descriptor is closed: the slots lose the file, and the pages go with it.
    pub(crate) fn close(&mut self) {
        self.is_open = false;
        self.bindings = RunMap::default();
        self.truncate(0..u64::MAX);
    }

    /// Reads a page that is present.
    pub(crate) fn read(&self, index: u64, offset: usize, to: &mut [u8]) {
        let page = self.content.get(&index);
        match page.and_then(|page| page.get(offset..offset.saturating_add(to.len()))) {
            Some(from) => to.copy_from_slice(from),
            None => to.fill(0),
        }
    }

    /// Writes a page through a mapping of the file, which makes it at its first use.
    ///
    /// Source: Linux v7.2 `virt/kvm/guest_memfd.c`, `kvm_gmem_fault_user_mapping`.
    pub(crate) fn write_mapped(
        &mut self,
        index: u64,
        offset: usize,
        from: &[u8],
        faults: &Faults,
    ) -> Result<(), Errno> {
        // The process gets SIGBUS where there is no page, and system calls on its behalf get this.
        self.allocate(index, faults).map_err(|_| Errno::EFAULT)?;
        if self.poisoned.contains(&index) {
            return Err(Errno::EFAULT);
        }
        self.write(index, offset, from);
        Ok(())
    }

    /// Writes a page that is present. Zeros that meet zeros take no memory.
    pub(crate) fn write(&mut self, index: u64, offset: usize, from: &[u8]) {
        if !self.content.contains_key(&index) && from.iter().all(|byte| *byte == 0) {
            return;
        }
        let page = self.content.entry(index).or_insert_with(|| Box::new([0; PAGE]));
        if let Some(to) = page.get_mut(offset..offset.saturating_add(from.len())) {
            to.copy_from_slice(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::FaultPlan;

    fn gmem() -> Gmem {
        let mut gmem = Gmem::new(0x1000, 0x8000, 0);
        gmem.bind(3, 0, 8);
        gmem
    }

    #[test]
    fn a_hole_takes_exactly_its_pages() {
        let mut gmem = gmem();
        for index in 0..8 {
            assert_eq!(gmem.get_folio(3, index, &Faults::default()), Ok(()));
            gmem.write(index, 0, &[1]);
        }
        gmem.truncate(2..5);
        assert_eq!((gmem.present(), gmem.len()), (5, 0x8000));
        for index in 0..8 {
            let mut byte = [9];
            gmem.read(index, 0, &mut byte);
            assert_eq!(byte == [1], !(2..5).contains(&index), "{index}");
        }
    }

    #[test]
    fn a_page_comes_to_the_slot_it_is_bound_to_and_only_while_the_file_is_open() {
        let faults = Faults::default();
        let mut gmem = gmem();
        assert_eq!(gmem.get_folio(4, 0, &faults), Err(Errno::EIO));
        assert_eq!(gmem.get_folio(3, 8, &faults), Err(Errno::EIO));
        gmem.unbind(0, 1);
        assert_eq!(gmem.get_folio(3, 0, &faults), Err(Errno::EIO));
        assert_eq!(gmem.get_folio(3, 1, &faults), Ok(()));
        gmem.close();
        assert_eq!(gmem.get_folio(3, 1, &faults), Err(Errno::EFAULT));
        assert_eq!(gmem.present(), 0);
    }

    #[test]
    fn a_poisoned_page_fails_until_its_hole_is_punched() {
        let faults = Faults::default();
        faults.set(FaultPlan::new().with(Point::GmemPage, 1, Fault::Poison));
        let mut gmem = gmem();
        assert_eq!(gmem.get_folio(3, 0, &faults), Ok(()));
        for _ in 0..3 {
            assert_eq!(gmem.get_folio(3, 1, &faults), Err(Errno::EHWPOISON));
        }
        gmem.truncate(1..2);
        assert_eq!(gmem.get_folio(3, 1, &faults), Ok(()));
        gmem.poison(0);
        assert_eq!(gmem.get_folio(3, 0, &faults), Err(Errno::EHWPOISON));
    }

    #[test]
    fn a_run_of_pages_ends_at_the_binding_and_before_poison() {
        let faults = Faults::default();
        let mut gmem = gmem();
        gmem.poison(5);
        assert_eq!(gmem.get_folios(3, 1..100, &faults), Ok(4));
        assert_eq!(gmem.get_folios(3, 5..100, &faults), Err(Errno::EHWPOISON));
        assert_eq!(gmem.get_folios(3, 6..100, &faults), Ok(2));
        assert_eq!(gmem.present(), 7);
    }

    #[test]
    fn zeros_take_no_memory() {
        let mut gmem = gmem();
        gmem.write(0, 0, &[0; PAGE]);
        assert_eq!(gmem.content_pages().count(), 0);
        gmem.write(0, 7, &[1]);
        gmem.write(0, 7, &[0]);
        assert_eq!(gmem.content_pages().count(), 1);
    }
}
