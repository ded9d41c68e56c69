//! What userspace answers, and how the answer is written.

use exeunt_abi::ghci::Status;
use exeunt_abi::kvm::run::{
    CocoV1, Hypercall, Mmio, RunPage, SnpReqCerts, Tdx, TdxGetTdVmCallInfo, VmgexitV10, X86Msr, coco_v1,
};
use exeunt_abi::{CertsForm, Errno, Kernel};

/// `-KVM_ENOSYS`, what KVM itself puts into RAX for a hypercall that it does not know.
///
/// Source: Linux v7.2 `include/uapi/linux/kvm_para.h`.
const KVM_ENOSYS: u64 = 1000;

/// The answer to one exit. It can hold only what KVM accepts for that exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum Reply {
    /// The exit takes no answer, or the answer is in the port page already.
    #[default]
    None,
    /// To `KVM_HC_MAP_GPA_RANGE`.
    Conversion(ConversionReply),
    /// To any other hypercall: RAX becomes `-KVM_ENOSYS`.
    UnknownHypercall,
    /// To `KVM_EXIT_SNP_REQ_CERTS`.
    Certs(CertsReply),
    /// To an MMIO read.
    MmioRead([u8; 8]),
    /// To `KVM_EXIT_TDX`.
    Tdx(TdxReply),
    /// To `KVM_EXIT_X86_RDMSR` and `KVM_EXIT_X86_WRMSR`.
    Msr(MsrReply),
    /// To `KVM_EXIT_VMGEXIT`, by the dialect `vmgexit-v10`.
    Vmgexit(VmgexitReply),
}

/// The answer to a `VMGEXIT` that userspace decoded. KVM checks neither form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmgexitReply {
    /// To a request by page: `SW_EXITINFO2`, `ghcb::psc::result`.
    Page(u64),
    /// To a request by MSR: the response that takes its place.
    Msr(u64),
}

/// The answer to a conversion: the three values that KVM passes on, positive as KVM wants them.
///
/// From Linux 7.1 any other value fails `KVM_RUN` with `EINVAL` and the request is lost; before, any value but 0 was
/// an error for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversionReply {
    /// The range has its new state.
    Done,
    /// The request makes no sense, or cannot be done.
    Invalid,
    /// Not now. A TD retries; an SNP guest takes it for a failure.
    Again,
}

impl ConversionReply {
    /// `hypercall.ret`.
    #[must_use]
    pub const fn ret(self) -> u64 {
        match self {
            Self::Done => 0,
            Self::Invalid => Errno::EINVAL.0 as u64,
            Self::Again => Errno::EAGAIN.0 as u64,
        }
    }
}

/// The answer to a request for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertsReply {
    /// The table is in the guest's buffer; the firmware request goes on.
    Installed,
    /// The buffer is too small.
    TooSmall {
        /// 4 KiB pages that the table needs, exactly.
        pages: u64,
    },
    /// Try again later. A Linux guest does, every 2 seconds for a minute.
    Busy,
    /// There will be no certificates. A Linux guest then gives up its key for good.
    Failed,
}

impl CertsReply {
    /// `snp_req_certs.ret`.
    #[must_use]
    pub const fn ret(self) -> u64 {
        match self {
            Self::Installed => 0,
            Self::TooSmall { .. } => Errno::ENOSPC.0 as u64,
            Self::Busy => Errno::EAGAIN.0 as u64,
            Self::Failed => Errno::EIO.0 as u64,
        }
    }

    /// `coco.req_certs.ret`. The proposal had no word for "busy", so it is an error like any other.
    #[must_use]
    pub const fn coco_ret(self) -> u32 {
        match self {
            Self::Installed => 0,
            Self::TooSmall { .. } => coco_v1::ERR_INVALID_LEN,
            Self::Busy | Self::Failed => coco_v1::ERR_GENERIC,
        }
    }
}

/// The answer to a call of a TD. KVM passes any status on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TdxReply {
    /// R10 of the TD. To `GetTdVmCallInfo` it leaves R11 to R14 as KVM preset them.
    Status(Status),
    /// To `GetTdVmCallInfo` alone: success, and the registers of the TD. The kernel's own bits, of
    /// `KVM_TDX_CAPABILITIES`, have to be among them.
    Info {
        /// R11.
        r11: u64,
        /// R12.
        r12: u64,
        /// R13.
        r13: u64,
        /// R14.
        r14: u64,
    },
}

/// The answer to an access to a model-specific register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrReply {
    /// What the guest reads.
    Read(u64),
    /// The write is done.
    Written,
    /// The guest gets a `#GP`, for a read as for a write.
    Fault,
}

/// Writes a reply into the run page. `ret` is always written, because kernels up to 6.13 leave old bytes there.
///
/// The payload is written before `ret`.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_complete_psc` and `snp_complete_req_certs`;
/// `arch/x86/kvm/x86.c`, `complete_hypercall_exit`, `complete_emulated_rdmsr` and `complete_emulated_msr_access`;
/// `arch/x86/kvm/vmx/tdx.c`, `tdx_complete_simple` and `tdx_complete_get_td_vm_call_info`.
pub fn encode(reply: Reply, kernel: Kernel, page: &mut RunPage) {
    match reply {
        Reply::None => {}
        Reply::Conversion(answer) => write_hypercall_ret(answer.ret(), page),
        Reply::UnknownHypercall => write_hypercall_ret(KVM_ENOSYS.wrapping_neg(), page),
        Reply::Certs(answer) if kernel.dialect.certs_form() == CertsForm::Coco => {
            let mut wire: CocoV1 = page.payload();
            if let CertsReply::TooSmall { pages } = answer {
                wire.npages = u32::try_from(pages).unwrap_or(u32::MAX);
            }
            wire.ret = answer.coco_ret();
            page.set_payload(&wire);
        }
        Reply::Certs(answer) => {
            let mut wire: SnpReqCerts = page.payload();
            if let CertsReply::TooSmall { pages } = answer {
                wire.npages = pages;
            }
            wire.ret = answer.ret();
            page.set_payload(&wire);
        }
        Reply::Vmgexit(answer) => {
            let mut wire: VmgexitV10 = page.payload();
            match answer {
                VmgexitReply::Page(result) => wire.ret = result,
                VmgexitReply::Msr(response) => {
                    wire.ghcb_msr = response;
                    wire.ret = 0;
                }
            }
            page.set_payload(&wire);
        }
        Reply::MmioRead(data) => {
            let mut wire: Mmio = page.payload();
            wire.data = data;
            page.set_payload(&wire);
        }
        Reply::Tdx(answer) => write_tdx(answer, page),
        Reply::Msr(answer) => {
            let mut wire: X86Msr = page.payload();
            if let MsrReply::Read(value) = answer {
                wire.data = value;
            }
            wire.error = u8::from(answer == MsrReply::Fault);
            page.set_payload(&wire);
        }
    }
}

fn write_tdx(answer: TdxReply, page: &mut RunPage) {
    match answer {
        TdxReply::Status(status) => {
            page.set_bytes(core::mem::offset_of!(Tdx, ret), &status.0.to_le_bytes());
        }
        TdxReply::Info { r11, r12, r13, r14 } => {
            let wire: TdxGetTdVmCallInfo = page.payload();
            let ret = Status::SUCCESS.0;
            page.set_payload(&TdxGetTdVmCallInfo { ret, r11, r12, r13, r14, ..wire });
        }
    }
}

fn write_hypercall_ret(ret: u64, page: &mut RunPage) {
    page.set_bytes(core::mem::offset_of!(Hypercall, ret), &ret.to_le_bytes());
}

#[cfg(test)]
mod tests;
