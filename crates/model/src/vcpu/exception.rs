//! Exceptions that KVM raises in a guest.

use crate::events::{Exception, Vector};
use crate::guest::GuestFault;
use crate::vcpu::Vcpu;

impl Vcpu {
    /// Queues an exception. The guest gets it in place of the result of its act when it is entered; until then it is
    /// pending, and userspace can see it or take it away.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_queue_exception` and `kvm_inject_gp`.
    pub(crate) fn raise(&mut self, fault: GuestFault) {
        let nr = if fault == GuestFault::InvalidOpcode { Vector::UD } else { Vector::GP };
        let has_error_code = nr == Vector::GP;
        self.queue_exception(Exception { nr, has_error_code, ..Exception::default() });
        self.raised = Some(fault);
    }
}
