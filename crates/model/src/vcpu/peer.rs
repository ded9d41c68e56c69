//! The part of a vCPU that other threads reach while it runs or blocks.

use super::MpState;
use crate::apic::Inbox;
use crate::ghcb::PendingVmsa;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What a vCPU waits for, and what came for it. The vCPUs of a VM see each other as this.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// `kvm_run.immediate_exit`.
    immediate_exit: AtomicBool,
    /// The number of `waiting.mp_state`, for a look without the lock. Written under it.
    mp_state: AtomicU32,
    /// Something is in `waiting.inbox`, for a look without the lock. Written under it.
    has_mail: AtomicBool,
    /// The local APIC takes interrupts.
    apic_enabled: AtomicBool,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// What is behind the lock of a [`Peer`].
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) mp_state: MpState,
    /// An interrupt waits that can wake the vCPU up.
    pub(crate) interrupt: bool,
    /// `KVM_REQ_VCPU_RESET`, with where to start.
    pub(crate) reset: Option<Reset>,
    pub(crate) inbox: Inbox,
    /// A VMSA that the vCPU has not taken over.
    pub(crate) vmsa: PendingVmsa,
    /// The vCPU sleeps in `KVM_RUN` now.
    pub(crate) asleep: bool,
}

/// `struct vcpu_reset_state`: how another core switched this one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reset {
    /// The program counter.
    pub(crate) entry: u64,
    /// The argument registers from the first on.
    pub(crate) arguments: [u64; 2],
}

impl Peer {
    pub(crate) fn mp_state(&self) -> MpState {
        MpState::from_number(self.mp_state.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// `mp_state` is `RUNNABLE`.
    pub(crate) fn is_running(&self) -> bool {
        self.mp_state.load(Ordering::Acquire) == MpState::Runnable.number()
    }

    pub(crate) fn set_mp_state(&self, to: MpState) {
        self.change(|waiting| waiting.mp_state = to);
    }

    /// Changes something, and wakes the vCPU up if it was that what it waited for.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let mut waiting = self.lock();
        let result = change(&mut waiting);
        self.mp_state.store(waiting.mp_state.number(), Ordering::Release);
        self.changed.notify_all();
        result
    }

    /// Sends something to the vCPU.
    pub(crate) fn knock(&self, put: impl FnOnce(&mut Inbox)) {
        self.change(|waiting| {
            put(&mut waiting.inbox);
            self.has_mail.store(true, Ordering::Release);
        });
    }

    /// Something was sent that the vCPU has not looked at.
    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// Takes what was sent.
    pub(crate) fn take_inbox(&self) -> Option<Inbox> {
        if !self.has_mail() {
            return None;
        }
        Some(self.change(|waiting| {
            self.has_mail.store(false, Ordering::Release);
            std::mem::take(&mut waiting.inbox)
        }))
    }

    pub(crate) fn enable_apic(&self, on: bool) {
        self.apic_enabled.store(on, Ordering::Release);
    }

    pub(crate) fn apic_is_enabled(&self) -> bool {
        self.apic_enabled.load(Ordering::Acquire)
    }

    /// Looks at what is there now.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Waiting) -> T) -> T {
        look(&self.lock())
    }

    /// Sleeps until the vCPU is `ready` or kicked, if it `takes_kicks`. Returns whether it is ready.
    pub(crate) fn sleep_until(&self, takes_kicks: bool, ready: impl Fn(&Waiting) -> bool) -> bool {
        let mut waiting = self.lock();
        waiting.asleep = true;
        while !(ready(&waiting) || takes_kicks && self.immediate_exit()) {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.asleep = false;
        ready(&waiting)
    }

    pub(crate) fn immediate_exit(&self) -> bool {
        self.immediate_exit.load(Ordering::Relaxed)
    }

    /// Returns what it was.
    pub(crate) fn set_immediate_exit(&self, on: bool) -> bool {
        let before = self.immediate_exit.swap(on, Ordering::Relaxed);
        if on && !before {
            // Under the lock, so that a vCPU about to sleep has seen it or hears of it.
            let waiting = self.lock();
            self.changed.notify_all();
            drop(waiting);
        }
        before
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes another thread's vCPU return: `kvm_run.immediate_exit` and a signal in one.
#[derive(Clone, Debug)]
pub struct Kick(pub(super) Arc<Peer>);

impl Kick {
    /// Sets `immediate_exit`. The next `KVM_RUN`, or the one under way at its next act or out of its sleep, comes back
    /// with `EINTR`.
    pub fn set(&self, on: bool) {
        self.0.set_immediate_exit(on);
    }

    /// The vCPU sleeps in `KVM_RUN` now. Only a VM that blocks lets it: see [`crate::Vm::set_blocking`].
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.0.look(|waiting| waiting.asleep)
    }
}
