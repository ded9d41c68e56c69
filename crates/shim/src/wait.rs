//! A `KVM_RUN` that waits, and the signals that end it.

use crate::state::Active;
use crate::syscall_unsafe::{self, Signals};
use exeunt_abi::Errno;
use exeunt_interpose::dispatch::Outcome;

/// How long a vCPU that waits is left alone. What wakes it up is seen after that; a signal ends the wait at once.
const PAUSE_NS: u32 = 500_000;

/// Signals of a thread's own faults, which are never blocked here: the library catches its own.
const FAULTS: Signals = bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGILL)
    | bit(libc::SIGFPE)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGABRT)
    | bit(libc::SIGSYS);

const fn bit(signal: libc::c_int) -> Signals {
    1 << (signal - 1)
}

/// Makes a call again and again until it is over or a signal comes.
///
/// Signals are blocked but in the pauses, so that none is missed: one that comes while the guest runs ends the next
/// pause, as it ends a `KVM_RUN` of the kernel's.
pub(crate) fn until_done(active: &Active, fd: i32, mut again: impl FnMut() -> Outcome) -> Result<u32, Errno> {
    let own = syscall_unsafe::block_signals(!FAULTS)?;
    let in_pause = active.dispatcher.signal_mask(fd).unwrap_or(own);
    let result = loop {
        if syscall_unsafe::sleep(PAUSE_NS, in_pause) == Err(Errno::EINTR) {
            active.dispatcher.interrupted(fd);
            break Err(Errno::EINTR);
        }
        match again() {
            Outcome::Done(result) => break result,
            Outcome::Blocked => {}
            Outcome::NotOurs => break Err(Errno::EBADF),
        }
    };
    // The mask that the thread had is one that it can have again.
    let _ = syscall_unsafe::block_signals(own);
    result
}
