//! Memory of the host that stands behind the addresses of a guest, and what gives it back.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use exeunt_abi::{Errno, PAGE_SIZE};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

use crate::error::KvmError;
use crate::mapping_unsafe::Mapping;

/// `HUGETLBFS_MAGIC`. Source: Linux v7.2 `include/uapi/linux/magic.h`.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Memory of the host. Clones are the same memory, which goes with the last of them.
///
/// The kind decides how pages are given back, because each kind takes one call only:
///
/// | kind | call |
/// |---|---|
/// | anonymous, mapped private | `madvise(MADV_DONTNEED)` |
/// | anonymous, mapped shared | `madvise(MADV_REMOVE)` |
/// | memfd, a file of tmpfs or hugetlbfs, mapped shared | `fallocate(PUNCH_HOLE \| KEEP_SIZE)` |
/// | `guest_memfd` | `fallocate(PUNCH_HOLE \| KEEP_SIZE)` |
///
/// `MADV_DONTNEED` on a shared mapping succeeds and leaves the data where it was. A file that is mapped private is
/// none of these: no call gives back what the mapping has copied together with what the file has.
#[derive(Clone, Debug)]
pub struct HostMemory {
    kind: Arc<Kind>,
}

#[derive(Debug)]
enum Kind {
    Mapped { mapping: Mapping, sharing: Sharing, page_bytes: u64 },
    File { fd: OwnedFd, bytes: u64, page_bytes: u64 },
}

/// How anonymous memory was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// `MAP_PRIVATE`.
    Private,
    /// `MAP_SHARED`.
    Shared,
}

/// The memory behind one half of a slot: from an offset on, for as long as the slot is.
#[derive(Clone, Debug)]
pub struct Half {
    pub(crate) memory: HostMemory,
    pub(crate) offset: u64,
}

impl HostMemory {
    /// Zeroed anonymous memory, mapped private.
    ///
    /// # Errors
    ///
    /// The error of `mmap`.
    pub fn anonymous(bytes: u64) -> Result<Self, KvmError> {
        let failed = |errno| KvmError::Map { bytes, errno };
        let length = usize::try_from(bytes).map_err(|_| failed(Errno::ENOMEM))?;
        let mapping = Mapping::anonymous(length).map_err(failed)?;
        Ok(Self::mapped_as(mapping, Sharing::Private, PAGE_SIZE))
    }

    pub(crate) fn mapped_as(mapping: Mapping, sharing: Sharing, page_bytes: u64) -> Self {
        Self { kind: Arc::new(Kind::Mapped { mapping, sharing, page_bytes: page_bytes.max(PAGE_SIZE) }) }
    }

    /// A zeroed memfd of this length, which it keeps.
    ///
    /// # Errors
    ///
    /// The error of `memfd_create`, `ftruncate` or `fcntl`.
    pub fn memfd(bytes: u64) -> Result<Self, KvmError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("guest memory", flags).map_err(failed("memfd_create"))?;
        rustix::fs::ftruncate(&fd, bytes).map_err(failed("ftruncate"))?;
        // A file that nobody can cut needs no handler for `SIGBUS`.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals).map_err(failed("fcntl"))?;
        Self::of_file(fd)
    }

    /// A file that somebody else made: a memfd, a `guest_memfd`, a file of tmpfs or hugetlbfs. Its descriptor is
    /// duplicated; the file keeps its length from now on, or who touches what is missing gets a `SIGBUS`.
    ///
    /// A `guest_memfd` gives its memory back when its last descriptor is closed, and the one here counts.
    ///
    /// # Errors
    ///
    /// The error of `fcntl`, `fstat` or `fstatfs`.
    pub fn file(fd: impl AsFd) -> Result<Self, KvmError> {
        Self::of_file(rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(failed("fcntl"))?)
    }

    /// A `guest_memfd` that was made with this length, which it keeps.
    pub(crate) fn guest_memfd(fd: OwnedFd, bytes: u64) -> Self {
        Self { kind: Arc::new(Kind::File { fd, bytes, page_bytes: PAGE_SIZE }) }
    }

    pub(crate) fn of_file(fd: OwnedFd) -> Result<Self, KvmError> {
        let bytes = u64::try_from(rustix::fs::fstat(&fd).map_err(failed("fstat"))?.st_size).unwrap_or(0);
        let system = rustix::fs::fstatfs(&fd).map_err(failed("fstatfs"))?;
        // The field is as wide as a register, and signed.
        let is_huge = u64::try_from(system.f_type) == Ok(HUGETLBFS_MAGIC);
        let page_bytes = if is_huge { u64::try_from(system.f_bsize).unwrap_or(PAGE_SIZE) } else { PAGE_SIZE };
        Ok(Self { kind: Arc::new(Kind::File { fd, bytes, page_bytes }) })
    }

    /// The memory from an offset on.
    #[must_use]
    pub fn at(&self, offset_bytes: u64) -> Half {
        Half { memory: self.clone(), offset: offset_bytes }
    }

    /// Gets memory for pages before anyone touches them. What they hold stays. A file allocates what it does not have
    /// (`fallocate`), a mapping is faulted in (`MADV_POPULATE_WRITE`).
    ///
    /// # Errors
    ///
    /// `EFAULT` outside of it, `EOPNOTSUPP` where the kernel cannot do so, else the error of the system call.
    pub fn populate(&self, offset_bytes: u64, bytes: u64) -> Result<(), Errno> {
        match &*self.kind {
            Kind::Mapped { mapping, .. } => {
                let offset = usize::try_from(offset_bytes).map_err(|_| Errno::EFAULT)?;
                mapping.populate(offset, usize::try_from(bytes).map_err(|_| Errno::EFAULT)?)
            }
            Kind::File { fd, .. } => {
                let end = offset_bytes.checked_add(bytes).ok_or(Errno::EFAULT)?;
                if end > self.bytes() {
                    return Err(Errno::EFAULT);
                }
                rustix::fs::fallocate(fd, FallocateFlags::KEEP_SIZE, offset_bytes, bytes)
                    .map_err(|error| Errno(error.raw_os_error()))
            }
        }
    }

    /// The length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match &*self.kind {
            Kind::Mapped { mapping, .. } => mapping.bytes() as u64,
            Kind::File { bytes, .. } => *bytes,
        }
    }

    /// The length of its pages in bytes: 4096, or that of its huge pages. Memory goes back in whole pages only.
    #[must_use]
    pub fn page_bytes(&self) -> u64 {
        match &*self.kind {
            Kind::Mapped { page_bytes, .. } | Kind::File { page_bytes, .. } => *page_bytes,
        }
    }

    /// Its descriptor, if it is a file.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &*self.kind {
            Kind::Mapped { .. } => None,
            Kind::File { fd, .. } => Some(fd.as_fd()),
        }
    }

    /// Its mapping, if it is not a file.
    pub(crate) fn mapping(&self) -> Option<&Mapping> {
        match &*self.kind {
            Kind::Mapped { mapping, .. } => Some(mapping),
            Kind::File { .. } => None,
        }
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kind, &other.kind)
    }
}

