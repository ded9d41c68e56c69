//! The slots of quotes that are being made.

use crate::sync::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, TryLockError};

/// A fixed number of slots. Each is free, or has the ticket of the request that it belongs to.
///
/// Whoever does the last of a request holds the lock of its slot meanwhile. So [`Slots::free_all`] waits for what has
/// begun and rules out what has not.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Mutex<Option<u64>>]>,
    next_ticket: AtomicU64,
}

/// A slot that was taken. Dropping it does not free the slot; see [`Slots::finish`].
#[derive(Debug)]
pub(super) struct Taken {
    slot: usize,
    ticket: u64,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self { slots: (0..count).map(|_| Mutex::new(None)).collect(), next_ticket: AtomicU64::new(0) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Takes a free slot, if there is one.
    pub(super) fn take(&self) -> Option<Taken> {
        // A slot under its lock is being freed. It is waited for only when there is no other, because a TD that has seen
        // its quote may ask for the next one at once.
        self.take_with(try_lock).or_else(|| self.take_with(|slot| Some(lock(slot))))
    }

    fn take_with<'a>(
        &'a self,
        mut lock: impl FnMut(&'a Mutex<Option<u64>>) -> Option<MutexGuard<'a, Option<u64>>>,
    ) -> Option<Taken> {
        self.slots.iter().enumerate().find_map(|(slot, mutex)| {
            let mut holder = lock(mutex).filter(|holder| holder.is_none())?;
            let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
            *holder = Some(ticket);
            Some(Taken { slot, ticket })
        })
    }

    /// Does the last of a request and frees its slot, on every path out of `last`. `None` if the slot was freed before:
    /// then nothing is done.
    pub(super) fn finish<T>(&self, taken: &Taken, last: impl FnOnce() -> T) -> Option<T> {
        let mut holder = lock(self.slots.get(taken.slot)?);
        holder.take_if(|ticket| *ticket == taken.ticket)?;
        // The slot is free from here on, but nobody takes it before the lock is released.
        let done = last();
        drop(holder);
        Some(done)
    }

    /// Whether the slot still belongs to its request.
    pub(super) fn holds(&self, taken: &Taken) -> bool {
        self.slots.get(taken.slot).is_some_and(|slot| *lock(slot) == Some(taken.ticket))
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.slots.iter().filter(|slot| lock(slot).is_some()).count()
    }

    /// Frees every slot, whoever has it.
    pub(super) fn free_all(&self) {
        for slot in &self.slots {
            *lock(slot) = None;
        }
    }
}

/// A panic under the lock leaves a slot that is free, so a poisoned lock is as good as another.
fn lock(slot: &Mutex<Option<u64>>) -> MutexGuard<'_, Option<u64>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock(slot: &Mutex<Option<u64>>) -> Option<MutexGuard<'_, Option<u64>>> {
    match slot.try_lock() {
        Ok(holder) => Some(holder),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
