//! `KVM_EXIT_X86_RDMSR` and `KVM_EXIT_X86_WRMSR`.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_MSR_EXIT_REASON_*`: why userspace is asked. `KVM_CAP_X86_USER_SPACE_MSR` chooses among them.
pub mod msr_exit_reason {
    crate::named::named! {
        u32;
        INVAL = 1 << 0, "KVM knows the register and refuses the access.";
        UNKNOWN = 1 << 1, "KVM does not know the register.";
        FILTER = 1 << 2, "The filter of `KVM_X86_SET_MSR_FILTER` denies the access.";
    }
}

/// `kvm_run.msr`: a model-specific register that userspace emulates.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_X86_RDMSR` (29) and `KVM_EXIT_X86_WRMSR` (30).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct X86Msr {
    /// Userspace's answer: not 0 raises `#GP` in the guest. The kernel presets 0.
    pub error: u8,
    /// Padding, which the kernel zeroes.
    pub pad: [u8; 7],
    /// `KVM_MSR_EXIT_REASON_*`, one bit.
    pub reason: u32,
    /// The number of the register.
    pub index: u32,
    /// The value: written by the guest, or read by it, which userspace fills in.
    pub data: u64,
}
const _: () = assert!(size_of::<X86Msr>() == 24 && offset_of!(X86Msr, reason) == 8);
const _: () = assert!(offset_of!(X86Msr, index) == 12 && offset_of!(X86Msr, data) == 16);
impl Payload for X86Msr {}
