//! The events of a vCPU: `KVM_GET_VCPU_EVENTS` and `KVM_SET_VCPU_EVENTS` in their order of checks, on both
//! vendors' hosts.

mod exception;
mod mce;
mod shutdown;
mod smm;

pub(crate) use exception::Vector;
pub use mce::MachineCheck;
pub(crate) use mce::MachineChecks;

use crate::host::Host;
use exeunt_abi::Errno;
use exeunt_abi::kvm::events::{
    SHADOW_INT_MOV_SS, SHADOW_INT_STI, VALID_ALL, VALID_NMI_PENDING, VALID_PAYLOAD, VALID_SHADOW,
    VALID_SIPI_VECTOR, VALID_SMM, VALID_TRIPLE_FAULT, VcpuEvents,
};
use zerocopy::FromZeros;

/// DR6 as it is without a cause: the bits that read as one.
pub(crate) const DR6_ACTIVE_LOW: u64 = 0xffff_0ff0;
/// `KVM_REQ_*`, as far as events need them.
pub(crate) mod request {
    /// `KVM_REQ_EVENT`: look for something to inject.
    pub(crate) const EVENT: u8 = 1;
    /// `KVM_REQ_NMI`: NMIs are queued.
    pub(crate) const NMI: u8 = 2;
    /// `KVM_REQ_SMI`: an SMI came.
    pub(crate) const SMI: u8 = 4;
    /// `KVM_REQ_TRIPLE_FAULT`.
    pub(crate) const TRIPLE_FAULT: u8 = 8;
}

/// Which capabilities of events the VMM has enabled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventCaps {
    pub(crate) payload: bool,
    /// The vCPU waits for a startup interrupt, and the kernel does not let it into system management mode then.
    pub(crate) waits_for_sipi: bool,
    pub(crate) triple_fault: TripleFaults,
    /// Pending NMIs are counted.
    pub(crate) counts_nmis: bool,
}

/// What the VM's events make of triple faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TripleFaults {
    /// The kernel does not know the flag.
    Unknown,
    /// The flag raises one, and nothing reports it.
    OneWay,
    /// The kernel knows the flag and the VMM did not enable the capability.
    Off,
    /// Both ways.
    On,
}

#[expect(clippy::struct_excessive_bools, reason = "the kernel's structure, field by field")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exception {
    pub(crate) injected: bool,
    pub(crate) pending: bool,
    pub(crate) nr: u8,
    pub(crate) has_error_code: bool,
    pub(crate) error_code: u32,
    pub(crate) has_payload: bool,
    pub(crate) payload: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interrupt {
    pub(crate) injected: bool,
    /// Raised by an instruction, which will raise it again: it is never reported.
    pub(crate) soft: bool,
    pub(crate) nr: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nmis {
    pub(crate) injected: bool,
    pub(crate) masked: bool,
    pub(crate) pending: u32,
    /// Came in and not yet looked at.
    pub(crate) queued: u32,
    /// Whether the one that an AMD processor with virtual NMIs can hold waits in it.
    pub(crate) virtual_pending: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Smm {
    pub(crate) active: bool,
    pub(crate) inside_nmi: bool,
    pub(crate) smi_pending: bool,
}

/// What a local APIC in the kernel has to do with events. The VMs of the model leave theirs to userspace.
#[expect(clippy::struct_excessive_bools, reason = "the kernel's fields, each for itself")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalApic {
    /// The APIC is in the kernel; the rest counts only then.
    pub(crate) in_kernel: bool,
    /// `apic_init_signal_blocked`: a TD's vCPUs take neither INIT nor startup interrupts.
    pub(crate) takes_no_init: bool,
    pub(crate) latched_init: bool,
    /// A startup interrupt waits.
    pub(crate) pending_sipi: bool,
    pub(crate) sipi_vector: u32,
}

/// What a vCPU carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventState {
    pub(crate) host: Host,
    pub(crate) exception: Exception,
    /// An exception that is to leave a nested guest.
    pub(crate) exiting: Exception,
    pub(crate) from_userspace: bool,
    pub(crate) interrupt: Interrupt,
    /// `KVM_X86_SHADOW_INT_*`, as the processor holds them: SVM cannot tell the two apart, VMX has one at a time.
    pub(crate) shadow: u8,
    pub(crate) nmi: Nmis,
    /// `None` in a kernel built without system management mode.
    pub(crate) smm: Option<Smm>,
    pub(crate) apic: LocalApic,
    pub(crate) dr6: u64,
    pub(crate) cr2: u64,
    /// Bits of [`request`].
    pub(crate) requests: u8,
}

