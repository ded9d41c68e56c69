//! `Ctrl-C` and its like, as a flag that runs look at.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on `SIGINT`, `SIGTERM` and `SIGHUP` set the flag instead of ending the process, the first time; the second
/// ends it. A signal that is ignored, as by `nohup`, stays ignored.
#[must_use]
pub fn interrupted() -> &'static AtomicBool {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        install(signal);
    }
    &INTERRUPTED
}

fn install(signal: libc::c_int) {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: Nothing is set, and `old` has room for what is written.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) };
    // SAFETY: All fields are integers, a set of them, or an optional function, and zeroes are a value of each.
    let mut action = unsafe { old.assume_init() };
    if asked != 0 || action.sa_sigaction == libc::SIG_IGN {
        return;
    }
    let handler: extern "C" fn(libc::c_int) = set;
    action.sa_sigaction = handler as libc::sighandler_t;
    // The next one ends the process, if the flag was not enough.
    action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
    // SAFETY: The handler only stores to an atomic.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
}

extern "C" fn set(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}
