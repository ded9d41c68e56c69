//! An allocator that knows how many bytes of a thread are in use, so that what a guest costs is a number.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// It begins far from 0: the thread of a test frees what the one that started it has allocated.
    static LIVE: Cell<usize> = const { Cell::new(1 << 40) };
}

/// The system's allocator, with a sum for each thread.
pub(crate) struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the sum is a plain number of this thread that needs no
// allocation and has no destructor, so it can be touched at any time.
unsafe impl GlobalAlloc for Counting {
    /// # Safety
    ///
    /// As for [`GlobalAlloc::alloc`].
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.with(|live| live.set(live.get().wrapping_add(layout.size())));
        // SAFETY: the caller keeps the promises that `alloc` asks for.
        unsafe { System.alloc(layout) }
    }

    /// # Safety
    ///
    /// As for [`GlobalAlloc::dealloc`].
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.with(|live| live.set(live.get().wrapping_sub(layout.size())));
        // SAFETY: the caller keeps the promises that `dealloc` asks for.
        unsafe { System.dealloc(at, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that this thread has allocated and not freed.
pub(crate) fn live_bytes() -> usize {
    LIVE.with(Cell::get)
}
