//! Taking a thread out of `KVM_RUN`: two words, and the order in which each side writes the one and reads the other.
//!
//! The file has no system call of its own, so that a checker of schedules can run it as it is: `kick/schedules.rs`,
//! under `--cfg shuttle`.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::sync::AtomicI32;

/// A party that sets `immediate_exit`: one bit of the byte, since the kernel asks only whether it is zero.
///
/// With a bit for each party no one can undo what the other asked for, in whatever order they come: setting and
/// clearing are atomic on the byte as a whole and touch the own bit alone. With plain stores an entry that drains
/// could only guess whether the 1 that it finds afterwards is its own or that of a kick that came meanwhile.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Asker {
    /// A `Kicker`, from any thread or signal handler.
    Kicker = 1 << 0,
    /// An entry that is not to run the guest.
    Drain = 1 << 1,
}

/// `immediate_exit`: a byte that others write meanwhile, all in one order.
pub(crate) trait ImmediateExit {
    /// Sets these bits and no other.
    fn set(&self, bits: u8);

    /// Clears these bits and no other.
    fn unset(&self, bits: u8);

    /// Asks that the next entries return with `EINTR` before they run the guest, until [`ImmediateExit::clear`].
    fn ask(&self, asker: Asker) {
        self.set(asker as u8);
    }

    /// Takes the question back.
    fn clear(&self, asker: Asker) {
        self.unset(asker as u8);
    }
}

impl ImmediateExit for AtomicU8 {
    fn set(&self, bits: u8) {
        self.fetch_or(bits, Ordering::SeqCst);
    }

    fn unset(&self, bits: u8) {
        self.fetch_and(!bits, Ordering::SeqCst);
    }
}

/// Who is inside `KVM_RUN`.
#[derive(Debug)]
pub(crate) struct Inside {
    /// The thread in `KVM_RUN`, or about to be, or just out of it; 0 for none.
    thread: AtomicI32,
}

impl Inside {
    pub(crate) const fn nobody() -> Self {
        Self { thread: AtomicI32::new(0) }
    }

    /// Makes `run` enter `KVM_RUN`, with the thread's id on show for [`Inside::kick`]. An entry that drains does not
    /// run the guest.
    pub(crate) fn enter<T>(
        &self,
        byte: &impl ImmediateExit,
        thread: i32,
        drain: bool,
        run: impl FnOnce() -> T,
    ) -> T {
        if drain {
            byte.ask(Asker::Drain);
        }
        self.thread.store(thread, Ordering::SeqCst);
        let entered = run();
        self.thread.store(0, Ordering::SeqCst);
        if drain {
            byte.clear(Asker::Drain);
        }
        entered
    }

    /// Asks for the exit, and has `send` signal the thread in `KVM_RUN`, if there is one.
    ///
    /// No kick is lost: the one side shows its id and then lets the kernel read the byte, the other sets the byte
    /// and then reads the id, each in one order that all agree on. So either the kernel sees the byte, or the id is
    /// seen here and the signal finds the thread in `KVM_RUN`, or before it, and then the kernel sees the byte.
    pub(crate) fn kick(&self, byte: &impl ImmediateExit, send: impl FnOnce(i32)) {
        byte.ask(Asker::Kicker);
        match self.thread.load(Ordering::SeqCst) {
            0 => {}
            thread => send(thread),
        }
    }
}

#[cfg(all(test, shuttle))]
mod schedules;
