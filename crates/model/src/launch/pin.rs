//! Memory of the process that the processor works on.

use crate::memory::UserMemory;
use exeunt_abi::{Errno, PAGE_SIZE};

/// The most that the processor is given at once: 1 GiB.
const LIMIT_BYTES: u64 = 1 << 30;
/// `RLIMIT_MEMLOCK` of the process: 1 TiB.
const REGION_BYTES_MAX: u64 = 1 << 40;

/// Checks a range as `sev_pin_memory` does.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_pin_memory`.
///
/// # Errors
///
/// `EINVAL` for no bytes or a range that wraps, `ENOMEM` for more than the process may lock.
pub(super) fn check(uaddr: u64, len: u64) -> Result<(), Errno> {
    if len == 0 || uaddr.checked_add(len).is_none() {
        return Err(Errno::EINVAL);
    }
    if len > LIMIT_BYTES { Err(Errno::ENOMEM) } else { Ok(()) }
}

/// Copies what is at a pinned address.
///
/// # Errors
///
/// As [`check`], and `ENOMEM` where nothing is mapped.
pub(super) fn read(user: &dyn UserMemory, uaddr: u64, len: u64) -> Result<Vec<u8>, Errno> {
    check(uaddr, len)?;
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| Errno::ENOMEM)?];
    user.read(uaddr, &mut bytes).map_err(|_| Errno::ENOMEM)?;
    Ok(bytes)
}

/// Bytes up to which each page is looked at; of more, one page in 2 MiB.
const CAREFUL_BYTES: u64 = 64 << 20;

/// Checks that the processor can write the memory: a byte of a page is read and written back.
///
/// # Errors
///
/// As [`read`], or `ENOMEM` where the process may not write.
pub(super) fn check_writable(user: &dyn UserMemory, uaddr: u64, len: u64) -> Result<(), Errno> {
    if len == 0 || uaddr.checked_add(len).is_none() {
        return Err(Errno::EINVAL);
    }
    if len > REGION_BYTES_MAX {
        return Err(Errno::ENOMEM);
    }
    let step = if len <= CAREFUL_BYTES { PAGE_SIZE } else { 2 << 20 };
    let end = uaddr.saturating_add(len);
    let mut at = uaddr;
    while at < end {
        let byte = read(user, at, 1)?;
        user.write(at, &byte).map_err(|_| Errno::ENOMEM)?;
        at = (at | (step - 1)).saturating_add(1);
    }
    Ok(())
}
