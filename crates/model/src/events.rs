//! The events of a vCPU: `KVM_GET_VCPU_EVENTS` and `KVM_SET_VCPU_EVENTS` in their order of checks.

use exeunt_abi::Errno;
use exeunt_abi::kvm::events::{
    VALID_ALL, VALID_NMI_PENDING, VALID_PAYLOAD, VALID_SHADOW, VALID_SMM, VALID_TRIPLE_FAULT, VcpuEvents,
};
use zerocopy::FromZeros;

/// `#BP`, the first of the two exceptions that KVM takes for soft.
const BP: u8 = 3;
/// `#OF`.
const OF: u8 = 4;
/// The vector of NMIs, which is no exception.
const NMI: u8 = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Exception {
    injected: bool,
    pending: bool,
    nr: u8,
    has_error_code: bool,
    error_code: u32,
    has_payload: bool,
    payload: u64,
}

/// What a vCPU without a local APIC in the kernel, without nesting and outside of SMM carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventState {
    exception: Exception,
    interrupt_injected: bool,
    interrupt_nr: u8,
    shadow: u8,
    nmi_injected: bool,
    nmi_pending: u8,
    nmi_masked: bool,
    smm: bool,
    smi_pending: bool,
    smm_inside_nmi: bool,
    /// `KVM_REQ_TRIPLE_FAULT`.
    pub(crate) triple_fault_requested: bool,
}

impl EventState {
    /// `KVM_GET_VCPU_EVENTS`. The triple fault is reported, not taken.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_x86_get_vcpu_events`.
    pub(crate) fn get(&self, payload: bool, triple_fault: bool) -> VcpuEvents {
        let ex = &self.exception;
        let mut events = VcpuEvents::new_zeroed();
        // Soft exceptions are raised again by their instruction, so they are not reported as waiting.
        if !matches!(ex.nr, BP | OF) {
            events.exception_injected = u8::from(ex.injected);
            events.exception_pending = u8::from(ex.pending);
            if !payload {
                events.exception_injected |= u8::from(ex.pending);
            }
        }
        events.exception_nr = ex.nr;
        events.exception_has_error_code = u8::from(ex.has_error_code);
        events.exception_error_code = ex.error_code;
        events.exception_has_payload = u8::from(ex.has_payload);
        events.exception_payload = ex.payload;
        events.interrupt_injected = u8::from(self.interrupt_injected);
        events.interrupt_nr = self.interrupt_nr;
        events.interrupt_shadow = self.shadow;
        events.nmi_injected = u8::from(self.nmi_injected);
        events.nmi_pending = self.nmi_pending;
        events.nmi_masked = u8::from(self.nmi_masked);
        events.smi_smm = u8::from(self.smm);
        events.smi_pending = u8::from(self.smi_pending);
        events.smi_smm_inside_nmi = u8::from(self.smm_inside_nmi);
        events.flags = VALID_NMI_PENDING | VALID_SHADOW | VALID_SMM;
        if payload {
            events.flags |= VALID_PAYLOAD;
        }
        if triple_fault {
            events.flags |= VALID_TRIPLE_FAULT;
            events.triple_fault_pending = u8::from(self.triple_fault_requested);
        }
        events
    }

    /// `KVM_SET_VCPU_EVENTS`. The flag of the triple fault is checked last, after the rest has been taken over.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_x86_set_vcpu_events`.
    pub(crate) fn set(
        &mut self,
        events: &VcpuEvents,
        payload: bool,
        triple_fault: bool,
    ) -> Result<(), Errno> {
        if events.flags & !VALID_ALL != 0 {
            return Err(Errno::EINVAL);
        }
        self.exception = checked_exception(events, payload)?;
        self.interrupt_injected = events.interrupt_injected != 0;
        self.interrupt_nr = events.interrupt_nr;
        if events.flags & VALID_SHADOW != 0 {
            self.shadow = events.interrupt_shadow;
        }
        self.nmi_injected = events.nmi_injected != 0;
        self.nmi_masked = events.nmi_masked != 0;
        if events.flags & VALID_NMI_PENDING != 0 {
            // The count is clamped when it is processed: one behind an NMI that is masked or injected, else two.
            let limit = if self.nmi_injected || self.nmi_masked { 1 } else { 2 };
            self.nmi_pending = events.nmi_pending.min(limit);
        }
        if events.flags & VALID_SMM != 0 {
            self.smm = events.smi_smm != 0;
            self.smi_pending = events.smi_pending != 0;
            self.smm_inside_nmi = self.smm && events.smi_smm_inside_nmi != 0;
        }
        if events.flags & VALID_TRIPLE_FAULT != 0 {
            if !triple_fault {
                return Err(Errno::EINVAL);
            }
            self.triple_fault_requested = events.triple_fault_pending != 0;
        }
        Ok(())
    }
}

fn checked_exception(events: &VcpuEvents, payload: bool) -> Result<Exception, Errno> {
    let mut injected = events.exception_injected != 0;
    let mut pending = events.exception_pending != 0;
    let mut has_payload = events.exception_has_payload != 0;
    if events.flags & VALID_PAYLOAD == 0 {
        pending = false;
        has_payload = false;
    } else {
        if !payload {
            return Err(Errno::EINVAL);
        }
        if pending {
            injected = false;
        } else {
            has_payload = false;
        }
    }
    let nr = events.exception_nr;
    if (injected || pending) && (nr > 31 || nr == NMI) {
        return Err(Errno::EINVAL);
    }
    Ok(Exception {
        injected,
        pending,
        nr,
        has_error_code: events.exception_has_error_code != 0,
        error_code: events.exception_error_code,
        has_payload,
        payload: events.exception_payload,
    })
}
