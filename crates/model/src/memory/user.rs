//! The address space of the VMM's process, which backs the shared half of each slot.

use crate::memory::remove_range;
use crate::state::PAGE;
use exeunt_abi::{Errno, PAGE_SIZE};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The address space of a VMM's process, as KVM reaches it through the `userspace_addr` of a slot.
///
/// Its owner and other vCPUs may change it at any time, so what is read is copied once and judged after that.
pub trait UserMemory: fmt::Debug + Send + Sync {
    /// Copies from the process, as `copy_from_user` does.
    ///
    /// # Errors
    ///
    /// `EFAULT` where nothing is mapped, or not for reading.
    fn read(&self, uaddr: u64, to: &mut [u8]) -> Result<(), Errno>;

    /// Copies to the process, as `copy_to_user` does.
    ///
    /// # Errors
    ///
    /// `EFAULT` where nothing is mapped, or not for writing.
    fn write(&self, uaddr: u64, from: &[u8]) -> Result<(), Errno>;

    /// `madvise(MADV_DONTNEED)` on anonymous memory: whole pages of the range read as zero again.
    fn discard(&self, uaddr: u64, bytes: u64);
}

/// What a process may do with a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    /// `PROT_READ | PROT_WRITE`, which every page of a [`SparseMemory`] starts with.
    #[default]
    ReadWrite,
    /// `PROT_READ`.
    ReadOnly,
    /// `PROT_NONE`.
    None,
}

/// An address space of which every page is mapped, anonymous and zero until it is written.
///
/// It holds pages with content only: writing zeros to a page that is not there makes none.
#[derive(Debug, Default)]
pub struct SparseMemory {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    /// Pages that are not readable and writable, by page number.
    protected: BTreeMap<u64, Protection>,
}

impl SparseMemory {
    /// An address space without content.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `mprotect` of the page that holds an address.
    pub fn protect(&self, uaddr: u64, protection: Protection) {
        let mut inner = self.lock();
        if protection == Protection::ReadWrite {
            inner.protected.remove(&(uaddr / PAGE_SIZE));
        } else {
            inner.protected.insert(uaddr / PAGE_SIZE, protection);
        }
    }

    /// Pages that hold content.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.lock().pages.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn protection(&self, page: u64) -> Protection {
        if self.protected.is_empty() {
            return Protection::ReadWrite;
        }
        self.protected.get(&page).copied().unwrap_or_default()
    }
}

impl UserMemory for SparseMemory {
    fn read(&self, uaddr: u64, to: &mut [u8]) -> Result<(), Errno> {
        let inner = self.lock();
        for (chunk, page, offset) in split(uaddr, to.len()) {
            if inner.protection(page) == Protection::None {
                return Err(Errno::EFAULT);
            }
            let to = to.get_mut(chunk).unwrap_or_default();
            match inner.pages.get(&page).and_then(|bytes| bytes.get(offset..offset.saturating_add(to.len())))
            {
                Some(from) => to.copy_from_slice(from),
                None => to.fill(0),
            }
        }
        Ok(())
    }

    fn write(&self, uaddr: u64, from: &[u8]) -> Result<(), Errno> {
        let mut inner = self.lock();
        for (chunk, page, offset) in split(uaddr, from.len()) {
            if inner.protection(page) != Protection::ReadWrite {
                return Err(Errno::EFAULT);
            }
            let from = from.get(chunk).unwrap_or_default();
            let end = offset.saturating_add(from.len());
            if let Some(bytes) = inner.pages.get_mut(&page) {
                if let Some(to) = bytes.get_mut(offset..end) {
                    to.copy_from_slice(from);
                }
            } else if from.iter().any(|byte| *byte != 0) {
                let mut bytes = Box::new([0; PAGE]);
                if let Some(to) = bytes.get_mut(offset..end) {
                    to.copy_from_slice(from);
                }
                inner.pages.insert(page, bytes);
            }
        }
        Ok(())
    }

    fn discard(&self, uaddr: u64, bytes: u64) {
        let first = uaddr.div_ceil(PAGE_SIZE);
        let end = uaddr.saturating_add(bytes) / PAGE_SIZE;
        remove_range(&mut self.lock().pages, first..end.max(first));
    }
}

/// Splits a run of bytes at page borders: where in the buffer, which page, where in the page. Addresses wrap.
fn split(uaddr: u64, bytes: usize) -> impl Iterator<Item = (std::ops::Range<usize>, u64, usize)> {
    let mut done = 0usize;
    std::iter::from_fn(move || {
        if done >= bytes {
            return None;
        }
        let at = uaddr.wrapping_add(done as u64);
        let offset = usize::try_from(at % PAGE_SIZE).ok()?;
        let take = PAGE.saturating_sub(offset).min(bytes.saturating_sub(done));
        let chunk = done..done.saturating_add(take);
        done = chunk.end;
        Some((chunk, at / PAGE_SIZE, offset))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_make_no_page_and_content_reads_back_across_pages() {
        let memory = SparseMemory::new();
        memory.write(0x1000, &[0; 2 * PAGE]).unwrap();
        assert_eq!(memory.pages(), 0);
        memory.write(0x1ffe, b"abcd").unwrap();
        let mut got = [0xff; 6];
        memory.read(0x1ffd, &mut got).unwrap();
        assert_eq!((&got, memory.pages()), (b"\0abcd\0", 2));
        memory.write(0x1ffe, &[0; 2]).unwrap();
        memory.read(0x1ffd, &mut got).unwrap();
        assert_eq!(&got, b"\0\0\0cd\0");
    }

    #[test]
    fn a_discard_takes_whole_pages_only() {
        let memory = SparseMemory::new();
        memory.write(0, &[1; 4 * PAGE]).unwrap();
        memory.discard(1, 3 * PAGE_SIZE);
        assert_eq!(memory.pages(), 2);
        for (page, want) in [(0, 1), (1, 0), (2, 0), (3, 1)] {
            let mut byte = [9];
            memory.read(page * PAGE_SIZE, &mut byte).unwrap();
            assert_eq!(byte, [want], "page {page}");
        }
        memory.discard(0, u64::MAX);
        assert_eq!(memory.pages(), 0);
    }

    #[test]
    fn each_protection_allows_what_it_says() {
        let memory = SparseMemory::new();
        let efault = Err(Errno::EFAULT);
        for (protection, read, write) in [
            (Protection::None, efault, efault),
            (Protection::ReadOnly, Ok(()), efault),
            (Protection::ReadWrite, Ok(()), Ok(())),
        ] {
            memory.protect(0x2fff, protection);
            assert_eq!(memory.read(0x1ffe, &mut [0; 4]), read, "{protection:?}");
            assert_eq!(memory.write(0x1ffe, &[0; 4]), write, "{protection:?}");
            assert_eq!(memory.write(0x1ffe, &[0; 2]), Ok(()), "the page before");
        }
    }
}
