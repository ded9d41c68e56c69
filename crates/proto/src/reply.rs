//! What userspace answers, and how the answer is written.

use exeunt_abi::kvm::run::{CocoV1, Hypercall, Mmio, RunPage, SnpReqCerts, VmgexitV10, coco_v1};
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

/// Writes a reply into the run page. `ret` is always written, because kernels up to 6.13 leave old bytes there.
///
/// The payload is written before `ret`.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_complete_psc` and `snp_complete_req_certs`, and
/// `arch/x86/kvm/x86.c`, `complete_hypercall_exit`.
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
    }
}

fn write_hypercall_ret(ret: u64, page: &mut RunPage) {
    page.set_bytes(core::mem::offset_of!(Hypercall, ret), &ret.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_abi::kvm::run::UNION_BYTES;

    fn stale_page() -> RunPage {
        let mut page = RunPage::zeroed();
        page.exit = [0xaa; UNION_BYTES];
        page
    }

    #[test]
    fn a_conversion_is_answered_with_0_22_or_11_and_nothing_else_is_written() {
        let answers =
            [(ConversionReply::Done, 0), (ConversionReply::Invalid, 22), (ConversionReply::Again, 11)];
        for (answer, ret) in answers {
            let mut page = stale_page();
            encode(Reply::Conversion(answer), Kernel::default(), &mut page);
            assert_eq!(page.payload::<Hypercall>().ret, ret);
            assert_eq!(page.exit[..56], [0xaa; 56]);
            assert_eq!(page.exit[64..], [0xaa; UNION_BYTES - 64]);
        }
    }

    #[test]
    fn an_unknown_hypercall_is_refused_and_not_answered_with_success() {
        let mut page = RunPage::zeroed();
        encode(Reply::UnknownHypercall, Kernel::default(), &mut page);
        assert_eq!(page.payload::<Hypercall>().ret, 1000u64.wrapping_neg());
    }

    #[test]
    fn only_a_buffer_that_is_too_small_changes_npages() {
        let answers = [
            (CertsReply::Installed, 0, 3),
            (CertsReply::TooSmall { pages: 9 }, 28, 9),
            (CertsReply::Busy, 11, 3),
            (CertsReply::Failed, 5, 3),
        ];
        for (answer, ret, npages) in answers {
            let mut page = stale_page();
            page.set_payload(&SnpReqCerts { gpa: 0x1000, npages: 3, ret: 0xaa });
            encode(Reply::Certs(answer), Kernel::default(), &mut page);
            assert_eq!(page.payload::<SnpReqCerts>(), SnpReqCerts { gpa: 0x1000, npages, ret });
        }
    }

    #[test]
    fn no_reply_writes_nothing_and_a_read_fills_only_the_data() {
        let mut page = stale_page();
        encode(Reply::None, Kernel::default(), &mut page);
        assert_eq!(page, stale_page());
        encode(Reply::MmioRead([7; 8]), Kernel::default(), &mut page);
        assert_eq!(page.exit[8..16], [7; 8]);
        page.exit[8..16].fill(0xaa);
        assert_eq!(page, stale_page());
    }
}
