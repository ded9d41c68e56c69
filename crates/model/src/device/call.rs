//! One ioctl: its request, its argument, and the memory of the process that makes it.

use super::Device;
use crate::memory::UserMemory;
use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl::Ioctl;
use std::mem::size_of;
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// One ioctl on its way.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) device: &'a Device,
    pub(super) fd: i32,
    pub(super) request: Ioctl,
    pub(super) arg: u64,
    pub(super) user: &'a Arc<dyn UserMemory>,
}

impl Call<'_> {
    /// `copy_from_user` of the argument.
    pub(super) fn get<T: FromBytes + IntoBytes>(&self) -> Result<T, Errno> {
        self.get_at(self.arg)
    }

    /// `copy_from_user`.
    pub(super) fn get_at<T: FromBytes + IntoBytes>(&self, uaddr: u64) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.user.read(uaddr, value.as_mut_bytes())?;
        Ok(value)
    }

    /// `copy_to_user` to the argument.
    pub(super) fn put<T: IntoBytes + Immutable>(&self, value: &T) -> Result<(), Errno> {
        self.put_at(self.arg, value)
    }

    /// `copy_to_user`.
    pub(super) fn put_at<T: IntoBytes + Immutable + ?Sized>(
        &self,
        uaddr: u64,
        value: &T,
    ) -> Result<(), Errno> {
        self.user.write(uaddr, value.as_bytes())
    }

    /// `copy_from_user` of the array behind the argument's header. The caller has bounded `count`.
    pub(super) fn get_array<T: FromBytes + IntoBytes + Clone>(
        &self,
        header_bytes: usize,
        count: u32,
    ) -> Result<Vec<T>, Errno> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut bytes = vec![0; count.saturating_mul(size_of::<T>())];
        self.user.read(self.behind(header_bytes), &mut bytes)?;
        let chunks = bytes.chunks_exact(size_of::<T>().max(1));
        Ok(chunks.filter_map(|chunk| T::read_from_bytes(chunk).ok()).collect())
    }

    /// `copy_to_user` of the array behind the argument's header.
    pub(super) fn put_array<T: IntoBytes + Immutable>(
        &self,
        header_bytes: usize,
        entries: &[T],
    ) -> Result<(), Errno> {
        self.put_at(self.behind(header_bytes), entries)
    }

    fn behind(&self, header_bytes: usize) -> u64 {
        self.arg.wrapping_add(header_bytes as u64)
    }

    /// The argument as the kernel's `unsigned int`.
    pub(super) const fn arg_u32(&self) -> u32 {
        (self.arg & 0xffff_ffff) as u32
    }
}
