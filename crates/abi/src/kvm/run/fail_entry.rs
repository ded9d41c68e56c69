//! `KVM_EXIT_FAIL_ENTRY`.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `kvm_run.fail_entry`: the hardware, or KVM on its behalf, refused to enter the guest.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_FAIL_ENTRY`. An i386 process sees the same offsets in
/// 12 bytes, without the padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FailEntry {
    /// `hardware_entry_failure_reason`: the vendor's exit code; all ones where an SNP vCPU has no valid VMSA.
    pub hardware_entry_failure_reason: u64,
    /// The host CPU.
    pub cpu: u32,
    /// Padding.
    pub pad: u32,
}
const _: () = assert!(size_of::<FailEntry>() == 16 && offset_of!(FailEntry, cpu) == 8);
impl Payload for FailEntry {}
