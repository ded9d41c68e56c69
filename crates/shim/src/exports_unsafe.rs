//! The calls of the C library that are defined here, but for those that open and look at files.
//!
//! A function that takes a variable number of arguments in C gets them as any other on this architecture, in registers,
//! so those of a call that was made with fewer are numbers that nobody uses.

use crate::calls::{self, Returned};
use crate::faults_unsafe;
use crate::state::{self, Mark};
use crate::syscall_unsafe::syscall;
use crate::threads;
use std::ffi::{c_int, c_long, c_uint, c_ulong, c_void};
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Makes the VMM's own system call.
pub(crate) fn real(number: c_long, arguments: [usize; 6]) -> Returned {
    // SAFETY: It is the VMM's call, with the arguments that the VMM chose; without this library it would be made, too.
    unsafe { syscall(number, arguments) }
}

/// What a function of the C library returns for what the kernel returned.
pub(crate) fn returned(result: Returned) -> c_long {
    match result {
        Ok(value) => c_long::try_from(value).unwrap_or(c_long::MAX),
        Err(errno) => {
            // SAFETY: The call takes nothing and changes nothing.
            let place = unsafe { libc::__errno_location() };
            // SAFETY: The address is that of this thread's `errno`.
            unsafe { place.write(errno.0) };
            -1
        }
    }
}

pub(crate) fn returned_int(result: Returned) -> c_int {
    c_int::try_from(returned(result)).unwrap_or(c_int::MAX)
}

pub(crate) fn word(value: c_int) -> usize {
    // As C does: the sign goes along.
    value as isize as usize
}

/// `ioctl`.
///
/// # Safety
///
/// As `ioctl`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    let real = || real(libc::SYS_ioctl, [word(fd), request as usize, argument, 0, 0, 0]);
    if state::marked(fd) == Mark::None {
        return returned_int(real());
    }
    // The kernel takes a number of 32 bits; what a signed `int` made of the upper half is lost there, too.
    returned_int(calls::ioctl(fd, (request & 0xffff_ffff) as u32, argument, real))
}

/// `close`.
#[unsafe(no_mangle)]
pub extern "C" fn close(fd: c_int) -> c_int {
    returned_int(calls::close(fd, || real(libc::SYS_close, [word(fd), 0, 0, 0, 0, 0])))
}

/// The descriptors are closed at the next `exec`, not now.
const CLOSE_RANGE_CLOEXEC: c_int = 1 << 2;

/// `close_range`.
#[unsafe(no_mangle)]
pub extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let real = || real(libc::SYS_close_range, [first as usize, last as usize, word(flags), 0, 0, 0]);
    if flags & CLOSE_RANGE_CLOEXEC != 0 || first > last {
        return returned_int(real());
    }
    returned_int(calls::close_range(first, last, real))
}

/// `closefrom`.
#[unsafe(no_mangle)]
pub extern "C" fn closefrom(first: c_int) {
    close_range(first.max(0).unsigned_abs(), c_uint::MAX, 0);
}

/// `dup`.
#[unsafe(no_mangle)]
pub extern "C" fn dup(fd: c_int) -> c_int {
    returned_int(calls::duplicate(fd, None, || real(libc::SYS_dup, [word(fd), 0, 0, 0, 0, 0])))
}

/// `dup2`.
#[unsafe(no_mangle)]
pub extern "C" fn dup2(fd: c_int, to: c_int) -> c_int {
    let real = || real(libc::SYS_dup2, [word(fd), word(to), 0, 0, 0, 0]);
    returned_int(calls::duplicate(fd, Some(to), real))
}

/// `dup3`.
#[unsafe(no_mangle)]
pub extern "C" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    let real = || real(libc::SYS_dup3, [word(fd), word(to), word(flags), 0, 0, 0]);
    returned_int(calls::duplicate(fd, Some(to), real))
}

/// `fcntl`.
///
/// # Safety
///
/// As `fcntl`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    let real = || real(libc::SYS_fcntl, [word(fd), word(command), argument, 0, 0, 0]);
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        return returned_int(calls::duplicate(fd, None, real));
    }
    returned_int(real())
}

/// `fcntl` with offsets of 64 bits, which all have here.
///
/// # Safety
///
/// As `fcntl`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: The caller keeps the promises of the same function.
    unsafe { fcntl(fd, command, argument) }
}

