//! System calls about another process: its memory, its threads, its descriptors.

use exeunt_abi::Errno;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Copies from the memory of a process. A part is copied, or nothing: `EFAULT`.
///
/// # Errors
///
/// `EFAULT` where not all of it is mapped for reading; `ESRCH` or `EPERM` if the process is gone or of somebody else.
pub(super) fn read(pid: i32, address: u64, to: &mut [u8]) -> Result<(), Errno> {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = foreign(address, to.len())?;
    // SAFETY: The kernel writes into `local`, which is as long as `to` and borrowed from it. `remote` is of the other
    // process, and the kernel checks it there.
    let copied = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    whole(copied, to.len())
}

/// Copies to the memory of a process.
///
/// # Errors
///
/// As [`read`], for writing.
pub(super) fn write(pid: i32, address: u64, from: &[u8]) -> Result<(), Errno> {
    let local = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let remote = foreign(address, from.len())?;
    // SAFETY: The kernel only reads `local`, which is as long as `from` and borrowed from it. `remote` is of the other
    // process, and the kernel checks it there.
    let copied = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    whole(copied, from.len())
}

fn foreign(address: u64, bytes: usize) -> Result<libc::iovec, Errno> {
    let address = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
    Ok(libc::iovec { iov_base: std::ptr::without_provenance_mut::<c_void>(address), iov_len: bytes })
}

fn whole(copied: isize, bytes: usize) -> Result<(), Errno> {
    match usize::try_from(copied) {
        Ok(copied) if copied == bytes => Ok(()),
        Ok(_) => Err(Errno::EFAULT),
        Err(_) => Err(last_errno()),
    }
}

/// Whether a thread is one of this process.
pub(super) fn is_thread_of(process: i32, thread: i32) -> bool {
    // SAFETY: The call takes numbers. Signal 0 is none, and only says whether there is somebody to get it.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, 0) };
    result == 0 || last_errno() == Errno::EPERM
}

/// Whether a number of another process is the file of a descriptor of ours. `None` where the kernel cannot compare.
pub(super) fn is_same_file(ours: BorrowedFd<'_>, pid: i32, theirs: i32) -> Option<bool> {
    /// `KCMP_FILE`. Source: Linux v7.2 `include/uapi/linux/kcmp.h`.
    const KCMP_FILE: libc::c_long = 0;
    let own = std::process::id();
    // SAFETY: The call takes numbers and no pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            libc::c_long::from(own),
            libc::c_long::from(pid),
            KCMP_FILE,
            libc::c_long::from(ours.as_raw_fd()),
            libc::c_long::from(theirs),
        )
    };
    match result {
        0 => Some(true),
        1..=3 => Some(false),
        // The number is not open there.
        _ if last_errno() == Errno::EBADF => Some(false),
        _ => None,
    }
}

/// `fallocate` on a copy of somebody's descriptor.
pub(super) fn fallocate(file: &OwnedFd, mode: i32, offset: i64, bytes: i64) -> Result<(), Errno> {
    // SAFETY: The call takes numbers and no pointer.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, bytes) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// `KVM_CHECK_EXTENSION` on `/dev/kvm`.
pub(super) fn check_extension(system: &OwnedFd, cap: u64) -> Result<u32, Errno> {
    let request = libc::Ioctl::from(exeunt_abi::kvm::ioctl::KVM_CHECK_EXTENSION.0);
    // SAFETY: The request takes a number and no pointer.
    let result = unsafe { libc::ioctl(system.as_raw_fd(), request, cap) };
    u32::try_from(result).map_err(|_| last_errno())
}

fn last_errno() -> Errno {
    Errno(io::Error::last_os_error().raw_os_error().unwrap_or_default())
}