impl EventState {
    /// A vCPU that was just made.
    pub(crate) fn new(host: Host) -> Self {
        let nmi = Nmis {
            virtual_pending: (host.virtual_nmi && !host.is_intel()).then_some(false),
            ..Nmis::default()
        };
        Self {
            host,
            exception: Exception::default(),
            exiting: Exception::default(),
            from_userspace: false,
            interrupt: Interrupt::default(),
            shadow: 0,
            nmi,
            smm: Some(Smm::default()),
            apic: LocalApic::default(),
            dr6: DR6_ACTIVE_LOW,
            cr2: 0,
            requests: 0,
        }
    }

    /// `KVM_GET_VCPU_EVENTS`. The triple fault is reported, not taken; NMIs, an SMI and a payload that nobody asked
    /// to see are processed on the way.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_x86_get_vcpu_events`.
    pub(crate) fn get(&mut self, caps: EventCaps) -> VcpuEvents {
        self.process_nmi();
        self.process_smi();
        let ex = self.reported_exception(caps.payload);
        let smm = self.smm.unwrap_or_default();
        let mut events = VcpuEvents::new_zeroed();
        // Soft exceptions are raised again by their instruction, so they are not reported as waiting.
        if !matches!(ex.nr, Vector::BP | Vector::OF) {
            // Without the capability a pending exception counts as injected, too.
            events.exception_injected = u8::from(ex.injected || (ex.pending && !caps.payload));
            events.exception_pending = u8::from(ex.pending);
        }
        events.exception_nr = ex.nr;
        events.exception_has_error_code = u8::from(ex.has_error_code);
        events.exception_error_code = ex.error_code;
        events.exception_has_payload = u8::from(ex.has_payload);
        events.exception_payload = ex.payload;
        events.interrupt_injected = u8::from(self.interrupt.injected && !self.interrupt.soft);
        events.interrupt_nr = self.interrupt.nr;
        events.interrupt_shadow = self.shadow;
        events.nmi_injected = u8::from(self.nmi.injected);
        let in_hardware = u32::from(self.nmi.virtual_pending == Some(true));
        let nmis = self.nmi.pending.saturating_add(in_hardware);
        let nmis = if caps.counts_nmis { nmis } else { nmis.min(1) };
        events.nmi_pending = u8::try_from(nmis).unwrap_or(u8::MAX);
        events.nmi_masked = u8::from(self.nmi.masked);
        events.smi_smm = u8::from(smm.active);
        events.smi_pending = u8::from(smm.smi_pending);
        events.smi_smm_inside_nmi = u8::from(smm.inside_nmi);
        events.smi_latched_init = u8::from(self.apic.in_kernel && self.apic.latched_init);
        // The flag is set without system management mode, too.
        events.flags = VALID_NMI_PENDING | VALID_SHADOW | VALID_SMM;
        if caps.payload {
            events.flags |= VALID_PAYLOAD;
        }
        if caps.triple_fault == TripleFaults::On {
            events.flags |= VALID_TRIPLE_FAULT;
            events.triple_fault_pending = u8::from(self.is_requested(request::TRIPLE_FAULT));
        }
        events
    }

