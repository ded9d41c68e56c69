//! What KVM makes of a return from `TDH.VP.ENTER`.

use crate::faults::{Fault, Point};
use crate::guest::mailbox::Outcome;
use crate::vcpu::{MpState, OnEntry, Step, Vcpu};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::tdx::CompletionStatus;
use exeunt_abi::{Errno, Gfn};
use exeunt_proto::exit::{Exit, FailEntry, InternalError, Words};

/// VMX exit reasons, bits 15:0.
///
/// Source: Linux v7.2 `arch/x86/include/uapi/asm/vmx.h`.
mod basic {
    pub(super) const EXCEPTION_NMI: u32 = 0;
    pub(super) const EXTERNAL_INTERRUPT: u32 = 1;
    pub(super) const TRIPLE_FAULT: u32 = 2;
    pub(super) const OTHER_SMI: u32 = 6;
    pub(super) const EPT_VIOLATION: u32 = 48;
    pub(super) const EPT_MISCONFIG: u32 = 49;
    pub(super) const TDCALL: u32 = 77;
}

/// Bit 31 of a VMX exit reason: the entry failed.
const FAILED_VMENTRY: u32 = 1 << 31;
/// The exit reason where the module gave none.
const NO_REASON: u32 = u32::MAX;
/// `KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON`.
const UNEXPECTED_EXIT_REASON: u32 = 4;
/// Where `ex.exception` and `ex.error_code` lie together, and how long they are.
const EX_BYTES: [u8; 8] = [0; 8];

/// The status of `TDH.VP.ENTER` after a `TDG.VP.VMCALL`.
pub(super) const TDCALL: CompletionStatus = CompletionStatus(basic::TDCALL as u64);
/// The status after a triple fault in the guest: the module disables the vCPU.
const TRIPLE_FAULT: CompletionStatus = CompletionStatus::NON_RECOVERABLE_VCPU.with(basic::TRIPLE_FAULT);

impl Vcpu {
    /// What `KVM_RUN` needs of a TD and its vCPU.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_vcpu_pre_run`.
    pub(crate) fn td_can_run(&self, is_runnable: bool) -> bool {
        self.vm_type != VmType::Tdx || (self.td.is_initialized && is_runnable)
    }

    /// `TDH.VP.ENTER`: `None` if the guest runs, otherwise what becomes of the refusal.
    pub(crate) fn td_enter(&mut self) -> Option<Step> {
        if self.vm_type != VmType::Tdx {
            return None;
        }
        let status = self.td_refusal()?;
        Some(self.td_handle_exit(status))
    }

    fn td_refusal(&mut self) -> Option<CompletionStatus> {
        // An NMI is handed to the module, which collapses it with one that waits there.
        self.events.nmi.pending = 0;
        self.events.nmi.injected = false;
        if self.vm.lock().td.is_fatal {
            return Some(CompletionStatus::TD_FATAL);
        }
        if self.td.is_disabled {
            return Some(CompletionStatus::VCPU_STATE_INCORRECT);
        }
        match self.vm.faults.at(Point::VpEnter)? {
            Fault::VpEnter(status) => Some(status),
            _ => None,
        }
    }

    /// A private page was touched that the TD did not accept: KVM lets the VM die.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_handle_ept_violation`.
    pub(crate) fn td_touches_unaccepted(&mut self, gfn: Gfn) -> Step {
        self.did(|| format!("touches {:#x} before it accepted the page", gfn.gpa().0));
        self.vm.kill();
        Step::Exit(Err(Errno::EIO))
    }

    /// A triple fault in the guest.
    pub(crate) fn td_triple_fault(&mut self) -> Step {
        self.td_handle_exit(TRIPLE_FAULT)
    }

    /// Handles a return of the module to KVM.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_to_vmx_exit_reason` and `tdx_handle_exit`.
    pub(super) fn td_handle_exit(&mut self, status: CompletionStatus) -> Step {
        match status.class() {
            CompletionStatus::NON_RECOVERABLE_VCPU => self.td.is_disabled = true,
            CompletionStatus::NON_RECOVERABLE_TD
            | CompletionStatus::NON_RECOVERABLE_TD_NON_ACCESSIBLE
            | CompletionStatus::NON_RECOVERABLE_TD_WRONG_APIC_MODE => self.vm.lock().td.is_fatal = true,
            _ => {}
        }
        if status.class() == CompletionStatus::OPERAND_BUSY {
            // The fast path: enter again.
            return Step::Resume;
        }
        if status.0 == u64::from(basic::EPT_MISCONFIG) {
            self.vm.kill();
            return Step::Exit(Err(Errno::EIO));
        }
        if status.0 & CompletionStatus::SW_ERROR == CompletionStatus::SW_ERROR {
            self.vm.kill();
            return self.unhandled_exit(status);
        }
        let full = exit_reason(status);
        if full & FAILED_VMENTRY != 0 && full != NO_REASON {
            return Step::Exit(self.exit(&Exit::FailEntry(FailEntry { reason: u64::from(full), cpu: 0 })));
        }
        let is_lost = status.0 & (CompletionStatus::ERROR | CompletionStatus::NON_RECOVERABLE) != 0;
        let reason = full & 0xffff;
        if is_lost && reason != basic::TRIPLE_FAULT {
            return self.unhandled_exit(status);
        }
        match reason {
            basic::TRIPLE_FAULT => Step::Exit(self.exit(&Exit::Shutdown)),
            basic::EXCEPTION_NMI => {
                self.page.set_bytes(0, &EX_BYTES);
                self.page.exit_reason = ExitReason::EXCEPTION.0;
                Step::Exit(Ok(()))
            }
            basic::EXTERNAL_INTERRUPT | basic::OTHER_SMI | basic::EPT_VIOLATION => Step::Resume,
            basic::TDCALL => self.handle_tdvmcall(status),
            _ => self.unhandled_exit(status),
        }
    }

    fn unhandled_exit(&mut self, status: CompletionStatus) -> Step {
        // The second word is the host CPU.
        let data = Words::from_slice(&[status.0, 0]);
        Step::Exit(self.exit(&Exit::InternalError(InternalError { suberror: UNEXPECTED_EXIT_REASON, data })))
    }

    /// `TDVMCALL` with the leaf `HLT`, or a guest that has nothing more to do: the vCPU blocks in the kernel, which has its
    /// local APIC.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_emulate_halt_noskip`.
    pub(crate) fn td_halt(&mut self, on_entry: OnEntry) -> Step {
        self.on_entry = Some(on_entry);
        self.halt(MpState::Halted, &Exit::Hlt)
    }

    /// What the guest gets at the end of a `TDG.VP.VMCALL`.
    pub(crate) fn td_registers(&self) -> Outcome {
        let mut regs = self.td.guest;
        regs.take(self.td.args, regs.rcx);
        regs.rax = CompletionStatus::SUCCESS.0;
        Outcome::Tdcall(Box::new(regs))
    }
}

/// The VMX exit reason in a status, or [`NO_REASON`].
fn exit_reason(status: CompletionStatus) -> u32 {
    match status.class() {
        CompletionStatus::SUCCESS
        | CompletionStatus::NON_RECOVERABLE_VCPU
        | CompletionStatus::NON_RECOVERABLE_TD
        | CompletionStatus::NON_RECOVERABLE_TD_NON_ACCESSIBLE
        | CompletionStatus::NON_RECOVERABLE_TD_WRONG_APIC_MODE => status.details(),
        _ => NO_REASON,
    }
}
