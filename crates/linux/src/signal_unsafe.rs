//! The signal that takes a thread out of `KVM_RUN`.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Once;

/// The id of the calling thread.
pub(crate) fn current_thread() -> i32 {
    thread_local! {
        // A system call for each entry would be felt.
        // SAFETY: The call takes nothing and cannot fail.
        static ID: i32 = unsafe { libc::gettid() };
    }
    ID.with(|id| *id)
}

/// Sees to it that the signal does no harm, and that it interrupts: a process that has no handler of its own gets one
/// that does nothing. A signal that is ignored, which a process may inherit, would leave `KVM_RUN` as it is.
pub(crate) fn prepare() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(install);
}

fn install() {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: Nothing is set, and `old` has room for what the kernel and the C library write.
    let asked = unsafe { libc::sigaction(number(), ptr::null(), old.as_mut_ptr()) };
    // SAFETY: All fields are integers, a set of them, or an optional function, and zeroes are a value of each.
    let mut action = unsafe { old.assume_init() };
    if asked == 0 && matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) {
        let handler: extern "C" fn(libc::c_int) = nothing;
        action.sa_sigaction = handler as libc::sighandler_t;
        // KVM_RUN is not restarted whatever this flag says. Any other call that the signal meets is, so that a
        // signal that comes late does no harm.
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: The handler does nothing, so it may be called at any time on any thread.
        unsafe { libc::sigaction(number(), &raw const action, ptr::null_mut()) };
    }
}

/// Sends the signal to a thread of this process. A thread that is gone, or whose number another one has, is no harm.
pub(crate) fn send(thread: i32) {
    let process = std::process::id();
    // SAFETY: The call takes numbers only, and `prepare` has seen to it that the signal does no harm.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, number()) };
}

extern "C" fn nothing(_: libc::c_int) {}

/// The first signal that the C library leaves free.
fn number() -> libc::c_int {
    libc::SIGRTMIN()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ignores_the_signal_gets_a_handler_and_one_with_a_handler_keeps_it() {
        extern "C" fn own(_: libc::c_int) {}
        let handler: extern "C" fn(libc::c_int) = nothing;
        let own: extern "C" fn(libc::c_int) = own;
        let (handler, own) = (handler as libc::sighandler_t, own as libc::sighandler_t);
        let set = |to| {
            // SAFETY: None of these handlers does anything, and no other test of this process sends the signal.
            unsafe { libc::signal(number(), to) }
        };
        for (before, after) in [(libc::SIG_IGN, handler), (libc::SIG_DFL, handler), (own, own)] {
            set(before);
            install();
            assert_eq!(set(libc::SIG_DFL), after);
        }
        set(handler);
    }
}
