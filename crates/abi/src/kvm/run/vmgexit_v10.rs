//! `KVM_EXIT_VMGEXIT` of the SNP host patches, version 10. It was never merged.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The exit number of the proposal. No kernel that shipped uses it.
pub const VMGEXIT: super::ExitReason = super::ExitReason(50);

/// `kvm_run.vmgexit`: a `VMGEXIT` that userspace decodes by itself, from the page or the MSR protocol.
///
/// The patch's documentation calls the member `memory`, its header `vmgexit`.
///
/// Layout: proposal "KVM: SEV: Add `KVM_EXIT_VMGEXIT`", SNP hypervisor support v10 (2023), never merged; the same on
/// i386.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VmgexitV10 {
    /// The GHCB MSR: the address of the page, or a request of the MSR protocol, in whose place userspace puts the
    /// response.
    pub ghcb_msr: u64,
    /// Userspace's answer: `SW_EXITINFO2`, unchecked.
    pub ret: u64,
}
const _: () = assert!(size_of::<VmgexitV10>() == 16 && offset_of!(VmgexitV10, ret) == 8);
impl Payload for VmgexitV10 {}
