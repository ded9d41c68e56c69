//! SBI calls of riscv64 guests: those that end in a system event or in an exit of their own, and those that KVM answers.

use crate::guest::GuestFault;
use crate::guest::mailbox::{Op, Outcome};
use crate::vcpu::peer::Reset;
use crate::vcpu::{MpState, OnEntry, Step, Vcpu};
use exeunt_abi::kvm::run::{ExitReason, RiscvSbi};
use exeunt_abi::sbi::{
    EXPERIMENTAL_FIRST, SUSP_SUSPEND, SUSP_SUSPEND_TO_RAM, VENDOR_LAST, base_function, error, extension,
    hart_state, hsm_function,
};
use exeunt_abi::{Arch, Errno, Gpa};
use exeunt_proto::sbi::SbiCall;
use std::collections::BTreeSet;

/// `SBI_VERSION` of KVM: 2.0.
const SPEC_VERSION: u64 = 2 << 24;
/// The number of KVM among the implementations of SBI.
const IMPLEMENTATION_KVM: u64 = 3;

/// What a vCPU has of SBI.
#[derive(Clone, Debug)]
pub(crate) struct SbiState {
    /// The extensions that the VMM enabled or left on.
    enabled: BTreeSet<u64>,
    /// `!return_handled`: an exit waits for its answer.
    awaits_return: bool,
    /// `ran_atleast_once`.
    pub(crate) ran: bool,
}

/// The extensions that a VMM can turn on and off, with whether they are on at first.
const CONFIGURABLE: [(u64, bool); 5] = [
    (extension::SHUTDOWN_V01, true),
    (extension::SRST, true),
    (extension::HSM, true),
    (extension::DBCN, false),
    (extension::SUSP, false),
];

impl Default for SbiState {
    fn default() -> Self {
        let enabled =
            CONFIGURABLE.into_iter().filter_map(|(extension, on)| on.then_some(extension)).collect();
        Self { enabled, awaits_return: false, ran: false }
    }
}

/// `a0` and `a1` after a call.
struct Answer {
    error: i64,
    value: u64,
}

const fn answer(error: i64) -> Answer {
    Answer { error, value: 0 }
}

impl Vcpu {
    /// `KVM_SET_ONE_REG` of an SBI extension, which is named by its number in `a7`; version 0.1 by that of its
    /// shutdown.
    ///
    /// Source: Linux v7.2 `arch/riscv/kvm/vcpu_sbi.c`, `kvm_riscv_vcpu_set_reg_sbi_ext`.
    ///
    /// # Errors
    ///
    /// `EBUSY` once the vCPU ran, `ENOENT` for an extension that the kernel or the model does not have.
    pub fn set_sbi_extension(&mut self, extension: u64, on: bool) -> Result<(), Errno> {
        if self.sbi.ran {
            return Err(Errno::EBUSY);
        }
        let is_known = CONFIGURABLE.iter().any(|(known, _)| *known == extension)
            && (extension != extension::SUSP || self.kernel.dialect.has_sbi_susp());
        if self.kernel.arch != Arch::Riscv64 || !is_known {
            return Err(Errno::ENOENT);
        }
        if on {
            self.sbi.enabled.insert(extension);
        } else {
            self.sbi.enabled.remove(&extension);
        }
        Ok(())
    }

    /// Source: Linux v7.2 `arch/riscv/kvm/vcpu_sbi.c`, `kvm_riscv_vcpu_sbi_ecall`.
    pub(crate) fn sbi_call(&mut self, id: u64, function: u64, args: [u64; 6]) -> Step {
        if self.kernel.arch != Arch::Riscv64 {
            return Step::Guest(Outcome::Fault(GuestFault::InvalidOpcode));
        }
        self.did(|| format!("ECALL with SBI extension {id:#x}, function {function}, arguments {args:x?}"));
        let call = SbiCall::decode(id, function, args);
        if let Some(event) = call.event().filter(|_| self.has_sbi_extension(id)) {
            // The program counter stays on the call: a vCPU that is started again makes it again.
            self.retry = Some(Op::Sbi { extension: id, function, args });
            return Step::Exit(self.stop_all(event));
        }
        let has_it = self.has_sbi_extension(id);
        match (id, call) {
            (extension::BASE, _) => {
                let answer = self.sbi_base(function, args);
                self.answer_sbi(&answer)
            }
            (extension::CONSOLE_PUTCHAR_V01 | extension::CONSOLE_GETCHAR_V01, _)
                if self.has_sbi_extension(extension::SHUTDOWN_V01) =>
            {
                self.forward_sbi(id, function, args)
            }
            (extension::DBCN, _) if has_it && function <= 2 => self.forward_sbi(id, function, args),
            (EXPERIMENTAL_FIRST..=VENDOR_LAST, _) => self.forward_sbi(id, function, args),
            (extension::HSM, _) if has_it => self.sbi_hsm(function, args),
            (extension::SUSP, SbiCall::Suspend { kind, resume_address, opaque }) if has_it => {
                if let Err(error) = self.check_suspend(kind, resume_address) {
                    return self.answer_sbi(&answer(error));
                }
                let reset = Reset { entry: resume_address, arguments: [self.id(), opaque] };
                self.peer.change(|waiting| waiting.reset = Some(reset));
                self.forward_sbi(id, SUSP_SUSPEND, args)
            }
            _ => self.answer_sbi(&answer(error::NOT_SUPPORTED)),
        }
    }

