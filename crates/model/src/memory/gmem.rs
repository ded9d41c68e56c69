//! `guest_memfd`: memory that the host does not map, and the reverse map entries of its pages.

use crate::state::PAGE;
use std::collections::BTreeMap;

/// One page of a `guest_memfd`, present since its first use.
#[derive(Clone, Debug)]
pub(crate) struct GmemPage {
    pub(crate) bytes: Box<[u8; PAGE]>,
    /// The reverse map says that the guest validated the page. Assigned it is by being present.
    pub(crate) validated: bool,
}

/// A `guest_memfd`: a sparse file of pages.
#[derive(Clone, Debug)]
pub(crate) struct Gmem {
    bytes: u64,
    pages: BTreeMap<u64, GmemPage>,
}

impl Gmem {
    pub(crate) const fn new(bytes: u64) -> Self {
        Self { bytes, pages: BTreeMap::new() }
    }

    /// The size in bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.bytes
    }

    /// The page at an index, made zeroed, assigned and not validated at its first use.
    ///
    /// Source: Linux v7.2 `virt/kvm/guest_memfd.c`, `kvm_gmem_get_pfn`, and `arch/x86/kvm/svm/sev.c`,
    /// `sev_gmem_prepare`.
    pub(crate) fn page(&mut self, index: u64) -> &mut GmemPage {
        self.pages.entry(index).or_insert_with(|| GmemPage { bytes: Box::new([0; PAGE]), validated: false })
    }

    /// How many pages are present.
    pub(crate) fn present(&self) -> usize {
        self.pages.len()
    }

    /// `fallocate(PUNCH_HOLE)` over whole pages: they and their reverse map entries are gone.
    pub(crate) fn punch_hole(&mut self, first: u64, pages: u64) {
        remove_range(&mut self.pages, first..first.saturating_add(pages));
    }
}

/// Removes what lies in a range of keys. The work is bounded by what is there, not by the range.
pub(crate) fn remove_range<T>(map: &mut BTreeMap<u64, T>, keys: std::ops::Range<u64>) {
    while let Some((&key, _)) = map.range(keys.clone()).next() {
        map.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_takes_exactly_its_pages() {
        let mut gmem = Gmem::new(0x8000);
        for index in 0..8 {
            gmem.page(index).bytes[0] = 1;
            gmem.page(index).validated = true;
        }
        gmem.punch_hole(2, 3);
        assert_eq!((gmem.present(), gmem.len()), (5, 0x8000));
        for index in 0..8 {
            let kept = !(2..5).contains(&index);
            assert_eq!(gmem.page(index).bytes[0] == 1, kept, "{index}");
            assert_eq!(gmem.page(index).validated, kept, "{index}");
        }
    }
}
