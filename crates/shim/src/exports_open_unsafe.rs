//! The calls of the C library that open files.

use crate::calls;
use crate::exports_unsafe::{real, returned_int, word};
use std::ffi::{c_char, c_int};

fn open_at(directory: c_int, path: *const c_char, flags: c_int, mode: u32) -> c_int {
    let arguments = [word(directory), path.addr(), word(flags), mode as usize, 0, 0];
    returned_int(calls::open(path.addr(), flags, || real(libc::SYS_openat, arguments)))
}

/// `open`.
///
/// # Safety
///
/// As `open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: u32) -> c_int {
    open_at(libc::AT_FDCWD, path, flags, mode)
}

/// `open` with offsets of 64 bits, which all have here.
///
/// # Safety
///
/// As `open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: u32) -> c_int {
    open_at(libc::AT_FDCWD, path, flags, mode)
}

/// `openat`.
///
/// # Safety
///
/// As `openat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: u32) -> c_int {
    open_at(directory, path, flags, mode)
}

/// `openat` with offsets of 64 bits, which all have here.
///
/// # Safety
///
/// As `openat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(directory: c_int, path: *const c_char, flags: c_int, mode: u32) -> c_int {
    open_at(directory, path, flags, mode)
}

/// What the compiler makes of `open` without a mode under `_FORTIFY_SOURCE`.
///
/// # Safety
///
/// As `open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __open_2(path: *const c_char, flags: c_int) -> c_int {
    open_at(libc::AT_FDCWD, path, flags, 0)
}

/// As [`__open_2`], of `open64`.
///
/// # Safety
///
/// As `open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    open_at(libc::AT_FDCWD, path, flags, 0)
}

/// As [`__open_2`], of `openat`.
///
/// # Safety
///
/// As `openat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __openat_2(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    open_at(directory, path, flags, 0)
}

/// As [`__open_2`], of `openat64`.
///
/// # Safety
///
/// As `openat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __openat64_2(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    open_at(directory, path, flags, 0)
}
