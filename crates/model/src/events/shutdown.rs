//! What the processor reports by itself: a triple fault, and a guest that opens no window for events.

use super::{DR6_ACTIVE_LOW, EventState, request};
use crate::guest::GuestFault;
use crate::guest::mailbox::Outcome;
use crate::nested::NestedExit;
use crate::vcpu::{OnEntry, Step, Vcpu};
use exeunt_abi::Arch;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::NOTIFY_CONTEXT_INVALID;
use exeunt_proto::exit::Exit;

/// `KVM_X86_NOTIFY_VMEXIT_ENABLED` and `KVM_X86_NOTIFY_VMEXIT_USER`.
const NOTIFY_ENABLED: u64 = 1 << 0;
const NOTIFY_USER: u64 = 1 << 1;

impl EventState {
    /// `kvm_vcpu_reset`, as an INIT does it. What is cleared of an exception is that it waits.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_reset`, and `svm/svm.c`, `init_vmcb`.
    pub(crate) fn init(&mut self) {
        if let Some(smm) = &mut self.smm {
            (smm.active, smm.inside_nmi, smm.smi_pending) = (false, false, false);
        }
        (self.nmi.queued, self.nmi.pending) = (0, 0);
        (self.nmi.injected, self.nmi.masked) = (false, false);
        if let Some(pending) = &mut self.nmi.virtual_pending {
            *pending = false;
        }
        self.shadow = 0;
        (self.exception.pending, self.exception.injected) = (false, false);
        self.exiting.pending = false;
        self.interrupt.injected = false;
        self.dr6 = DR6_ACTIVE_LOW;
        self.cr2 = 0;
        self.request(request::EVENT);
    }
}

impl Vcpu {
    /// The processor found a triple fault.
    ///
    /// A plain guest on AMD is reset to its INIT state before userspace learns of it, because its VMCB is undefined;
    /// [`Vcpu::load`] says what it runs then. The VMSA of an SEV-ES guest is encrypted, and
    /// the processor does not run it again. On Intel nothing changes.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/svm.c`, `shutdown_interception`, and `vmx/vmx.c`, `handle_triple_fault`.
    pub(crate) fn triple_fault(&mut self) -> Step {
        self.did(|| "takes a triple fault".into());
        if let Some(reason) = self.l1_wants_shutdown() {
            self.nested_vmexit(NestedExit { reason, ..NestedExit::default() });
            return Step::Resume;
        }
        self.on_entry = Some(OnEntry::Nothing);
        if self.is_es || self.vm_type.has_protected_state() {
            self.shut_down = true;
        } else if !self.is_intel() {
            self.reset_by_init();
        }
        Step::Exit(self.exit(&Exit::Shutdown))
    }

    /// `MOV` to CR4.
    pub(crate) fn write_cr4(&mut self, value: u64) -> Step {
        if self.kernel.arch != Arch::X86 {
            return Step::Guest(Outcome::Fault(GuestFault::InvalidOpcode));
        }
        self.cr4 = value;
        Step::Guest(Outcome::Done)
    }

    /// The guest opened no window for events as long as the VMM allows. Without the capability nothing watches it.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/vmx.c`, `handle_notify`.
    pub(crate) fn notify(&mut self, context_invalid: bool) -> Step {
        let enabled = self.vm.lock().cap(Cap::X86_NOTIFY_VMEXIT);
        let exits = enabled & NOTIFY_USER != 0 || context_invalid;
        if enabled & NOTIFY_ENABLED == 0 || !exits {
            return Step::Guest(Outcome::Done);
        }
        self.on_entry = Some(OnEntry::Nothing);
        let flags = if context_invalid { NOTIFY_CONTEXT_INVALID } else { 0 };
        Step::Exit(self.exit(&Exit::Notify { flags }))
    }
}

#[cfg(test)]
mod tests {
    use crate::events::{Exception, Vector};
    use crate::host::Host;
    use crate::vcpu::{Regs, Vcpu};
    use crate::{Kvm, MpState};
    use exeunt_abi::Kernel;
    use exeunt_abi::kvm::run::ExitReason;
    use exeunt_abi::kvm::vm_type::VmType;
    use exeunt_proto::host::Vcpu as _;

    /// A vCPU with something in every place that a triple fault could touch.
    fn shut_down(host: Host, vm_type: VmType) -> Vcpu {
        let vm = Kvm::on(host, Kernel::default()).create_vm(vm_type).unwrap();
        if vm_type.has_protected_state() {
            vm.sev_init2(0).unwrap();
            vm.launch().unwrap();
        }
        let program = |cpu: crate::guest::Cpu| async move {
            cpu.triple_fault().await;
            Ok(())
        };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        vcpu.regs = Regs { rax: 1, rbx: 2, rcx: 3, rdx: 4, rsi: 5, rip: 6, cpl: 3 };
        vcpu.cr4 = 0x40;
        vcpu.events.dr6 = 0xffff_0ff3;
        vcpu.events.cr2 = 7;
        vcpu.events.shadow = 3;
        let smm = vcpu.events.smm.as_mut().unwrap();
        (smm.active, smm.inside_nmi) = (true, true);
        vcpu.events.nmi.masked = true;
        vcpu.events.nmi.queued = 2;
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(vcpu.page().reason(), ExitReason::SHUTDOWN);
        vcpu
    }

    #[test]
    fn a_shutdown_on_amd_leaves_the_init_state() {
        let mut vcpu = shut_down(Host::AMD, VmType::Default);
        assert_eq!(vcpu.regs, Regs { rdx: 0x600, rip: 0xfff0, ..Regs::default() });
        assert_eq!((vcpu.events.dr6, vcpu.events.cr2, vcpu.cr4), (0xffff_0ff0, 0, 0));
        assert_eq!(vcpu.events.shadow, 0);
        let smm = vcpu.events.smm.unwrap();
        assert!(!smm.active && !smm.inside_nmi);
        assert!(!vcpu.events.nmi.masked);
        assert_eq!((vcpu.events.nmi.queued, vcpu.events.nmi.pending), (0, 0));
        assert_eq!(vcpu.mp_state(), MpState::Runnable);
    }

    #[test]
    fn a_shutdown_on_intel_and_of_an_encrypted_guest_changes_no_register() {
        for (host, vm_type) in [(Host::INTEL, VmType::Default), (Host::AMD, VmType::SevEs)] {
            let vcpu = shut_down(host, vm_type);
            assert_eq!(vcpu.regs, Regs { rax: 1, rbx: 2, rcx: 3, rdx: 4, rsi: 5, rip: 6, cpl: 3 });
            assert_eq!((vcpu.events.dr6, vcpu.events.cr2, vcpu.cr4), (0xffff_0ff3, 7, 0x40));
            assert!(vcpu.events.smm.unwrap().active);
        }
    }

    #[test]
    fn a_page_fault_that_is_injected_puts_its_address_into_cr2() {
        let vm = Kvm::default().create_vm(VmType::Default).unwrap();
        let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        let fault = Exception { nr: Vector::PF, has_payload: true, payload: 0x5000, ..Exception::default() };
        vcpu.queue_exception(fault);
        assert_eq!(vcpu.events.cr2, 0, "not before it is injected");
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(vcpu.events.cr2, 0x5000);
        let left = vcpu.events.exception;
        assert!(!left.pending && !left.injected && !left.has_payload, "delivered");
        assert_eq!(left.nr, Vector::PF, "stale");
    }
}
