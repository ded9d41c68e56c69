//! What a program reads of its vCPU without an act.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// No VMSA of the guest's own, or no startup interrupt yet.
const NONE: u64 = u64::MAX;
/// Interrupts that are kept for a program that does not look at them.
const MAX_INTERRUPTS: usize = 256;

/// What the engine tells the program of a vCPU.
#[derive(Debug)]
pub(crate) struct View {
    vmsa: AtomicU64,
    sipi_vector: AtomicU64,
    interrupts: Mutex<VecDeque<u8>>,
}

impl Default for View {
    fn default() -> Self {
        Self { vmsa: AtomicU64::new(NONE), sipi_vector: AtomicU64::new(NONE), interrupts: Mutex::default() }
    }
}

impl View {
    pub(crate) fn set_vmsa(&self, gpa: u64) {
        self.vmsa.store(gpa, Ordering::Relaxed);
    }

    pub(crate) fn vmsa(&self) -> Option<u64> {
        Some(self.vmsa.load(Ordering::Relaxed)).filter(|gpa| *gpa != NONE)
    }

    pub(crate) fn set_sipi_vector(&self, vector: u8) {
        self.sipi_vector.store(u64::from(vector), Ordering::Relaxed);
    }

    pub(crate) fn sipi_vector(&self) -> Option<u8> {
        u8::try_from(self.sipi_vector.load(Ordering::Relaxed)).ok()
    }

    /// An interrupt was delivered.
    pub(crate) fn add_interrupt(&self, vector: u8) {
        let mut interrupts = self.interrupts.lock().unwrap_or_else(PoisonError::into_inner);
        if interrupts.len() < MAX_INTERRUPTS {
            interrupts.push_back(vector);
        }
    }

    pub(crate) fn take_interrupt(&self) -> Option<u8> {
        self.interrupts.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
