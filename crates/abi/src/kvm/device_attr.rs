//! `KVM_GET_DEVICE_ATTR` and its neighbours, and `KVM_ENABLE_CAP`: how features are asked for and switched on.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_X86_GRP_SYSTEM`: attributes of `/dev/kvm` that have nothing to do with SEV.
pub const X86_GRP_SYSTEM: u32 = 0;
/// `KVM_X86_GRP_SEV`: attributes of `/dev/kvm` that say what SEV guests can have. Linux 6.10.
pub const X86_GRP_SEV: u32 = 1;

/// Attributes of [`X86_GRP_SEV`], read through `KVM_GET_DEVICE_ATTR` on `/dev/kvm` into a `u64`.
///
/// Source: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `KVM_X86_*`, and
/// `arch/x86/kvm/svm/sev.c`, `sev_dev_get_attr`.
pub mod sev_attr {
    crate::named::named! {
        u64;
        SEV_VMSA_FEATURES = 0, "The bits that `KVM_SEV_INIT2` takes as `vmsa_features`. Linux 6.10.";
        SNP_POLICY_BITS = 1, "The policy bits that `KVM_SEV_SNP_LAUNCH_START` takes.";
        SEV_SNP_REQ_CERTS = 2, "1 if `KVM_SEV_SNP_ENABLE_REQ_CERTS` is there, so `KVM_EXIT_SNP_REQ_CERTS` can \
                                come. Linux 7.0.";
    }
}

/// One attribute of a device, a VM, a vCPU or `/dev/kvm`.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_device_attr`; the same on i386.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DeviceAttr {
    /// No flag exists: 0.
    pub flags: u32,
    /// The group of attributes.
    pub group: u32,
    /// The attribute in its group.
    pub attr: u64,
    /// Where the value is or goes: address in the process in bytes.
    pub addr: u64,
}
const _: () = assert!(size_of::<DeviceAttr>() == 24 && offset_of!(DeviceAttr, group) == 4);
const _: () = assert!(offset_of!(DeviceAttr, attr) == 8 && offset_of!(DeviceAttr, addr) == 16);

/// `KVM_ENABLE_CAP`: switches a capability on.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_enable_cap`; the same on i386.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EnableCap {
    /// The number, as in [`super::caps::Cap`].
    pub cap: u32,
    /// No flag exists for the capabilities here: 0.
    pub flags: u32,
    /// Arguments, by capability.
    pub args: [u64; 4],
    /// Padding.
    pub pad: [u8; 64],
}
const _: () = assert!(size_of::<EnableCap>() == 104 && offset_of!(EnableCap, flags) == 4);
const _: () = assert!(offset_of!(EnableCap, args) == 8 && offset_of!(EnableCap, pad) == 40);
