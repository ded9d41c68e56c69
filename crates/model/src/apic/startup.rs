//! What a processor does with what came for it: it wakes up, is reset by INIT and started by a startup interrupt.

use super::{ApicRegisters, Inbox};
use crate::events::request;
use crate::ghcb::ApResetHold;
use crate::vcpu::{MpState, Regs, Step, Vcpu};
use exeunt_abi::ghcb::msr;
use exeunt_proto::exit::Exit;

/// RDX after an INIT where CPUID does not show the processor's signature: family 6.
const SIGNATURE: u32 = 0x600;
/// RIP after an INIT. The base of CS is 0xffff0000.
const RESET_RIP: u64 = 0xfff0;

impl Inbox {
    /// Something is there that wakes a processor up.
    pub(crate) fn wakes(&self) -> bool {
        self.init
            || self.sipi.is_some()
            || self.interrupts != [0; 4]
            || self.nmis > 0
            || self.smi
            || self.unhalted
            || self.update_vmsa
    }
}

impl Vcpu {
    /// Looks at what others have sent.
    pub(crate) fn take_inbox(&mut self) {
        let Some(inbox) = self.peer.take_inbox() else { return };
        let events = &mut self.events;
        if inbox.init {
            (events.apic.latched_init, events.apic.pending_sipi) = (true, false);
        }
        if let Some(vector) = inbox.sipi {
            (events.apic.pending_sipi, events.apic.sipi_vector) = (true, u32::from(vector));
        }
        if inbox.nmis > 0 {
            events.nmi.queued = events.nmi.queued.saturating_add(inbox.nmis);
            events.request(request::NMI);
        }
        if inbox.smi {
            events.request(request::SMI);
        }
        events.request(request::EVENT);
        self.apic.requested.iter_mut().zip(inbox.interrupts).for_each(|(to, from)| *to |= from);
        self.apic.unhalted |= inbox.unhalted;
        self.ap.update |= inbox.update_vmsa;
    }

    /// Something waits that wakes the vCPU up. The guests of the model take interrupts whenever they halt.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_has_events`.
    pub(crate) fn has_events(&self) -> bool {
        self.events.has_events() || self.apic.unhalted || self.apic.requested != [0; 4] || self.ap.update
    }

    /// Acts on INIT and startup interrupts. In system management mode an INIT stays and a startup interrupt is lost.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/lapic.c`, `kvm_apic_accept_events`.
    pub(crate) fn accept_apic_events(&mut self) {
        if !self.has_apic() {
            return;
        }
        if self.events.blocks_init() {
            self.events.apic.pending_sipi = false;
            return;
        }
        if std::mem::take(&mut self.events.apic.latched_init) {
            self.did(|| "gets an INIT".into());
            self.reset_by_init();
            let to = if self.is_bsp() { MpState::Runnable } else { MpState::InitReceived };
            self.peer.set_mp_state(to);
        }
        let sipi = std::mem::take(&mut self.events.apic.pending_sipi);
        if sipi && self.peer.mp_state() == MpState::InitReceived {
            let [vector, ..] = self.events.apic.sipi_vector.to_le_bytes();
            self.did(|| format!("gets a startup interrupt, vector {vector:#x}"));
            self.deliver_sipi(vector);
            self.peer.set_mp_state(MpState::Runnable);
        }
    }

    /// `kvm_vcpu_reset` by an INIT. An SEV-ES guest's own registers are out of its reach.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_reset`; `svm/svm.c`, `svm_vcpu_reset`.
    pub(crate) fn reset_by_init(&mut self) {
        self.leave_nested();
        // The program goes on, but not as L1.
        self.nested.exit = None;
        self.events.init();
        self.cr4 = 0;
        self.registers.init();
        self.apic.init();
        self.peer.enable_apic(false);
        let signature = self.cpuid.find(1, 0).map_or(SIGNATURE, |entry| entry.eax);
        self.regs = Regs { rdx: u64::from(signature), rip: RESET_RIP, ..Regs::default() };
        self.update_vmsa();
        if !self.is_es && !self.vm_type.has_protected_state() {
            self.raised = None;
            self.restart_program();
        }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_deliver_sipi_vector`; `svm/sev.c`,
    /// `sev_vcpu_deliver_sipi_vector`.
    fn deliver_sipi(&mut self, vector: u8) {
        self.guest.view().set_sipi_vector(vector);
        if !self.is_es && !self.vm_type.has_protected_state() {
            self.registers.start_at(vector);
            self.regs.rip = u64::from(vector) << 12;
            return;
        }
        // The first one starts the processor with the state that userspace gave it.
        if !std::mem::replace(&mut self.ghcb.received_first_sipi, true) {
            return;
        }
        match self.ghcb.hold {
            ApResetHold::None => {}
            ApResetHold::ByPage => self.ghcb.answer(&mut self.vm.lock().memory, 0, 1),
            ApResetHold::ByMsr => self.ghcb.msr = 1 << 12 | msr::AP_RESET_HOLD_RESPONSE,
        }
    }

    /// The guest waits for an event: with a local APIC in the kernel there, without one in userspace.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `__kvm_emulate_halt`.
    pub(crate) fn halt(&mut self, state: MpState, exit: &Exit) -> Step {
        if !self.has_apic() {
            return Step::Exit(self.exit(exit));
        }
        self.take_inbox();
        self.apic.unhalted &= state != MpState::Halted;
        if !self.has_events() {
            self.peer.set_mp_state(state);
        }
        Step::Resume
    }

    /// Delivers the interrupt that waits, if one does. The guests of the model handle it at once.
    pub(crate) fn inject_interrupt(&mut self) {
        if let Some(vector) = self.apic.take_interrupt() {
            self.did(|| format!("gets interrupt {vector:#x}"));
            self.guest.view().add_interrupt(vector);
        }
    }

    /// The registers of the local APIC of a new vCPU.
    pub(crate) fn new_apic(is_bsp: bool) -> ApicRegisters {
        ApicRegisters::after_reset(is_bsp)
    }
}
