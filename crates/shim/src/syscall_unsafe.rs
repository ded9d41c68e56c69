//! System calls, made without the C library, whose calls this library replaces.

use exeunt_abi::Errno;
use std::arch::asm;

/// Makes a system call.
///
/// # Safety
///
/// What the kernel does for this number with these arguments keeps the promises that Rust code relies on: memory that
/// it writes is the caller's to have written, and descriptors that it closes are not in use.
pub(crate) unsafe fn syscall(number: libc::c_long, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let result: isize;
    // SAFETY: This is the calling convention of the kernel; the caller answers for the call.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    match usize::try_from(result) {
        Ok(value) => Ok(value),
        Err(_) => Err(Errno(i32::try_from(result.unsigned_abs()).unwrap_or(libc::EIO))),
    }
}

/// `getpid`, which is not remembered: a child of `vfork` shares all memory with its parent.
pub(crate) fn pid() -> u32 {
    // SAFETY: The call takes nothing and changes nothing.
    let pid = unsafe { syscall(libc::SYS_getpid, [0; 6]) };
    pid.ok().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0)
}

/// `gettid`.
pub(crate) fn tid() -> u32 {
    // SAFETY: As above.
    let tid = unsafe { syscall(libc::SYS_gettid, [0; 6]) };
    tid.ok().and_then(|tid| u32::try_from(tid).ok()).unwrap_or(0)
}

/// `close`.
pub(crate) fn close(fd: i32) -> Result<(), Errno> {
    // SAFETY: The number is one of a process that closes it by its own will.
    unsafe { syscall(libc::SYS_close, [fd.unsigned_abs() as usize, 0, 0, 0, 0, 0]) }.map(|_| ())
}

/// `KVM_RUN`.
pub(crate) fn kvm_run(fd: i32) -> Result<usize, Errno> {
    const KVM_RUN: usize = 0xae80;
    // SAFETY: Of the process's memory the kernel writes the run page, which nobody borrows, and what the guest may.
    unsafe { syscall(libc::SYS_ioctl, [fd.unsigned_abs() as usize, KVM_RUN, 0, 0, 0, 0]) }
}

/// A set of signals, as the kernel has it.
pub(crate) type Signals = u64;

/// Changes which signals this thread has blocked, and returns what they were.
pub(crate) fn block_signals(signals: Signals) -> Result<Signals, Errno> {
    let mut before: Signals = 0;
    let (new, old) = (&raw const signals, &raw mut before);
    let arguments =
        [libc::SIG_SETMASK.unsigned_abs() as usize, new.addr(), old.addr(), size_of::<Signals>(), 0, 0];
    // SAFETY: The kernel reads and writes 8 bytes at addresses of locals.
    unsafe { syscall(libc::SYS_rt_sigprocmask, arguments) }?;
    Ok(before)
}

/// Sleeps for a while, with these signals blocked instead of those of the thread. `EINTR`: a signal came.
pub(crate) fn sleep(nanoseconds: u32, blocked: Signals) -> Result<(), Errno> {
    let time = [0u64, u64::from(nanoseconds)];
    let (time, mask) = (&raw const time, &raw const blocked);
    let arguments = [0, 0, time.addr(), mask.addr(), size_of::<Signals>(), 0];
    // SAFETY: The kernel reads 16 and 8 bytes, and may write the 16, at addresses of locals.
    unsafe { syscall(libc::SYS_ppoll, arguments) }.map(|_| ())
}
