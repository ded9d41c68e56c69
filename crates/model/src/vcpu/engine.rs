//! The run loop: serves requests, enters the guest, and does what the hardware and KVM do for each act.

use crate::guest::mailbox::{Op, Outcome};
use crate::guest::{GuestFault, Note};
use crate::vcpu::{MpState, OnEntry, Vcpu};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Errno};
use exeunt_proto::exit::{Entered, Exit, FailEntry, encode};

/// What became of an act.
pub(crate) enum Step {
    /// The guest goes on with this result.
    Guest(Outcome),
    /// The exit is handled in the kernel; the guest goes on with what [`OnEntry`] says.
    Resume,
    /// `KVM_RUN` returns.
    Exit(Entered),
}

impl Vcpu {
    /// `vcpu_run`: enters the guest until something needs userspace.
    pub(crate) fn run_loop(&mut self) -> Entered {
        loop {
            if self.vm.is_dead() {
                return Err(Errno::EIO);
            }
            if let Some(entered) = self.before_entry() {
                return entered;
            }
            match self.td_enter() {
                Some(Step::Exit(entered)) => return entered,
                Some(_) => continue,
                None => {}
            }
            if !self.launched || self.shut_down || !self.vmsa_is_valid() {
                // No valid VMSA, or one that was shut down: KVM refuses in software and reports it as the hardware would.
                return self.exit(&Exit::FailEntry(FailEntry {
                    reason: self.kernel.dialect.svm_exit_err(),
                    cpu: 0,
                }));
            }
            self.unmap_ghcb();
            self.inject_interrupt();
            let outcome = self.on_entry.take().map(|on_entry| match on_entry {
                OnEntry::Nothing => Outcome::Done,
                OnEntry::GhcbMsr => Outcome::Value(self.ghcb.msr),
                OnEntry::Rax => Outcome::Value(self.regs.rax),
                OnEntry::EdxEax => Outcome::Value(self.regs.rdx << 32 | self.regs.rax & 0xffff_ffff),
                OnEntry::Tdvmcall => self.td_registers(),
                OnEntry::SbiReturn => self.sbi_return(),
                OnEntry::Emulated => self.emulated_outcome(),
            });
            let outcome = self.entering(outcome);
            let op = match self.retry.take() {
                Some(op) => op,
                None => self.guest.next_op(outcome),
            };
            if let Some(entered) = self.run_op(op) {
                return entered;
            }
        }
    }

    /// Does an act, and those that follow without a reason to leave the inner loop.
    fn run_op(&mut self, mut op: Op) -> Option<Entered> {
        loop {
            match self.do_op(op) {
                Step::Guest(outcome) => {
                    op = self.guest.next_op(Some(outcome));
                    if self.is_interrupted() || !self.peer.is_running() || self.peer.has_mail() {
                        self.retry = Some(op);
                        return None;
                    }
                }
                Step::Resume => return None,
                Step::Exit(entered) => return Some(entered),
            }
        }
    }

    fn do_op(&mut self, op: Op) -> Step {
        match op {
            Op::Read { .. } | Op::Write { .. } | Op::Pvalidate { .. } | Op::Rmpadjust { .. } => {
                self.access_memory(op)
            }
            Op::Vmgexit { ghcb_msr } => self.vmgexit(ghcb_msr),
            Op::Vmmcall { nr, args } => self.vmmcall(nr, args),
            Op::PortOut { port, size, value } => self.port_op(true, port, size, value),
            Op::PortIn { port, size } => self.port_op(false, port, size, 0),
            Op::PortString { is_out, port, size, at, elements } => {
                self.string_op(is_out, port, size, at, elements)
            }
            Op::Rdmsr { index } => self.rdmsr_op(index),
            Op::Wrmsr { index, value } => self.wrmsr_op(index, value),
            Op::Cpuid { function, index } => self.cpuid_op(function, index),
            Op::Tdcall(regs) => self.tdcall(&regs),
            Op::InitialRcx => Step::Guest(Outcome::Value(self.td.initial_rcx)),
            Op::Hlt if self.vm_type == VmType::Tdx => self.td_halt(OnEntry::Nothing),
            Op::TripleFault if self.vm_type == VmType::Tdx => self.td_triple_fault(),
            Op::Hlt if self.kernel.arch != Arch::X86 => self.wait_for_interrupt(),
            Op::Hlt => {
                self.on_entry = Some(OnEntry::Nothing);
                self.halt(MpState::Halted, &Exit::Hlt)
            }
            Op::TripleFault => self.triple_fault(),
            Op::CloseEventWindow { context_invalid } => self.notify(context_invalid),
            Op::EnterL2 { control, intercepts } => self.enter_l2(control, intercepts),
            Op::ExitL2 => self.exit_l2(),
            Op::WriteCr4 { value } => self.write_cr4(value),
            Op::HypervWrite { index, value } => self.hyperv_write(index, value),
            Op::Psci { function, args } => self.psci(function, args),
            Op::Sbi { extension, function, args } => self.sbi_call(extension, function, args),
        }
    }

    /// Writes an exit into the page, as this kernel writes it.
    pub(crate) fn exit(&mut self, exit: &Exit) -> Entered {
        encode(exit, self.kernel, &mut self.page)
    }

    /// Notes what the guest did, if anyone listens.
    pub(crate) fn did(&self, what: impl FnOnce() -> String) {
        self.guest.note(|| Note::Did(what()));
    }

    pub(crate) fn is_plain_x86(&self) -> bool {
        self.kernel.arch == Arch::X86 && !self.is_es && self.vm_type != VmType::Tdx
    }

    /// The exception of an instruction that leaves the guest, in a guest that the host cannot look into, or of one
    /// that the processor does not have.
    pub(crate) fn not_emulated(&self) -> GuestFault {
        match self.kernel.arch {
            Arch::X86 if self.vm_type == VmType::Tdx => GuestFault::VirtualizationException { gpa: 0 },
            Arch::X86 if self.is_es => GuestFault::VmmCommunication,
            Arch::X86 => GuestFault::GeneralProtection,
            _ => GuestFault::InvalidOpcode,
        }
    }
}
