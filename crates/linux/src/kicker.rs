//! Taking a vCPU out of `KVM_RUN` from another thread.

use std::sync::Arc;

use crate::run_area::RunArea;
use crate::signal_unsafe;

/// A handle to a vCPU's `immediate_exit` that any thread may use, also a signal handler. It keeps the byte mapped
/// for as long as it lives, with or without the vCPU.
///
/// Source: Linux v7.2 `Documentation/virt/kvm/api.rst`, section 5, `immediate_exit`.
#[derive(Clone, Debug)]
pub struct Kicker {
    area: Arc<RunArea>,
}

impl Kicker {
    /// A kicker for this area.
    pub(crate) fn new(area: Arc<RunArea>) -> Self {
        signal_unsafe::prepare();
        Self { area }
    }

    /// Makes the entry that runs now, and every one after it until [`Kicker::clear`], return with `EINTR`.
    ///
    /// An answer that was pending is handed over all the same. A thread inside `KVM_RUN` gets the first real-time
    /// signal, which no thread that enters a vCPU may block; a process without a handler for it has one that does
    /// nothing since the first kicker was made.
    pub fn kick(&self) {
        self.area.kick();
    }

    /// Lets entries run the guest again.
    pub fn clear(&self) {
        self.area.clear_kick();
    }
}
