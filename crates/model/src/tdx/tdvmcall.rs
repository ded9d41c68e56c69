//! `TDG.VP.VMCALL` in KVM: the leaves.

use crate::guest::mailbox::Outcome;
use crate::guest::tdx::TdRegs;
use crate::tdx::{MapGpa, TdCompletion};
use crate::vcpu::{Completion, OnEntry, Step, Vcpu};
use exeunt_abi::ghci::{Status, leaf};
use exeunt_abi::tdx::{CompletionStatus, gpr, operand};
use exeunt_proto::exit::{EventType, Exit, SystemEvent, Tdx, TdxCall, Words};
use exeunt_proto::ghci::TdVmCall;

/// Vectors below are the processor's.
const FIRST_VECTOR: u64 = 32;
/// The highest vector.
const LAST_VECTOR: u64 = 255;

impl Vcpu {
    /// The guest's side of `TDG.VP.VMCALL`: the module passes on what RCX selects and zero for the rest.
    ///
    /// Source: Intel 348551 version 1.5, `TDG.VP.VMCALL`.
    pub(super) fn vp_vmcall(&mut self, regs: TdRegs) -> Step {
        if regs.rcx & gpr::REFUSED != 0 {
            let rax = CompletionStatus::OPERAND_INVALID.with(operand::RCX).0;
            return Step::Guest(Outcome::Tdcall(Box::new(TdRegs { rax, ..regs })));
        }
        let mut args = TdRegs { rcx: regs.rcx, ..TdRegs::default() };
        args.take(regs, regs.rcx);
        self.did(|| format!("TDG.VP.VMCALL: {}", TdVmCall::decode(args.r10_to_r15())));
        self.td.guest = regs;
        self.td.args = args;
        self.on_entry = Some(OnEntry::Tdvmcall);
        self.td_handle_exit(super::vp_enter::TDCALL)
    }

    /// R10.
    pub(super) fn set_return_code(&mut self, status: Status) {
        self.td.args.r10 = status.0;
    }

    /// The call is over with this status.
    pub(super) fn answered(&mut self, status: Status) -> Step {
        self.set_return_code(status);
        Step::Resume
    }

    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdcall_to_vmx_exit_reason` and `handle_tdvmcall`.
    pub(super) fn handle_tdvmcall(&mut self, status: CompletionStatus) -> Step {
        let TdRegs { r10, r11, r12, r13, r14, .. } = self.td.args;
        if r10 != 0 {
            return self.td_vendor_call(r10, [r11, r12, r13, r14]);
        }
        match r11 {
            leaf::CPUID => self.td_cpuid(),
            leaf::HLT => self.td_halt(OnEntry::Tdvmcall),
            leaf::IO => self.td_io(),
            leaf::RDMSR => self.td_rdmsr(),
            leaf::WRMSR => self.td_wrmsr(),
            leaf::MMIO => self.td_mmio(),
            leaf::GET_TD_VM_CALL_INFO => self.get_td_vm_call_info(),
            leaf::MAP_GPA => self.map_gpa(),
            leaf::GET_QUOTE => self.get_quote(),
            leaf::REPORT_FATAL_ERROR => self.report_fatal_error(status),
            leaf::SETUP_EVENT_NOTIFY_INTERRUPT => self.setup_event_notify_interrupt(),
            _ => self.answered(Status::SUBFUNC_UNSUPPORTED),
        }
    }

    /// A call of the vendor: a hypercall of KVM from ring 0, whose result goes to R10.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_emulate_vmcall`.
    fn td_vendor_call(&mut self, nr: u64, args: [u64; 4]) -> Step {
        [self.regs.rbx, self.regs.rcx, self.regs.rdx, self.regs.rsi] = args;
        self.regs.rax = nr;
        self.regs.cpl = 0;
        let step = self.hypercall();
        match step {
            Step::Resume => self.td.args.r10 = self.regs.rax,
            _ => self.completion = Some(Completion::Td(TdCompletion::Hypercall)),
        }
        step
    }

    fn forward(&mut self, call: TdxCall, completion: TdCompletion) -> Step {
        self.completion = Some(Completion::Td(completion));
        Step::Exit(self.exit(&Exit::Tdx(Tdx { flags: 0, call })))
    }

    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_get_td_vm_call_info`.
    fn get_td_vm_call_info(&mut self) -> Step {
        match self.td.args.r12 {
            0 => {
                let args = &mut self.td.args;
                [args.r11, args.r12, args.r13, args.r14] = [0; 4];
                self.answered(Status::SUCCESS)
            }
            leaf @ 1 => self.forward(TdxCall::GetTdVmCallInfo { leaf }, TdCompletion::GetTdVmCallInfo),
            _ => self.answered(Status::INVALID_OPERAND),
        }
    }

    /// Neither the alignment nor the length is checked.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_get_quote`.
    fn get_quote(&mut self) -> Step {
        let TdRegs { r12: gpa, r13: size_bytes, .. } = self.td.args;
        let (is_private, gpa) = {
            let state = self.vm.lock();
            (state.td.is_private(gpa), state.td.strip(gpa))
        };
        if is_private {
            return self.answered(Status::INVALID_OPERAND);
        }
        self.forward(TdxCall::GetQuote { gpa, size_bytes }, TdCompletion::Simple)
    }

    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_setup_event_notify_interrupt`.
    fn setup_event_notify_interrupt(&mut self) -> Step {
        let vector = self.td.args.r12;
        if !(FIRST_VECTOR..=LAST_VECTOR).contains(&vector) {
            return self.answered(Status::INVALID_OPERAND);
        }
        self.forward(TdxCall::SetupEventNotify { vector }, TdCompletion::Simple)
    }

    /// The registers in the order of their encodings, RAX the status of `TDH.VP.ENTER`, RSP and RBP 0. Nothing is stored for
    /// the guest: one that is entered again finds R10 = 0.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_report_fatal_error`.
    fn report_fatal_error(&mut self, status: CompletionStatus) -> Step {
        let TdRegs { rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, .. } = self.td.args;
        let words = [status.0, rcx, rdx, rbx, 0, 0, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
        let event = SystemEvent { event: EventType::TdxFatal, data: Words::from_slice(&words) };
        Step::Exit(self.exit(&Exit::SystemEvent(event)))
    }

    /// `MapGPA`, in `map_gpa`.
    pub(super) fn map_gpa_chunk(&mut self, map: MapGpa) -> Step {
        self.completion = Some(Completion::Td(TdCompletion::MapGpa(map)));
        Step::Exit(self.exit(&Exit::Hypercall(map.chunk())))
    }
}
