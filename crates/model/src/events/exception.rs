//! Exceptions: how two make a double fault, how three make a triple fault, and how they reach the guest.

use super::{DR6_ACTIVE_LOW, EventState, Exception, request};
use crate::guest::GuestFault;
use crate::vcpu::Vcpu;

/// Vectors that KVM treats apart.
pub(crate) struct Vector;

impl Vector {
    /// `#DB`, whose payload goes to DR6.
    pub(crate) const DB: u8 = 1;
    /// NMIs, which are no exception.
    pub(crate) const NMI: u8 = 2;
    /// `#BP`, the first of the two exceptions that KVM takes for soft.
    pub(crate) const BP: u8 = 3;
    /// `#OF`.
    pub(crate) const OF: u8 = 4;
    /// `#UD`.
    pub(crate) const UD: u8 = 6;
    /// `#DF`.
    pub(crate) const DF: u8 = 8;
    /// `#GP`.
    pub(crate) const GP: u8 = 13;
    /// `#PF`, whose payload goes to CR2.
    pub(crate) const PF: u8 = 14;
    /// `#MC`.
    pub(crate) const MC: u8 = 18;
}

/// The causes of a trap in DR6.
const DR_TRAP_BITS: u64 = 0xf;
/// Bit of a `#DB` payload that DR6 does not have.
const PAYLOAD_ONLY: u64 = 1 << 12;

/// What an exception makes of one that was there before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
}

/// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `exception_class`.
const fn class(nr: u8) -> Class {
    match nr {
        Vector::PF => Class::PageFault,
        // #DE, #TS, #NP, #SS and #GP.
        0 | 10..=13 => Class::Contributory,
        _ => Class::Benign,
    }
}

impl EventState {
    /// Queues an exception over one that may wait. Returns the double fault that the two make, which is to be queued
    /// in their place; after a double fault there is only the triple fault.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_multiple_exception`.
    pub(crate) fn queue_exception(&mut self, new: Exception) -> Option<Exception> {
        self.request(request::EVENT);
        let old = self.exception;
        if old.pending || old.injected {
            if old.nr == Vector::DF {
                self.request(request::TRIPLE_FAULT);
                return None;
            }
            let makes_double_fault = match (class(old.nr), class(new.nr)) {
                (Class::Contributory, second) => second == Class::Contributory,
                (Class::PageFault, second) => second != Class::Benign,
                (Class::Benign, _) => false,
            };
            if makes_double_fault {
                (self.exception.pending, self.exception.injected) = (false, false);
                let double_fault = Exception { nr: Vector::DF, has_error_code: true, ..Exception::default() };
                return Some(double_fault);
            }
            // The new one takes the old one's place: the instruction will raise that again.
        }
        self.exception = Exception { pending: true, injected: false, ..new };
        None
    }

    /// `kvm_queue_exception_vmexit`: an exception that leaves a nested guest.
    pub(crate) fn queue_exiting(&mut self, exception: Exception) {
        self.request(request::EVENT);
        self.exiting = Exception { pending: true, injected: false, ..exception };
    }

    /// `kvm_deliver_exception_payload`, for the registers alone.
    pub(crate) fn deliver_payload(&mut self, exception: Exception) {
        if !exception.has_payload {
            return;
        }
        match exception.nr {
            Vector::DB => {
                let causes = self.dr6 & !DR_TRAP_BITS | DR6_ACTIVE_LOW | exception.payload;
                self.dr6 = (causes ^ (exception.payload & DR6_ACTIVE_LOW)) & !PAYLOAD_ONLY;
            }
            Vector::PF => self.cr2 = exception.payload,
            _ => {}
        }
    }

