//! Memory that other processes, threads and the kernel write at the same time, as words that are loaded and stored one
//! by one and never borrowed.

use exeunt_abi::Errno;
use exeunt_abi::kvm::run::RunPage;
use exeunt_model::device::LivePages;
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use zerocopy::{FromZeros, IntoBytes};

/// A file that is mapped and shared.
#[derive(Debug)]
pub struct Shared {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: The mapping belongs to the process and not to a thread.
unsafe impl Send for Shared {}
// SAFETY: All that a shared reference gives away are atomics, which any number of threads may use at the same time.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps the first bytes of a file, rounded down to whole words. The file has to be that long.
    ///
    /// # Errors
    ///
    /// The error of `mmap`; `EINVAL` for no bytes.
    pub fn map(fd: BorrowedFd<'_>, bytes: usize) -> Result<Self, Errno> {
        let bytes = bytes & !7;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: Without MAP_FIXED the mapping lies where nothing is, and no reference to its plain bytes is made.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, fd, 0) };
        let start = start.map_err(|error| Errno(error.raw_os_error()))?;
        Ok(Self { start: NonNull::new(start.cast()).ok_or(Errno::ENOMEM)?, bytes })
    }

    /// All of it, word by word.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: The mapping is that long, starts at a page, stays for as long as `self` lives, and any bytes are a
        // word. Who else writes it does so through a mapping of its own.
        unsafe { slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / 8) }
    }

    /// All of it, byte by byte.
    #[must_use]
    pub fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: As for the words; a byte needs no alignment.
        unsafe { slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes) }
    }

    /// Copies bytes out, whole words at once where they lie on their border. What is outside leaves the buffer as it
    /// was.
    #[inline]
    pub fn load(&self, offset: usize, to: &mut [u8]) {
        let words = if offset % 8 == 0 { self.words().get(offset / 8..) } else { None };
        let mut chunks = to.chunks_exact_mut(8);
        let mut done = offset;
        for (to, word) in chunks.by_ref().zip(words.unwrap_or_default()) {
            to.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
            done = done.saturating_add(8);
        }
        let skip = done.saturating_sub(offset);
        let rest = self.bytes().get(done..).unwrap_or_default();
        for (to, byte) in to.get_mut(skip..).unwrap_or_default().iter_mut().zip(rest) {
            *to = byte.load(Ordering::Relaxed);
        }
    }

    /// Copies bytes in, whole words at once where they lie on their border. What is outside is dropped.
    #[inline]
    pub fn store(&self, offset: usize, from: &[u8]) {
        let words = if offset % 8 == 0 { self.words().get(offset / 8..) } else { None };
        let mut done = offset;
        for (from, word) in from.chunks_exact(8).zip(words.unwrap_or_default()) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(from);
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
            done = done.saturating_add(8);
        }
        let skip = done.saturating_sub(offset);
        let rest = self.bytes().get(done..).unwrap_or_default();
        for (from, byte) in from.get(skip..).unwrap_or_default().iter().zip(rest) {
            byte.store(*from, Ordering::Relaxed);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: The mapping was made by this type with this length, and what was borrowed from it borrowed `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of a mapping of our own: {unmapped:?}");
    }
}

/// Bytes of a vCPU's mapping on x86: the run page, the port page, the ring of gathered writes.
pub const VCPU_BYTES: usize = 3 * 4096;
/// What `immediate_exit` is while the interposer holds a vCPU.
const HELD: u8 = 2;
/// What the VMM writes at the head of the run page, by signal handlers and other threads too.
const USER_BYTES: usize = 8;

/// The pages of a vCPU, which the VMM has mapped, too.
#[derive(Debug)]
pub struct VcpuPages(Shared);

impl VcpuPages {
    /// Maps the pages of a vCPU: its descriptor, or the file that stands in for it.
    ///
    /// # Errors
    ///
    /// As [`Shared::map`].
    pub fn map(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        Shared::map(fd, VCPU_BYTES).map(Self)
    }

    /// A copy of the head of the run page.
    #[must_use]
    #[inline]
    pub fn run(&self) -> RunPage {
        let mut page = RunPage::new_zeroed();
        self.0.load(0, page.as_mut_bytes());
        page
    }

    /// Writes the head of the run page, without the bytes that are the VMM's own.
    #[inline]
    pub fn set_run(&self, page: &RunPage) {
        self.0.store(USER_BYTES, page.as_bytes().get(USER_BYTES..).unwrap_or_default());
    }

    /// Sets `immediate_exit` to a value that no VMM writes. `false` if it is set already.
    ///
    /// To the kernel it is a byte that is zero or not: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vcpu_ioctl`.
    #[must_use]
    pub fn hold(&self) -> bool {
        self.exchange(0, HELD)
    }

    /// Takes it back. What the VMM has written there since stays.
    pub fn release(&self) {
        self.exchange(HELD, 0);
    }

    fn exchange(&self, from: u8, to: u8) -> bool {
        let byte = self.0.bytes().get(1);
        byte.is_some_and(|byte| byte.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    /// `immediate_exit` as it is now.
    #[must_use]
    #[inline]
    pub fn immediate_exit(&self) -> bool {
        self.0.bytes().get(1).is_some_and(|byte| byte.load(Ordering::Relaxed) != 0)
    }
}

impl LivePages for VcpuPages {
    #[inline]
    fn load(&self, offset: usize, to: &mut [u8]) {
        self.0.load(offset, to);
    }

    #[inline]
    fn store(&self, offset: usize, from: &[u8]) {
        self.0.store(offset, from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::os::fd::AsFd;

    fn shared(bytes: usize) -> (Shared, Shared) {
        let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, bytes as u64).unwrap();
        (Shared::map(file.as_fd(), bytes).unwrap(), Shared::map(file.as_fd(), bytes).unwrap())
    }

    #[test]
    fn every_offset_and_length_reads_back_through_the_other_mapping() {
        let (one, other) = shared(4096);
        let from: Vec<u8> = (1..=40).collect();
        for offset in [0, 1, 7, 8, 9, 4056] {
            for length in 0..=40 {
                one.store(0, &[0; 4096]);
                one.store(offset, &from[..length]);
                let mut to = vec![0xff; 4096];
                other.load(0, &mut to);
                assert_eq!(&to[offset..offset + length], &from[..length], "{offset} {length}");
                assert_eq!(to.iter().filter(|byte| **byte != 0).count(), length, "{offset} {length}");
                let mut part = vec![0; length];
                other.load(offset, &mut part);
                assert_eq!(part, &from[..length], "{offset} {length}");
            }
        }
    }

    #[test]
    fn what_is_outside_is_neither_read_nor_written() {
        let (one, _) = shared(4096);
        one.store(4092, &[1; 16]);
        let mut to = [9; 16];
        one.load(4092, &mut to);
        assert_eq!(to, [1, 1, 1, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        for offset in [4096, 4104, usize::MAX, usize::MAX & !7] {
            one.store(offset, &[1; 16]);
            let mut to = [9; 16];
            one.load(offset, &mut to);
            assert_eq!(to, [9; 16], "{offset:#x}");
        }
    }

    #[test]
    fn the_head_of_the_run_page_is_the_vmms_own() {
        let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, VCPU_BYTES as u64).unwrap();
        let pages = VcpuPages::map(file.as_fd()).unwrap();
        let mut page = RunPage::new_zeroed();
        page.as_mut_bytes().fill(7);
        pages.set_run(&page);
        assert!(!pages.immediate_exit());
        page.user = [0; 8];
        assert_eq!(pages.run(), page);
        pages.store(1, &[1]);
        assert!(pages.immediate_exit());
    }
}