    /// `KVM_SET_VCPU_EVENTS`. The flag of the triple fault is checked last, after the rest has been taken over.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_x86_set_vcpu_events`.
    ///
    /// `leave_nested` is called where a change of system management mode takes L1 back.
    pub(crate) fn set(
        &mut self,
        events: &VcpuEvents,
        caps: EventCaps,
        mut leave_nested: impl FnMut(),
    ) -> Result<(), Errno> {
        let known = match caps.triple_fault {
            TripleFaults::Unknown => VALID_ALL & !VALID_TRIPLE_FAULT,
            _ => VALID_ALL,
        };
        if events.flags & !known != 0 {
            return Err(Errno::EINVAL);
        }
        let exception = checked_exception(events, caps.payload)?;
        let enters_smm = events.smi_smm != 0 || events.smi_pending != 0;
        if caps.waits_for_sipi && events.flags & VALID_SMM != 0 && enters_smm {
            return Err(Errno::EINVAL);
        }
        // With the limit of the old state.
        self.process_nmi();
        self.from_userspace = exception.pending;
        self.exiting.pending = false;
        self.exception = exception;
        self.interrupt = Interrupt {
            injected: events.interrupt_injected != 0,
            soft: events.interrupt_soft != 0,
            nr: events.interrupt_nr,
        };
        let has = |flag: u32| events.flags & flag != 0;
        if has(VALID_SHADOW) {
            self.set_shadow(events.interrupt_shadow);
        }
        self.nmi.injected = events.nmi_injected != 0;
        if has(VALID_NMI_PENDING) {
            self.nmi.pending = 0;
            // Clamped when they are processed. Setting none does not take a request back.
            self.nmi.queued = u32::from(events.nmi_pending);
            if events.nmi_pending != 0 {
                self.request(request::NMI);
            }
        }
        self.nmi.masked = events.nmi_masked != 0;
        if has(VALID_SIPI_VECTOR) && self.apic.in_kernel {
            self.apic.sipi_vector = events.sipi_vector;
        }
        if has(VALID_SMM) {
            // The byte is compared as it is: 2 is a change in system management mode, too.
            if self.smm.is_some_and(|smm| u8::from(smm.active) != events.smi_smm) {
                leave_nested();
            }
            self.set_smm(events)?;
        }
        if has(VALID_TRIPLE_FAULT) {
            let raise = match caps.triple_fault {
                TripleFaults::Unknown | TripleFaults::Off => return Err(Errno::EINVAL),
                // The proposal has no byte beside its flag.
                TripleFaults::OneWay => true,
                TripleFaults::On => {
                    self.requests &= !request::TRIPLE_FAULT;
                    events.triple_fault_pending != 0
                }
            };
            if raise {
                self.request(request::TRIPLE_FAULT);
            }
        }
        self.request(request::EVENT);
        Ok(())
    }

    /// `set_interrupt_shadow` of the vendor. VMX lets `MOV SS` win over `STI` and has neither for other bits.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/vmx.c`, `vmx_set_interrupt_shadow`, and `svm/svm.c`,
    /// `svm_set_interrupt_shadow`.
    fn set_shadow(&mut self, shadow: u8) {
        self.shadow = match (self.host.is_intel(), shadow) {
            (false, 0) => 0,
            (false, _) => SHADOW_INT_MOV_SS | SHADOW_INT_STI,
            (true, shadow) if shadow & SHADOW_INT_MOV_SS != 0 => SHADOW_INT_MOV_SS,
            (true, shadow) => shadow & SHADOW_INT_STI,
        };
    }

    fn set_smm(&mut self, events: &VcpuEvents) -> Result<(), Errno> {
        let [active, smi_pending, inside_nmi] =
            [events.smi_smm, events.smi_pending, events.smi_smm_inside_nmi].map(|byte| byte != 0);
        match &mut self.smm {
            Some(smm) => {
                let left = smm.active && !active;
                // What is said about NMIs counts inside only; leaving forgets it.
                let inside_nmi = if active { inside_nmi } else { smm.inside_nmi && !left };
                *smm = Smm { active, inside_nmi, smi_pending };
                if left {
                    self.request(request::EVENT);
                }
            }
            None if active || smi_pending || inside_nmi => return Err(Errno::EINVAL),
            None => {}
        }
        if self.apic.in_kernel {
            self.apic.latched_init = events.smi_latched_init != 0;
        }
        Ok(())
    }

    /// The requests behind the triple fault, in the order in which KVM serves them before it enters the guest.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `vcpu_enter_guest`.
    pub(crate) fn serve_requests(&mut self) {
        if self.requests == 0 {
            return;
        }
        self.process_smi();
        if self.is_requested(request::NMI) {
            self.clear_request(request::NMI);
            self.process_nmi();
        }
        self.clear_request(request::EVENT);
    }

    /// Something waits that wakes a vCPU up which halted.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_has_events`.
    pub(crate) fn has_events(&self) -> bool {
        let init_or_sipi = self.apic.latched_init || self.apic.pending_sipi;
        let nmi_allowed = !self.nmi.masked && self.shadow == 0;
        let smi_allowed = self.smm.is_some_and(|smm| !smm.active);
        self.apic.in_kernel && init_or_sipi && !self.blocks_init()
            || self.exception.pending
            || self.exiting.pending
            || self.is_requested(request::NMI | request::SMI | request::TRIPLE_FAULT)
            || self.nmi.pending > 0 && nmi_allowed
            || self.has_smi() && smi_allowed
    }