    /// What waits is injected: it reaches the guest unless a signal keeps the vCPU out, and then it is injected again.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_check_and_inject_events`.
    pub(crate) fn inject_exception(&mut self) {
        let pending = self.exception;
        if pending.pending && !pending.injected {
            self.deliver_payload(pending);
            let exception = &mut self.exception;
            (exception.pending, exception.injected) = (false, true);
            if pending.has_payload {
                (exception.has_payload, exception.payload) = (false, 0);
            }
        }
    }

    /// `kvm_event_needs_reinjection`, or an exception is on its way: nothing new is injected.
    pub(crate) const fn is_delivering(&self) -> bool {
        self.exception.injected || self.interrupt.injected || self.nmi.injected
    }

    /// An NMI that waits is injected, if nothing comes before it.
    pub(crate) fn inject_nmi(&mut self) {
        let nmi_allowed = !self.nmi.masked && self.shadow == 0;
        if self.nmi.pending > 0 && nmi_allowed && !self.is_delivering() {
            self.nmi.pending = self.nmi.pending.saturating_sub(1);
            self.nmi.injected = true;
        }
    }
}

impl Vcpu {
    /// The guest is entered: what was injected is delivered. Programs have no handlers of their own, so a handler is
    /// done as soon as it begins. Returns the exception that an act of the program ended in, if one did.
    pub(crate) fn deliver_events(&mut self) -> Option<GuestFault> {
        let raised = self.raised.take();
        let events = &mut self.events;
        let exception = std::mem::take(&mut events.exception.injected).then_some(events.exception.nr);
        let interrupt = std::mem::take(&mut events.interrupt.injected).then_some(events.interrupt.nr);
        let nmi = std::mem::take(&mut events.nmi.injected);
        if nmi && (self.is_es || self.vm_type.has_protected_state()) {
            // The guest says when its handler is done.
            events.nmi.masked = true;
        }
        if let Some(nr) = exception {
            self.did(|| format!("takes exception {nr}"));
        }
        if let Some(nr) = interrupt {
            self.did(|| format!("takes interrupt {nr}"));
        }
        if nmi {
            self.did(|| "takes an NMI".into());
        }
        exception.and(raised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;

    fn queued(old: Option<u8>, new: u8, injected: bool) -> (EventState, Option<Exception>) {
        let mut state = EventState::new(Host::AMD);
        if let Some(nr) = old {
            state.exception = Exception { pending: !injected, injected, nr, ..Exception::default() };
        }
        let double_fault = state.queue_exception(Exception { nr: new, ..Exception::default() });
        (state, double_fault)
    }

    #[test]
    fn an_exception_alone_waits() {
        for new in (0..32).filter(|nr| *nr != Vector::NMI) {
            let (state, double_fault) = queued(None, new, false);
            assert_eq!((state.exception.pending, state.exception.nr, double_fault), (true, new, None));
            assert_eq!(state.requests, request::EVENT);
        }
    }

    #[test]
    fn every_pair_of_exceptions_makes_what_the_manual_says() {
        let contributory = [0, 10, 11, 12, 13];
        for injected in [false, true] {
            for old in (0..32).filter(|nr| *nr != Vector::NMI) {
                for new in (0..32).filter(|nr| *nr != Vector::NMI) {
                    let (state, double_fault) = queued(Some(old), new, injected);
                    let is_triple = state.is_requested(request::TRIPLE_FAULT);
                    let second_counts = contributory.contains(&new);
                    let makes_double = old != Vector::DF
                        && (contributory.contains(&old) && second_counts
                            || old == Vector::PF && (second_counts || new == Vector::PF));
                    assert_eq!(is_triple, old == Vector::DF, "{old} then {new}");
                    assert_eq!(double_fault.map(|double| double.nr), makes_double.then_some(Vector::DF));
                    let expected = if old == Vector::DF { old } else { new };
                    let waits = state.exception.pending || state.exception.injected;
                    assert_eq!(waits, !makes_double, "{old} then {new}");
                    assert!(makes_double || state.exception.nr == expected, "{old} then {new}");
                }
            }
        }
    }
}
