//! Structs of the VMM's process.

use crate::memory::UserMemory;
use exeunt_abi::Errno;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// `copy_from_user` of a struct.
pub(super) fn copy_in<T: FromBytes + IntoBytes>(memory: &dyn UserMemory, from: u64) -> Result<T, Errno> {
    let mut value = T::new_zeroed();
    memory.read(from, value.as_mut_bytes())?;
    Ok(value)
}

/// `copy_from_user` of an array behind a struct. The caller has bounded `count`.
pub(super) fn copy_in_array<T: FromBytes + IntoBytes + FromZeros>(
    memory: &dyn UserMemory,
    from: u64,
    count: u32,
) -> Result<Vec<T>, Errno> {
    let mut values: Vec<T> = (0..count).map(|_| T::new_zeroed()).collect();
    memory.read(from, values.as_mut_slice().as_mut_bytes())?;
    Ok(values)
}

/// `copy_to_user`.
pub(super) fn copy_out<T: IntoBytes + Immutable + ?Sized>(
    memory: &dyn UserMemory,
    to: u64,
    value: &T,
) -> Result<(), Errno> {
    memory.write(to, value.as_bytes())
}

/// The address behind a struct, or `EFAULT` where there is none.
pub(super) fn behind<T>(start: u64) -> Result<u64, Errno> {
    start.checked_add(size_of::<T>() as u64).ok_or(Errno::EFAULT)
}