/// `fallocate`.
#[unsafe(no_mangle)]
pub extern "C" fn fallocate(fd: c_int, mode: c_int, offset: i64, bytes: i64) -> c_int {
    let arguments = [word(fd), word(mode), offset as usize, bytes as usize, 0, 0];
    returned_int(calls::fallocate(fd, mode, offset, bytes, || real(libc::SYS_fallocate, arguments)))
}

/// `fallocate` with offsets of 64 bits, which all have here.
#[unsafe(no_mangle)]
pub extern "C" fn fallocate64(fd: c_int, mode: c_int, offset: i64, bytes: i64) -> c_int {
    fallocate(fd, mode, offset, bytes)
}

/// `madvise`.
///
/// # Safety
///
/// As `madvise`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(start: *mut c_void, bytes: usize, advice: c_int) -> c_int {
    let arguments = [start.addr(), bytes, word(advice), 0, 0, 0];
    returned_int(calls::madvise(start.addr(), bytes, advice, || real(libc::SYS_madvise, arguments)))
}

/// `posix_madvise`, which returns the error, and does nothing at `POSIX_MADV_DONTNEED`.
///
/// # Safety
///
/// As `posix_madvise`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_madvise(start: *mut c_void, bytes: usize, advice: c_int) -> c_int {
    if advice == libc::POSIX_MADV_DONTNEED {
        return 0;
    }
    real(libc::SYS_madvise, [start.addr(), bytes, word(advice), 0, 0, 0]).map_or_else(|errno| errno.0, |_| 0)
}

/// The handle of this thread.
pub(crate) fn own_handle() -> u64 {
    // SAFETY: The call takes nothing and changes nothing.
    unsafe { libc::pthread_self() }
}

/// `pthread_kill`.
///
/// # Safety
///
/// As `pthread_kill`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_kill(thread: libc::pthread_t, signal: c_int) -> c_int {
    type Kill = unsafe extern "C" fn(libc::pthread_t, c_int) -> c_int;
    static FOUND: AtomicUsize = AtomicUsize::new(0);
    let mut found = FOUND.load(Ordering::Relaxed);
    if found == 0 {
        // SAFETY: The name is a string that ends.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_kill".as_ptr()) }.addr();
        FOUND.store(found, Ordering::Relaxed);
    }
    if found == 0 {
        return libc::ENOSYS;
    }
    // SAFETY: The function of this name has this type.
    let kill = unsafe { mem::transmute::<usize, Kill>(found) };
    // SAFETY: The caller keeps the promises of the same function.
    let result = unsafe { kill(thread, signal) };
    if result == 0 && signal != 0 {
        threads::signalled_handle(thread);
    }
    result
}

/// `tgkill`.
#[unsafe(no_mangle)]
pub extern "C" fn tgkill(process: c_int, thread: c_int, signal: c_int) -> c_int {
    let result = real(libc::SYS_tgkill, [word(process), word(thread), word(signal), 0, 0, 0]);
    if result.is_ok() && signal != 0 {
        threads::signalled_tid(thread.unsigned_abs().into());
    }
    returned_int(result)
}

/// `sigaction`. What the VMM does at a fault of its own is kept here, and done where the fault is not the library's.
///
/// # Safety
///
/// As `sigaction`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    before: *mut libc::sigaction,
) -> c_int {
    if !faults_unsafe::keeps(signal) {
        // SAFETY: The caller keeps the promises of the same function.
        return unsafe { faults_unsafe::sigaction(signal, new, before) };
    }
    // SAFETY: The caller hands over a whole struct or nothing.
    let Some(kept) = faults_unsafe::exchange(signal, unsafe { new.as_ref() }) else { return -1 };
    if !before.is_null() {
        // SAFETY: The caller hands over room for a struct.
        unsafe { before.write(kept) };
    }
    0
}

/// `signal`.
///
/// # Safety
///
/// As `signal`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn signal(number: c_int, handler: usize) -> usize {
    // SAFETY: The struct is numbers, an optional function and bits; all of it zero is a value of each.
    let mut new: libc::sigaction = unsafe { mem::zeroed() };
    (new.sa_sigaction, new.sa_flags) = (handler, libc::SA_RESTART);
    let mut before = new;
    // SAFETY: Both structs are whole, and the handler is the caller's.
    let result = unsafe { sigaction(number, &raw const new, &raw mut before) };
    if result == 0 { before.sa_sigaction } else { libc::SIG_ERR }
}