fn failed(call: &'static str) -> impl Fn(rustix::io::Errno) -> KvmError {
    move |error| KvmError::File { call, errno: Errno(error.raw_os_error()) }
}

/// One system call that gives memory back.
#[derive(Clone, Debug)]
pub(crate) struct Discard<'a> {
    memory: &'a HostMemory,
    offset: u64,
    bytes: u64,
}

impl<'a> Discard<'a> {
    /// The call for a part of a half.
    pub(crate) fn new(half: &'a Half, offset: u64, bytes: u64) -> Self {
        Self { memory: &half.memory, offset: half.offset.saturating_add(offset), bytes }
    }

    /// Its length in bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes this one call do the work of the next too, if the memory of that begins where the memory of this ends.
    pub(crate) fn takes_in(&mut self, next: &Self) -> bool {
        let is_next = self.memory.is(next.memory) && self.offset.checked_add(self.bytes) == Some(next.offset);
        if is_next {
            self.bytes = self.bytes.saturating_add(next.bytes);
        }
        is_next
    }

    /// Without the pages at both ends that it covers in part, or `None` if there is no other.
    pub(crate) fn whole_pages(self) -> Option<Self> {
        let page = self.memory.page_bytes();
        let start = self.offset.checked_next_multiple_of(page)?;
        let end = self.offset.checked_add(self.bytes)?;
        let bytes = (end - end % page).checked_sub(start).filter(|bytes| *bytes > 0)?;
        Some(Self { offset: start, bytes, ..self })
    }

    /// Makes the call.
    ///
    /// # Errors
    ///
    /// Its error number.
    pub(crate) fn make(&self) -> Result<(), Errno> {
        match &*self.memory.kind {
            Kind::File { fd, .. } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(fd, flags, self.offset, self.bytes)
                    .map_err(|error| Errno(error.raw_os_error()))
            }
            Kind::Mapped { mapping, sharing, .. } => {
                let offset = usize::try_from(self.offset).map_err(|_| Errno::EFAULT)?;
                let bytes = usize::try_from(self.bytes).map_err(|_| Errno::EFAULT)?;
                match sharing {
                    Sharing::Private => mapping.discard(offset, bytes),
                    Sharing::Shared => mapping.remove(offset, bytes),
                }
            }
        }
    }
}

impl fmt::Display for Discard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = match &*self.memory.kind {
            Kind::File { .. } => "fallocate",
            Kind::Mapped { .. } => "madvise",
        };
        write!(f, "{call} {:#x}+{:#x}", self.offset, self.bytes)
    }
}

#[cfg(test)]
impl HostMemory {
    /// A file that is taken for one of huge pages: enough to see which calls are made.
    pub(crate) fn as_if_huge(bytes: u64, page_bytes: u64) -> Self {
        let fd = rustix::fs::memfd_create("huge", MemfdFlags::CLOEXEC).unwrap();
        Self { kind: Arc::new(Kind::File { fd, bytes, page_bytes }) }
    }
}

#[cfg(test)]
mod tests;
