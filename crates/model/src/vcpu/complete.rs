//! Completions: what KVM does with userspace's answer at the next `KVM_RUN`.

use crate::ghcb::Pieces;
use crate::tdx::TdCompletion;
use crate::vcpu::pio::StringIo;
use crate::vcpu::{Step, Vcpu};
use exeunt_abi::ghcb::guest_message::vmm_error;
use exeunt_abi::ghcb::msr;
use exeunt_abi::kvm::run::{Hypercall, SnpReqCerts};
use exeunt_abi::{CertsForm, Errno};

/// What an exit waits for. It is dropped before it is acted on: an answer that KVM refuses is not asked for again,
/// and the guest goes on as if the request had been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    /// `hypercall.ret` goes to RAX.
    Hypercall,
    /// The answer to a page-state change by MSR.
    PscMsr,
    /// The answer to a batch of a page-state change by page.
    Psc,
    /// The answer to a request for certificates.
    ReqCerts,
    /// The data of a read goes to the scratch area, and the next piece follows.
    Mmio(Pieces),
    /// The data of a read goes to the emulator, and the next fragment follows.
    Emulated,
    /// Userspace's own answer to a `VMGEXIT`, in the dialect `vmgexit-v10`.
    Vmgexit {
        /// The request came by page, not by MSR.
        by_page: bool,
    },
    /// The port page goes to RAX.
    PortIn {
        /// Bytes.
        size: u8,
    },
    /// The port page goes to where the string is, if it is read, and the next chunk follows.
    StringIo(StringIo),
    /// The answer to a read of a model-specific register goes to EDX:EAX, or is an exception.
    Rdmsr,
    /// The answer to a write may be an exception.
    Wrmsr,
    /// The answer to a `TDG.VP.VMCALL`.
    Td(TdCompletion),
}

/// The answer to a conversion, as this kernel takes it.
enum Answer {
    Done,
    Refused,
    /// Not an answer: `KVM_RUN` fails with `EINVAL`.
    Invalid,
}

impl Vcpu {
    /// Calls a completion. `true` means that the guest can be entered, `false` that another exit was made.
    ///
    /// # Errors
    ///
    /// What `KVM_RUN` fails with.
    pub(crate) fn complete(&mut self, completion: Completion) -> Result<bool, Errno> {
        let step = match completion {
            Completion::Hypercall => {
                self.regs.rax = self.hypercall_ret();
                Step::Resume
            }
            Completion::PortIn { size } => self.complete_port_in(size),
            Completion::StringIo(io) => self.complete_string(io),
            Completion::Rdmsr => self.complete_msr_exit(true),
            Completion::Wrmsr => self.complete_msr_exit(false),
            Completion::PscMsr => {
                self.ghcb.msr = match self.conversion_answer() {
                    Answer::Done => msr::PSC_RESPONSE,
                    Answer::Refused => msr::PSC_RESPONSE_ERROR,
                    Answer::Invalid => return Err(Errno::EINVAL),
                };
                Step::Resume
            }
            Completion::Psc => match self.conversion_answer() {
                Answer::Done => self.complete_psc(true),
                Answer::Refused => self.complete_psc(false),
                Answer::Invalid => return Err(Errno::EINVAL),
            },
            Completion::Mmio(pieces) => self.complete_mmio(pieces),
            Completion::Td(completion) => self.complete_td(completion)?,
            Completion::Emulated => self.complete_emulated(),
            Completion::Vmgexit { by_page } => self.complete_vmgexit(by_page),
            Completion::ReqCerts if self.kernel.dialect.certs_form() == CertsForm::Coco => {
                self.complete_coco()
            }
            Completion::ReqCerts => self.complete_req_certs()?,
        };
        match step {
            Step::Exit(entered) => entered.map(|()| false),
            Step::Guest(_) | Step::Resume => Ok(true),
        }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_complete_req_certs`.
    fn complete_req_certs(&mut self) -> Result<Step, Errno> {
        // KVM reads `ret` once and `npages` after it.
        let answer: SnpReqCerts = self.page.payload();
        let errno = i32::try_from(answer.ret).map(Errno).map_err(|_| Errno::EINVAL)?;
        let info_2 = match errno {
            Errno(0) => return Ok(self.firmware_request_after_certs()),
            Errno::ENOSPC => {
                self.regs.rbx = answer.npages;
                vmm_error::INVALID_LEN
            }
            Errno::EAGAIN => vmm_error::BUSY,
            Errno::EIO => vmm_error::GENERIC,
            _ => return Err(Errno::EINVAL),
        };
        self.ghcb.answer_info_2(&mut self.vm.lock().memory, info_2);
        Ok(Step::Resume)
    }

    fn hypercall_ret(&self) -> u64 {
        self.page.payload::<Hypercall>().ret
    }

    fn conversion_answer(&self) -> Answer {
        let ret = self.hypercall_ret();
        let is = |errno: Errno| u64::try_from(errno.0) == Ok(ret);
        if ret == 0 {
            Answer::Done
        } else if !self.kernel.dialect.checks_conversion_ret() || is(Errno::EINVAL) || is(Errno::EAGAIN) {
            Answer::Refused
        } else {
            Answer::Invalid
        }
    }
}
