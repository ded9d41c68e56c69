//! The calls of the C library that look at files, for devices that are not there or not for everyone.

use crate::calls;
use crate::exports_unsafe::{real, returned_int, word};
use std::ffi::{c_char, c_int, c_uint};

/// `access`.
///
/// # Safety
///
/// As `access`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn access(path: *const c_char, mode: c_int) -> c_int {
    if calls::stood_in_for(path.addr()).is_some() && mode & libc::X_OK == 0 {
        return 0;
    }
    returned_int(real(libc::SYS_access, [path.addr(), word(mode), 0, 0, 0, 0]))
}

/// `faccessat`.
///
/// # Safety
///
/// As `faccessat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn faccessat(
    directory: c_int,
    path: *const c_char,
    mode: c_int,
    flags: c_int,
) -> c_int {
    if calls::stood_in_for(path.addr()).is_some() && mode & libc::X_OK == 0 {
        return 0;
    }
    let (directory, mode) = (word(directory), word(mode));
    let arguments = [directory, path.addr(), mode, word(flags), 0, 0];
    // Without flags any kernel does.
    let number = if flags == 0 { libc::SYS_faccessat } else { libc::SYS_faccessat2 };
    returned_int(real(number, arguments))
}

/// The minor number of KVM among the devices with major number 10, and one for the secure processor.
const MINORS: [(&[u8], c_uint); 2] = [(b"/dev/kvm", 232), (b"/dev/sev", 124)];
const MISC_MAJOR: c_uint = 10;

fn look(directory: c_int, path: *const c_char, to: *mut libc::stat, flags: c_int) -> c_int {
    let device = calls::stood_in_for(path.addr());
    let minor = MINORS.into_iter().find(|(name, _)| Some(*name) == device).map(|(_, minor)| minor);
    let Some(minor) = minor.filter(|_| !to.is_null()) else {
        let arguments = [word(directory), path.addr(), to.addr(), word(flags), 0, 0];
        return returned_int(real(libc::SYS_newfstatat, arguments));
    };
    // SAFETY: The struct is numbers.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    stat.st_mode = libc::S_IFCHR | 0o666;
    stat.st_nlink = 1;
    stat.st_ino = u64::from(minor);
    stat.st_blksize = 4096;
    stat.st_rdev = libc::makedev(MISC_MAJOR, minor);
    // SAFETY: The caller hands over room for a struct.
    unsafe { to.write(stat) };
    0
}

/// `stat`.
///
/// # Safety
///
/// As `stat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stat(path: *const c_char, to: *mut libc::stat) -> c_int {
    look(libc::AT_FDCWD, path, to, 0)
}

/// `stat` with offsets of 64 bits, which all have here.
///
/// # Safety
///
/// As `stat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stat64(path: *const c_char, to: *mut libc::stat) -> c_int {
    look(libc::AT_FDCWD, path, to, 0)
}

/// `lstat`.
///
/// # Safety
///
/// As `lstat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lstat(path: *const c_char, to: *mut libc::stat) -> c_int {
    look(libc::AT_FDCWD, path, to, libc::AT_SYMLINK_NOFOLLOW)
}

/// `lstat` with offsets of 64 bits, which all have here.
///
/// # Safety
///
/// As `lstat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lstat64(path: *const c_char, to: *mut libc::stat) -> c_int {
    look(libc::AT_FDCWD, path, to, libc::AT_SYMLINK_NOFOLLOW)
}

/// `fstatat`.
///
/// # Safety
///
/// As `fstatat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fstatat(
    directory: c_int,
    path: *const c_char,
    to: *mut libc::stat,
    flags: c_int,
) -> c_int {
    look(directory, path, to, flags)
}

/// `fstatat` with offsets of 64 bits, which all have here.
///
/// # Safety
///
/// As `fstatat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fstatat64(
    directory: c_int,
    path: *const c_char,
    to: *mut libc::stat,
    flags: c_int,
) -> c_int {
    look(directory, path, to, flags)
}

/// What programs call that were built with an old C library.
///
/// # Safety
///
/// As `stat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __xstat(_version: c_int, path: *const c_char, to: *mut libc::stat) -> c_int {
    look(libc::AT_FDCWD, path, to, 0)
}

/// As [`__xstat`], of `stat64`.
///
/// # Safety
///
/// As `stat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __xstat64(_version: c_int, path: *const c_char, to: *mut libc::stat) -> c_int {
    look(libc::AT_FDCWD, path, to, 0)
}

/// `statx`, which the standard library of Rust calls.
///
/// # Safety
///
/// As `statx`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn statx(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    to: *mut libc::statx,
) -> c_int {
    let device = calls::stood_in_for(path.addr());
    let minor = MINORS.into_iter().find(|(name, _)| Some(*name) == device).map(|(_, minor)| minor);
    let Some(minor) = minor.filter(|_| !to.is_null()) else {
        let arguments = [word(directory), path.addr(), word(flags), mask as usize, to.addr(), 0];
        return returned_int(real(libc::SYS_statx, arguments));
    };
    // SAFETY: The struct is numbers.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    stat.stx_mask = libc::STATX_BASIC_STATS;
    stat.stx_mode = u16::try_from(libc::S_IFCHR | 0o666).unwrap_or(0);
    stat.stx_nlink = 1;
    stat.stx_ino = u64::from(minor);
    stat.stx_blksize = 4096;
    (stat.stx_rdev_major, stat.stx_rdev_minor) = (MISC_MAJOR, minor);
    // SAFETY: The caller hands over room for a struct.
    unsafe { to.write(stat) };
    0
}
