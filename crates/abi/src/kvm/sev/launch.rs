//! Making, launching, watching and debugging an SEV or SEV-ES guest.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_SEV_INIT2`: make the VM a guest of its type.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_init`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Init2 {
    /// `SEV_FEATURES` of the first VMSAs, as in [`crate::vmsa::sev_features`]. KVM sets `SNP_ACTIVE` itself.
    pub vmsa_features: u64,
    /// No flag exists: must be 0.
    pub flags: u32,
    /// The highest GHCB version for the guest: 0 means the default, which is 2 for SEV-ES and SNP.
    pub ghcb_version: u16,
    /// Padding.
    pub pad1: u16,
    /// Padding.
    pub pad2: [u32; 8],
}
const _: () = assert!(size_of::<Init2>() == 48 && offset_of!(Init2, flags) == 8);
const _: () = assert!(offset_of!(Init2, ghcb_version) == 12 && offset_of!(Init2, pad2) == 16);

/// `KVM_SEV_LAUNCH_START`: begin the launch.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_launch_start`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LaunchStart {
    /// In: 0 for a new key, or the handle of the guest whose key is shared. Out: this guest's handle.
    pub handle: u32,
    /// The policy of the guest, SEV API chapter 3; not an SNP policy.
    pub policy: u32,
    /// The owner's Diffie-Hellman certificate: address in the process in bytes, or 0.
    pub dh_uaddr: u64,
    /// Its length in bytes.
    pub dh_len: u32,
    /// Padding.
    pub pad0: u32,
    /// The owner's session data: address in the process in bytes, or 0.
    pub session_uaddr: u64,
    /// Its length in bytes.
    pub session_len: u32,
    /// Padding.
    pub pad1: u32,
}
const _: () = assert!(size_of::<LaunchStart>() == 40 && offset_of!(LaunchStart, policy) == 4);
const _: () = assert!(offset_of!(LaunchStart, dh_uaddr) == 8 && offset_of!(LaunchStart, dh_len) == 16);
const _: () =
    assert!(offset_of!(LaunchStart, session_uaddr) == 24 && offset_of!(LaunchStart, session_len) == 32);

/// `KVM_SEV_LAUNCH_UPDATE_DATA`: encrypt and measure memory in place.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_launch_update_data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LaunchUpdateData {
    /// The memory: address in the process in bytes, a multiple of 16.
    pub uaddr: u64,
    /// Its length in bytes, a multiple of 16.
    pub len: u32,
    /// Padding.
    pub pad0: u32,
}
const _: () = assert!(size_of::<LaunchUpdateData>() == 16 && offset_of!(LaunchUpdateData, len) == 8);

/// `KVM_SEV_LAUNCH_SECRET`: put the owner's secret into the guest.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_launch_secret`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LaunchSecret {
    /// The packet's header: address in the process in bytes.
    pub hdr_uaddr: u64,
    /// Its length in bytes.
    pub hdr_len: u32,
    /// Padding.
    pub pad0: u32,
    /// Where the secret goes: address in the process of the guest's memory, in bytes.
    pub guest_uaddr: u64,
    /// Its length there in bytes.
    pub guest_len: u32,
    /// Padding.
    pub pad1: u32,
    /// The encrypted secret: address in the process in bytes.
    pub trans_uaddr: u64,
    /// Its length in bytes.
    pub trans_len: u32,
    /// Padding.
    pub pad2: u32,
}
const _: () = assert!(size_of::<LaunchSecret>() == 48 && offset_of!(LaunchSecret, hdr_len) == 8);
const _: () =
    assert!(offset_of!(LaunchSecret, guest_uaddr) == 16 && offset_of!(LaunchSecret, guest_len) == 24);
const _: () =
    assert!(offset_of!(LaunchSecret, trans_uaddr) == 32 && offset_of!(LaunchSecret, trans_len) == 40);

/// `KVM_SEV_LAUNCH_MEASURE`: fetch the measurement.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_launch_measure`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LaunchMeasure {
    /// Where the measurement goes: address in the process in bytes.
    pub uaddr: u64,
    /// In: bytes of the buffer, 0 to ask. Out: bytes of the measurement.
    pub len: u32,
    /// Padding.
    pub pad0: u32,
}
const _: () = assert!(size_of::<LaunchMeasure>() == 16 && offset_of!(LaunchMeasure, len) == 8);

/// `KVM_SEV_GUEST_STATUS`: what the firmware knows about the guest.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_guest_status`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GuestStatus {
    /// Out: the guest's handle.
    pub handle: u32,
    /// Out: the guest's policy.
    pub policy: u32,
    /// Out: the guest's state, SEV API chapter 6.
    pub state: u32,
}
const _: () = assert!(size_of::<GuestStatus>() == 12 && offset_of!(GuestStatus, policy) == 4);
const _: () = assert!(offset_of!(GuestStatus, state) == 8);

/// `KVM_SEV_DBG_DECRYPT` and `KVM_SEV_DBG_ENCRYPT`: copy memory of a guest whose policy allows debugging.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_dbg`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Dbg {
    /// From: address in the process in bytes.
    pub src_uaddr: u64,
    /// To: address in the process in bytes.
    pub dst_uaddr: u64,
    /// Length in bytes.
    pub len: u32,
    /// Padding.
    pub pad0: u32,
}
const _: () = assert!(size_of::<Dbg>() == 24 && offset_of!(Dbg, dst_uaddr) == 8);
const _: () = assert!(offset_of!(Dbg, len) == 16);

/// `KVM_SEV_GET_ATTESTATION_REPORT`: fetch the report of a running SEV or SEV-ES guest. It is not an SNP report.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_attestation_report`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AttestationReport {
    /// A number that the report repeats.
    pub mnonce: [u8; 16],
    /// Where the report goes: address in the process in bytes.
    pub uaddr: u64,
    /// In: bytes of the buffer, 0 to ask. Out: bytes of the report.
    pub len: u32,
    /// Padding.
    pub pad0: u32,
}
const _: () = assert!(size_of::<AttestationReport>() == 32 && offset_of!(AttestationReport, uaddr) == 16);
const _: () = assert!(offset_of!(AttestationReport, len) == 24);
