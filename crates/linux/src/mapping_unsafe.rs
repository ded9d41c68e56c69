//! Mapped memory that a guest, the kernel and other threads write at the same time. It is copied in and out and never
//! borrowed.

use std::arch::asm;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU8;

use exeunt_abi::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

/// A mapping of at least one byte, and so of at least one page.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    /// The bytes from the start on that may be touched.
    usable: usize,
    /// Somebody else made it and unmaps it.
    is_foreign: bool,
}

// SAFETY: The mapping belongs to the process and not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: No method hands out a reference to plain bytes, and every access of a method is a copy by `copy_bytes`, which
// may race with any other, or an atomic of one byte. So any number of threads may copy at the same time, and none of
// them needs a lock. The guest and the kernel are not part of the program, and any bytes that they leave are as good.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps zeroed memory for a guest. Pages get memory when they are touched first.
    ///
    /// # Errors
    ///
    /// The error of `mmap`; `EINVAL` for no bytes.
    pub(crate) fn anonymous(bytes: usize) -> Result<Self, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: Without MAP_FIXED the mapping lies where nothing is.
        let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), bytes, access, flags) };
        Self::from_mapped(start, bytes)
    }

    /// Maps a part of a file, shared with all who map or write it.
    ///
    /// # Errors
    ///
    /// The error of `mmap`; `EINVAL` for no bytes.
    pub(crate) fn of_file(fd: BorrowedFd<'_>, offset: u64, bytes: usize) -> Result<Self, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: Without MAP_FIXED the mapping lies where nothing is. Others may write the file, and no reference to
        // its bytes is ever made.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), bytes, access, flags, fd, offset) };
        Self::from_mapped(start, bytes)
    }

    /// Takes memory that somebody else mapped, without owning it.
    ///
    /// # Safety
    ///
    /// The `bytes` bytes from `start` on, whole pages, stay mapped for reading and writing for as long as this lives,
    /// and no Rust reference to any of them exists meanwhile.
    pub(crate) unsafe fn foreign(start: NonNull<u8>, bytes: usize) -> Self {
        Self { start, bytes, usable: bytes, is_foreign: true }
    }

    /// Maps zeroed memory for a guest, the last `hole` bytes of it so that nobody may touch them: the kernel half finds
    /// a fault there, and this type reaches no byte of it.
    ///
    /// # Errors
    ///
    /// The error of `mmap` or `mprotect`; `EINVAL` for no bytes or a hole that is larger.
    pub(crate) fn with_hole(bytes: usize, hole: usize) -> Result<Self, Errno> {
        let mut mapping = Self::anonymous(bytes)?;
        mapping.usable = bytes.checked_sub(hole).ok_or(Errno::EINVAL)?;
        // SAFETY: The start of the hole is inside the mapping or at its end.
        let start = unsafe { mapping.start.as_ptr().add(mapping.usable) };
        // SAFETY: The pages are this mapping's own, and nothing has borrowed or copied them yet.
        let forbidden = unsafe { rustix::mm::mprotect(start.cast(), hole, MprotectFlags::empty()) };
        forbidden.map_err(|error| Errno(error.raw_os_error()))?;
        Ok(mapping)
    }

    /// Maps the run area of a vCPU.
    ///
    /// # Errors
    ///
    /// The error of `mmap`; `EINVAL` for no bytes.
    pub(crate) fn of_vcpu(vcpu: &kvm_ioctls::VcpuFd, bytes: usize) -> Result<Self, Errno> {
        // SAFETY: The descriptor is open for as long as `vcpu` is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: Without MAP_FIXED the mapping lies where nothing is.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, fd, 0) };
        Self::from_mapped(start, bytes)
    }

    fn from_mapped(start: rustix::io::Result<*mut libc::c_void>, bytes: usize) -> Result<Self, Errno> {
        let start = start.map_err(|error| Errno(error.raw_os_error()))?;
        Ok(Self {
            start: NonNull::new(start.cast()).ok_or(Errno::ENOMEM)?,
            bytes,
            usable: bytes,
            is_foreign: false,
        })
    }

    /// The length in bytes, with a hole.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address in this process.
    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr().addr() as u64
    }

    /// Copies bytes out.
    ///
    /// # Errors
    ///
    /// `EFAULT` if they are not all inside, and then nothing is copied.
    pub(crate) fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), Errno> {
        let from = self.inside(offset, to.len())?;
        // SAFETY: `from` has `to.len()` bytes inside the mapping, and `to` is owned by the caller and is not part of a
        // mapping, to which no reference exists.
        unsafe { copy_bytes(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// `EFAULT` if they do not all fit, and then nothing is copied.
    pub(crate) fn write(&self, offset: usize, from: &[u8]) -> Result<(), Errno> {
        let to = self.inside(offset, from.len())?;
        // SAFETY: `to` has room for `from.len()` bytes inside the mapping, and `from` is not part of a mapping, to
        // which no reference exists.
        unsafe { copy_bytes(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    /// Gives the memory of whole pages back: they read as zero afterwards. For private anonymous mappings.
    ///
    /// # Errors
    ///
    /// `EFAULT` if they are not all inside, else the error of `madvise`.
    pub(crate) fn discard(&self, offset: usize, bytes: usize) -> Result<(), Errno> {
        self.advise(offset, bytes, Advice::LinuxDontNeed)
    }

    /// As [`Mapping::discard`], for mappings that are shared: the memory that all of them see is gone.
    ///
    /// # Errors
    ///
    /// As for [`Mapping::discard`].
    pub(crate) fn remove(&self, offset: usize, bytes: usize) -> Result<(), Errno> {
        self.advise(offset, bytes, Advice::LinuxRemove)
    }

    /// Gets memory for whole pages, without a change of what they hold.
    ///
    /// # Errors
    ///
    /// As for [`Mapping::discard`]; `EOPNOTSUPP` before Linux 5.14.
    pub(crate) fn populate(&self, offset: usize, bytes: usize) -> Result<(), Errno> {
        match self.advise(offset, bytes, Advice::LinuxPopulateWrite) {
            // What a kernel says to an advice that it does not know.
            Err(Errno::EINVAL) => Err(Errno::EOPNOTSUPP),
            done => done,
        }
    }

    fn advise(&self, offset: usize, bytes: usize, advice: Advice) -> Result<(), Errno> {
        let start = self.inside(offset, bytes)?;
        // SAFETY: The pages are inside the mapping, which nobody borrows. They stay mapped, and all that an advice of
        // the callers above can change is that they read as zero.
        let result = unsafe { rustix::mm::madvise(start.cast(), bytes, advice) };
        result.map_err(|error| Errno(error.raw_os_error()))
    }

    /// A byte of the first page, to be shared with other threads and with the kernel.
    pub(crate) fn atomic(&self, offset: u8) -> &AtomicU8 {
        // SAFETY: The first page is mapped as a whole, and it is larger than any `u8`.
        let byte = unsafe { self.start.as_ptr().add(offset.into()) };
        // SAFETY: The byte is mapped for as long as `self` lives, and every thread that touches it while others may
        // does so through this function.
        unsafe { AtomicU8::from_ptr(byte) }
    }

    fn inside(&self, offset: usize, bytes: usize) -> Result<*mut u8, Errno> {
        match offset.checked_add(bytes) {
            // SAFETY: The offset is at most the length of the mapping.
            Some(end) if end <= self.usable => Ok(unsafe { self.start.as_ptr().add(offset) }),
            _ => Err(Errno::EFAULT),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.is_foreign {
            return;
        }
        // SAFETY: The mapping was made by this type with this length, and nobody has a pointer into it any more: a
        // byte that was handed out borrowed `self`, and a VM that maps it is gone before (see `Machine`).
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of a mapping of our own: {unmapped:?}");
    }
}

/// Copies bytes that any other thread, the kernel or a guest may read or write at the same time.
///
/// It does what a loop of relaxed atomic loads and stores of single bytes would do, which may race; the language has no
/// such loop that is fast. What a racing copy sees is old or new, byte by byte.
///
/// 8 bytes are one load and one store, so that whoever watches a word on its border sees it change at once. The
/// instruction for all other lengths does not promise that, and it may store its own bytes in any order.
///
/// Source: Intel SDM, volume 3A, "Guaranteed Atomic Operations" and "Fast-String Operation and Out-of-Order Stores".
///
/// # Safety
///
/// `bytes` bytes can be read at `from` and written at `to`, and the two ranges share no byte.
unsafe fn copy_bytes(from: *const u8, to: *mut u8, bytes: usize) {
    if bytes == 8 {
        // SAFETY: The instructions read and write the 8 bytes that the caller promises, and nothing else; neither
        // needs them to be aligned.
        unsafe {
            asm!(
                "mov {word}, qword ptr [{from}]",
                "mov qword ptr [{to}], {word}",
                word = out(reg) _,
                from = in(reg) from,
                to = in(reg) to,
                options(nostack, preserves_flags),
            );
        }
        return;
    }
    // SAFETY: The instruction reads and writes the ranges that the caller promises, and nothing else; the direction
    // flag is clear wherever assembly begins.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") bytes => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_back_and_none_outside_are_reached() {
        let mapping = Mapping::anonymous(0x2000).unwrap();
        mapping.write(0x1ffe, &[1, 2]).unwrap();
        let mut bytes = [9; 4];
        mapping.read(0x1ffc, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0, 1, 2]);
        for (offset, len) in [(0x1ffd, 4), (0x2000, 1), (usize::MAX, 1), (usize::MAX, 0), (0x2001, 0)] {
            assert_eq!(mapping.read(offset, &mut bytes[..len]), Err(Errno::EFAULT), "{offset:#x}");
            assert_eq!(mapping.write(offset, &bytes[..len]), Err(Errno::EFAULT), "{offset:#x}");
            assert_eq!(mapping.discard(offset, len), Err(Errno::EFAULT), "{offset:#x}");
        }
        assert_eq!(mapping.read(0x2000, &mut []), Ok(()));
    }

    #[test]
    fn a_discarded_page_reads_as_zero_and_its_neighbour_stays() {
        let mapping = Mapping::anonymous(0x2000).unwrap();
        mapping.write(0xfff, &[1, 2]).unwrap();
        mapping.discard(0x1000, 0x1000).unwrap();
        let mut bytes = [9; 2];
        mapping.read(0xfff, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 0]);
    }

    #[test]
    fn a_hole_is_not_reached() {
        let mapping = Mapping::with_hole(0x3000, 0x1000).unwrap();
        assert_eq!(mapping.write(0x1fff, &[1]), Ok(()));
        assert_eq!(mapping.write(0x2000, &[1]), Err(Errno::EFAULT));
        assert_eq!(mapping.bytes(), 0x3000);
        assert_eq!(Mapping::with_hole(0x1000, 0x2000).unwrap_err(), Errno::EINVAL);
    }

    #[test]
    fn threads_that_copy_the_same_bytes_see_old_or_new_ones() {
        let mapping = Mapping::anonymous(0x1000).unwrap();
        std::thread::scope(|scope| {
            for byte in [1, 2] {
                let mapping = &mapping;
                scope.spawn(move || (0..2000).for_each(|_| mapping.write(5, &[byte; 777]).unwrap()));
            }
            let mut bytes = [0; 0x1000];
            for _ in 0..2000 {
                mapping.read(0, &mut bytes).unwrap();
                assert!(bytes[5..782].iter().all(|byte| *byte < 3));
                assert!(bytes[..5].iter().chain(&bytes[782..]).all(|byte| *byte == 0));
            }
        });
    }

    // Of a `rep movsb` it holds on processors with fast short copies, and on no other.
    #[test]
    fn a_word_on_its_border_is_copied_at_once() {
        let mapping = Mapping::anonymous(0x1000).unwrap();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for word in [0, u64::MAX].into_iter().cycle().take(1_000_000) {
                    mapping.write(0x18, &word.to_ne_bytes()).unwrap();
                }
                is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let mut bytes = [1; 8];
                mapping.read(0x18, &mut bytes).unwrap();
                assert!([[0; 8], [0xff; 8]].contains(&bytes), "{bytes:x?}");
            }
        });
    }

    #[test]
    fn populated_pages_keep_what_they_hold() {
        let mapping = Mapping::anonymous(0x2000).unwrap();
        mapping.write(0, &[7]).unwrap();
        match mapping.populate(0, 0x2000) {
            Ok(()) => {}
            Err(errno) => return crate::print_skip("MADV_POPULATE_WRITE", errno),
        }
        let mut byte = [0];
        mapping.read(0, &mut byte).unwrap();
        assert_eq!(byte, [7]);
        assert_eq!(mapping.populate(0x1000, 0x2000), Err(Errno::EFAULT));
    }

    #[test]
    fn an_empty_mapping_is_refused() {
        assert_eq!(Mapping::anonymous(0).unwrap_err(), Errno::EINVAL);
    }
}