    /// Source: Linux v7.2 `arch/riscv/kvm/vcpu_sbi_system.c`, `kvm_sbi_ext_susp_handler`. The programs of the model
    /// call from supervisor mode.
    fn check_suspend(&self, kind: u32, resume_address: u64) -> Result<(), i64> {
        if kind != SUSP_SUSPEND_TO_RAM {
            return Err(error::INVALID_PARAM);
        }
        let state = self.vm.lock();
        if state.memory.slot_of(Gpa(resume_address).gfn()).is_none() {
            return Err(error::INVALID_ADDRESS);
        }
        let own = self.id();
        let runs = state.peers.iter().any(|(id, peer)| *id != own && peer.mp_state() != MpState::Stopped);
        if runs { Err(error::DENIED) } else { Ok(()) }
    }

    fn has_sbi_extension(&self, extension: u64) -> bool {
        self.sbi.enabled.contains(&extension)
    }

    fn answer_sbi(&mut self, answer: &Answer) -> Step {
        self.regs.rax = u64::from_ne_bytes(answer.error.to_ne_bytes());
        self.regs.rbx = answer.value;
        Step::Guest(self.sbi_return())
    }

    /// `a0` and `a1` as the guest finds them.
    pub(crate) fn sbi_return(&self) -> Outcome {
        let words = [self.regs.rax, self.regs.rbx];
        Outcome::Bytes(words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    /// Source: Linux v7.2 `arch/riscv/kvm/vcpu_sbi_base.c`, `kvm_sbi_ext_base_handler`.
    fn sbi_base(&self, function: u64, args: [u64; 6]) -> Answer {
        let [asked, ..] = args;
        let value = match function {
            base_function::GET_SPEC_VERSION => SPEC_VERSION,
            base_function::GET_IMP_ID => IMPLEMENTATION_KVM,
            base_function::PROBE_EXT => u64::from(
                asked == extension::BASE
                    || self.has_sbi_extension(asked)
                    || (EXPERIMENTAL_FIRST..=VENDOR_LAST).contains(&asked),
            ),
            base_function::GET_IMP_VERSION
            | base_function::GET_MVENDORID
            | base_function::GET_MARCHID
            | base_function::GET_MIMPID => 0,
            _ => return answer(error::NOT_SUPPORTED),
        };
        Answer { error: error::SUCCESS, value }
    }

    /// Source: Linux v7.2 `arch/riscv/kvm/vcpu_sbi_hsm.c`, `kvm_sbi_ext_hsm_handler`.
    fn sbi_hsm(&mut self, function: u64, args: [u64; 6]) -> Step {
        let [hart, entry, opaque, ..] = args;
        let peer = self.vm.lock().peers.get(&hart).cloned();
        let answer = match (function, peer) {
            (hsm_function::HART_START | hsm_function::HART_STATUS, None) => answer(error::INVALID_PARAM),
            (hsm_function::HART_START, Some(peer)) => answer(peer.change(|waiting| {
                if waiting.mp_state != MpState::Stopped {
                    return error::ALREADY_AVAILABLE;
                }
                waiting.reset = Some(Reset { entry, arguments: [hart, opaque] });
                waiting.mp_state = MpState::Runnable;
                error::SUCCESS
            })),
            (hsm_function::HART_STATUS, Some(peer)) => {
                let value = match peer.look(|waiting| (waiting.mp_state, waiting.asleep)) {
                    (MpState::Stopped, _) => hart_state::STOPPED,
                    (_, true) => hart_state::SUSPENDED,
                    (_, false) => hart_state::STARTED,
                };
                Answer { error: error::SUCCESS, value }
            }
            (hsm_function::HART_STOP, _) => {
                self.peer.set_mp_state(MpState::Stopped);
                self.answer_sbi(&answer(error::SUCCESS));
                self.on_entry = Some(OnEntry::SbiReturn);
                return Step::Resume;
            }
            _ => answer(error::NOT_SUPPORTED),
        };
        self.answer_sbi(&answer)
    }

    /// Source: Linux v7.2 `arch/riscv/kvm/vcpu_sbi.c`, `kvm_riscv_vcpu_sbi_forward`.
    fn forward_sbi(&mut self, extension_id: u64, function_id: u64, args: [u64; 6]) -> Step {
        self.sbi.awaits_return = true;
        let ret = [u64::from_ne_bytes(error::NOT_SUPPORTED.to_ne_bytes()), 0];
        self.page.set_payload(&RiscvSbi { extension_id, function_id, args, ret });
        self.page.exit_reason = ExitReason::RISCV_SBI.0;
        self.on_entry = Some(OnEntry::SbiReturn);
        Step::Exit(Ok(()))
    }

    /// What riscv64 does before a `KVM_RUN`: the answer is found by the exit reason in the page, and taken once.
    ///
    /// Source: Linux v7.2 `arch/riscv/kvm/vcpu.c`, `kvm_arch_vcpu_ioctl_run`, and `vcpu_sbi.c`,
    /// `kvm_riscv_vcpu_sbi_return`.
    pub(crate) fn take_sbi_return(&mut self) {
        self.sbi.ran = true;
        if self.page.reason() == ExitReason::RISCV_SBI && std::mem::take(&mut self.sbi.awaits_return) {
            let answer: RiscvSbi = self.page.payload();
            [self.regs.rax, self.regs.rbx] = answer.ret;
        }
    }
}