    /// INITs stay latched, and startup interrupts are dropped: in system management mode, and in TDs.
    pub(crate) fn blocks_init(&self) -> bool {
        self.apic.takes_no_init || self.smm.is_some_and(|smm| smm.active)
    }

    /// An SMI waits.
    pub(crate) fn has_smi(&self) -> bool {
        self.smm.is_some_and(|smm| smm.smi_pending)
    }

    /// The guest's NMI handler is done.
    pub(crate) fn nmi_complete(&mut self) {
        self.nmi.masked = false;
        self.request(request::EVENT);
    }

    pub(crate) fn request(&mut self, which: u8) {
        self.requests |= which;
    }

    pub(crate) const fn clear_request(&mut self, which: u8) {
        self.requests &= !which;
    }

    /// `kvm_check_request`: takes a request.
    pub(crate) const fn take_request(&mut self, which: u8) -> bool {
        let was = self.is_requested(which);
        self.clear_request(which);
        was
    }

    pub(crate) const fn is_requested(&self, which: u8) -> bool {
        self.requests & which != 0
    }

    /// Moves queued NMIs to the pending ones: one behind an NMI that is masked or injected, else two, and one of them
    /// may wait in hardware.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `process_nmi`.
    fn process_nmi(&mut self) {
        let nmi = &mut self.nmi;
        let blocked = nmi.masked || nmi.injected;
        let in_hardware = u32::from(nmi.virtual_pending == Some(true));
        let limit = if blocked { 1u32 } else { 2 }.saturating_sub(in_hardware);
        nmi.pending = nmi.pending.saturating_add(std::mem::take(&mut nmi.queued)).min(limit);
        if nmi.pending > 0 && nmi.virtual_pending == Some(false) {
            nmi.virtual_pending = Some(true);
            nmi.pending = nmi.pending.saturating_sub(1);
        }
        if nmi.pending > 0 {
            self.request(request::EVENT);
        }
    }

    fn process_smi(&mut self) {
        let Some(smm) = &mut self.smm else { return };
        if self.requests & request::SMI != 0 {
            self.requests &= !request::SMI;
            smm.smi_pending = true;
            self.request(request::EVENT);
        }
    }

    /// The one exception that is reported: the one that leaves a nested guest only if there is no other. A payload
    /// that userspace does not know how to carry is delivered first.
    fn reported_exception(&mut self, payload: bool) -> Exception {
        let only_exiting = self.exiting.pending && !self.exception.pending && !self.exception.injected;
        let mut ex = if only_exiting { self.exiting } else { self.exception };
        if !payload && ex.pending && ex.has_payload {
            self.deliver_payload(ex);
            (ex.has_payload, ex.payload) = (false, 0);
            *if only_exiting { &mut self.exiting } else { &mut self.exception } = ex;
        }
        ex
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
    if (injected || pending) && (nr > 31 || nr == Vector::NMI) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_system_management_mode_refuses_it_after_the_rest_is_taken() {
        let caps = EventCaps {
            payload: true,
            waits_for_sipi: false,
            triple_fault: TripleFaults::On,
            counts_nmis: true,
        };
        let bytes: [fn(&mut VcpuEvents); 3] = [
            |events| events.smi_smm = 1,
            |events| events.smi_pending = 1,
            |events| events.smi_smm_inside_nmi = 1,
        ];
        for set in bytes {
            let mut state = EventState { smm: None, ..EventState::new(Host::AMD) };
            let mut events = VcpuEvents::new_zeroed();
            events.flags = VALID_SMM | VALID_SHADOW | VALID_TRIPLE_FAULT;
            (events.exception_injected, events.exception_nr) = (1, Vector::GP);
            (events.interrupt_shadow, events.nmi_masked, events.triple_fault_pending) = (1, 1, 1);
            set(&mut events);
            assert_eq!(state.set(&events, caps, || {}), Err(Errno::EINVAL));
            assert!(state.exception.injected && state.shadow != 0 && state.nmi.masked, "taken");
            assert_eq!(state.requests, 0, "neither the triple fault nor a look at the events");
            let mut plain = events;
            (plain.smi_smm, plain.smi_pending, plain.smi_smm_inside_nmi) = (0, 0, 0);
            assert_eq!(state.set(&plain, caps, || {}), Ok(()));
            assert_eq!(state.requests, request::TRIPLE_FAULT | request::EVENT);
            assert_ne!(state.get(caps).flags & VALID_SMM, 0, "the flag is reported all the same");
        }
    }
}
