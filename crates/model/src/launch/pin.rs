//! Memory of the process that the processor works on.

use crate::memory::UserMemory;
use exeunt_abi::Errno;

/// `RLIMIT_MEMLOCK`, above which nothing is pinned: as much as the model keeps in one buffer.
const LIMIT_BYTES: u64 = 1 << 30;

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

/// As [`read`], of memory that the processor is going to write.
pub(super) fn read_writable(user: &dyn UserMemory, uaddr: u64, len: u64) -> Result<Vec<u8>, Errno> {
    let bytes = read(user, uaddr, len)?;
    user.write(uaddr, &bytes).map_err(|_| Errno::ENOMEM)?;
    Ok(bytes)
}
