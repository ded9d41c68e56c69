//! Which thread is in `KVM_RUN` of which vCPU, so that a signal to it ends the call.
//!
//! A signal that comes while the model runs a guest is handled there and then, and the model does not notice. So the
//! calls that send one tell the model.

use crate::{state, syscall_unsafe};
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Threads that can be told apart. The signals of further ones end a call when the guest's turn is over.
const MOST_THREADS: usize = 1024;

struct Thread {
    /// 0 for nobody.
    tid: AtomicU64,
    /// The `pthread_t`.
    handle: AtomicU64,
    /// The descriptor of the vCPU whose `KVM_RUN` it is in, or -1.
    fd: AtomicI32,
}

static THREADS: [Thread; MOST_THREADS] =
    [const { Thread { tid: AtomicU64::new(0), handle: AtomicU64::new(0), fd: AtomicI32::new(-1) } };
        MOST_THREADS];

thread_local! {
    /// Where this thread is in the table: not looked for yet, or not in it.
    static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// This thread is in `KVM_RUN` until what is returned is dropped.
#[inline]
pub(crate) fn enter(fd: i32) -> Inside {
    let place = PLACE.get().unwrap_or_else(find_place);
    let thread = THREADS.get(place);
    if let Some(thread) = thread {
        thread.fd.store(fd, Ordering::Relaxed);
    }
    Inside(thread)
}

/// A thread in `KVM_RUN`.
pub(crate) struct Inside(Option<&'static Thread>);

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(thread) = self.0 {
            thread.fd.store(-1, Ordering::Relaxed);
        }
    }
}

fn find_place() -> usize {
    let tid = u64::from(syscall_unsafe::tid());
    let handle = crate::exports_unsafe::own_handle();
    let is_free = |thread: &Thread| {
        // A handle that is used again is of a new thread in the place of one that is gone.
        let is_mine = thread.handle.load(Ordering::Relaxed) == handle;
        is_mine || thread.tid.compare_exchange(0, tid, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    };
    let place = THREADS.iter().position(is_free).unwrap_or(MOST_THREADS);
    if let Some(thread) = THREADS.get(place) {
        thread.tid.store(tid, Ordering::Relaxed);
        thread.handle.store(handle, Ordering::Relaxed);
    }
    PLACE.set(Some(place));
    place
}

/// A signal was sent to the thread of this handle.
pub(crate) fn signalled_handle(handle: u64) {
    signalled(|thread| thread.handle.load(Ordering::Relaxed) == handle);
}

/// A signal was sent to the thread of this number.
pub(crate) fn signalled_tid(tid: u64) {
    signalled(|thread| thread.tid.load(Ordering::Relaxed) == tid);
}

fn signalled(is_it: impl Fn(&Thread) -> bool) {
    let Some(active) = state::active() else { return };
    let fd = THREADS
        .iter()
        .take_while(|thread| thread.tid.load(Ordering::Relaxed) != 0)
        .find(|thread| is_it(thread));
    let fd = fd.map_or(-1, |thread| thread.fd.load(Ordering::Relaxed));
    if fd >= 0 {
        active.dispatcher.kick(fd);
    }
}
