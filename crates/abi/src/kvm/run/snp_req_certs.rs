//! `KVM_EXIT_SNP_REQ_CERTS`.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `kvm_run.snp_req_certs`: an SNP guest asks for the certificates beside its attestation report.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_SNP_REQ_CERTS` (43).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SnpReqCerts {
    /// Where the guest wants the table: guest physical address in bytes. KVM checked the alignment only.
    pub gpa: u64,
    /// In: 4 KiB pages of the guest's buffer, unchecked. Out, with `ENOSPC`: the pages needed.
    pub npages: u64,
    /// Userspace's answer: 0, `ENOSPC`, `EAGAIN` or `EIO`, positive. The kernel presets it to 0.
    pub ret: u64,
}
const _: () = assert!(size_of::<SnpReqCerts>() == 24 && offset_of!(SnpReqCerts, npages) == 8);
const _: () = assert!(offset_of!(SnpReqCerts, ret) == 16);
impl Payload for SnpReqCerts {}
