//! Descriptors of `guest_memfd` files, and the file operations that they take.

use super::table::File;
use super::{Device, Stat};
use crate::memory::GuestMemfd;
use crate::vm::Vm;
use exeunt_abi::{Errno, PAGE_SIZE};

/// A `guest_memfd`. It pins its VM, and its pages are freed with its last descriptor.
#[derive(Debug)]
pub(super) struct GmemFile {
    pub(super) vm: Vm,
    pub(super) file: GuestMemfd,
}

impl Drop for GmemFile {
    fn drop(&mut self) {
        self.vm.close_guest_memfd(self.file);
    }
}

impl Device {
    /// `fallocate`.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open, `ENODEV` for another file, else as for [`Vm::fallocate`].
    pub fn fallocate(&self, fd: i32, mode: u32, offset: i64, bytes: i64) -> Result<(), Errno> {
        match self.table.get(fd)? {
            File::Gmem(gmem) => gmem.vm.fallocate(gmem.file, mode, offset, bytes),
            _ => Err(Errno::ENODEV),
        }
    }

    /// `ftruncate`: the size of a `guest_memfd` is fixed, and the other files have none.
    ///
    /// # Errors
    ///
    /// Always: `EBADF` for a number that is not open, else `EINVAL`.
    pub fn ftruncate(&self, fd: i32, _: i64) -> Result<(), Errno> {
        self.table.get(fd)?;
        Err(Errno::EINVAL)
    }

    /// `fstat`.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open.
    pub fn fstat(&self, fd: i32) -> Result<Stat, Errno> {
        match self.table.get(fd)? {
            File::Gmem(gmem) => {
                let pages = gmem.vm.present_pages(gmem.file) as u64;
                let size = gmem.vm.guest_memfd_bytes(gmem.file).unwrap_or(0);
                Ok(Stat { size, blocks: pages.saturating_mul(PAGE_SIZE / 512) })
            }
            _ => Ok(Stat::default()),
        }
    }
}
