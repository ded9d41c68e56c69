//! Looking into a vCPU and harming it: structs of their ioctls.
//!
//! Source: Linux v7.2 `include/uapi/linux/kvm.h` and `arch/x86/include/uapi/asm/kvm.h`.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_SET_GUEST_DEBUG`: breakpoints and single steps.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h` and `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_guest_debug`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GuestDebug {
    /// `KVM_GUESTDBG_*`.
    pub control: u32,
    /// Padding.
    pub pad: u32,
    /// DR0 to DR7.
    pub debugreg: [u64; 8],
}
const _: () = assert!(size_of::<GuestDebug>() == 72 && offset_of!(GuestDebug, debugreg) == 8);

/// `KVM_TRANSLATE`: what a linear address leads to.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_translation`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Translation {
    /// In: the linear address.
    pub linear_address: u64,
    /// Out: the guest physical address.
    pub physical_address: u64,
    /// Out: 1 if there is a translation.
    pub valid: u8,
    /// Out: always 1.
    pub writeable: u8,
    /// Out: always 0.
    pub usermode: u8,
    /// Padding.
    pub pad: [u8; 5],
}
const _: () = assert!(size_of::<Translation>() == 24 && offset_of!(Translation, valid) == 16);

/// `KVM_X86_SET_MCE`: a machine check.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_x86_mce`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct X86Mce {
    /// `MCi_STATUS`.
    pub status: u64,
    /// `MCi_ADDR`.
    pub addr: u64,
    /// `MCi_MISC`.
    pub misc: u64,
    /// `MCG_STATUS`.
    pub mcg_status: u64,
    /// Which bank.
    pub bank: u8,
    /// Padding.
    pub pad1: [u8; 7],
    /// Padding.
    pub pad2: [u64; 3],
}
const _: () = assert!(size_of::<X86Mce>() == 64 && offset_of!(X86Mce, bank) == 32);
