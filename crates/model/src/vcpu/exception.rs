//! Exceptions that KVM raises in a guest.

use crate::events::{Exception, request};
use crate::guest::GuestFault;
use crate::vcpu::Vcpu;

/// `#UD`.
const UD: u8 = 6;
/// `#GP`, with an error code of 0.
const GP: u8 = 13;

impl Vcpu {
    /// Queues an exception. The guest gets it in place of the result of its act when it is entered; until then it is
    /// pending, and userspace can see it or take it away.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_queue_exception` and `kvm_inject_gp`.
    pub(crate) fn raise(&mut self, fault: GuestFault) {
        let nr = if fault == GuestFault::InvalidOpcode { UD } else { GP };
        let has_error_code = nr == GP;
        self.events.exception = Exception { pending: true, nr, has_error_code, ..Exception::default() };
        self.events.request(request::EVENT);
        self.raised = Some(fault);
    }

    /// Injects the exception that was raised.
    pub(crate) fn take_raised(&mut self) -> Option<GuestFault> {
        let fault = self.raised.take()?;
        let exception = &mut self.events.exception;
        let waits = exception.pending || exception.injected;
        (exception.pending, exception.injected) = (false, false);
        waits.then_some(fault)
    }
}
