//! Sending and receiving an SEV guest. The kernel refuses these commands for SNP guests with `EPERM`.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_SEV_SEND_START`: begin to send.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_send_start`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SendStart {
    /// Out: the guest's policy.
    pub policy: u32,
    /// Padding.
    pub pad0: u32,
    /// The certificate of the receiving platform: address in the process in bytes.
    pub pdh_cert_uaddr: u64,
    /// Its length in bytes.
    pub pdh_cert_len: u32,
    /// Padding.
    pub pad1: u32,
    /// The receiving platform's certificate chain: address in the process in bytes.
    pub plat_certs_uaddr: u64,
    /// Its length in bytes.
    pub plat_certs_len: u32,
    /// Padding.
    pub pad2: u32,
    /// AMD's certificates: address in the process in bytes.
    pub amd_certs_uaddr: u64,
    /// Their length in bytes.
    pub amd_certs_len: u32,
    /// Padding.
    pub pad3: u32,
    /// Where the session data goes: address in the process in bytes.
    pub session_uaddr: u64,
    /// In: bytes of the buffer, 0 to ask. Out: bytes of the session data.
    pub session_len: u32,
    /// Padding.
    pub pad4: u32,
}
const _: () = assert!(size_of::<SendStart>() == 72 && offset_of!(SendStart, pdh_cert_uaddr) == 8);
const _: () =
    assert!(offset_of!(SendStart, pdh_cert_len) == 16 && offset_of!(SendStart, plat_certs_uaddr) == 24);
const _: () =
    assert!(offset_of!(SendStart, plat_certs_len) == 32 && offset_of!(SendStart, amd_certs_uaddr) == 40);
const _: () =
    assert!(offset_of!(SendStart, amd_certs_len) == 48 && offset_of!(SendStart, session_uaddr) == 56);
const _: () = assert!(offset_of!(SendStart, session_len) == 64);

/// `KVM_SEV_SEND_UPDATE_DATA`: encrypt one page for the receiver.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_send_update_data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SendUpdateData {
    /// Where the packet's header goes: address in the process in bytes.
    pub hdr_uaddr: u64,
    /// In: bytes of the buffer, 0 to ask. Out: bytes of the header.
    pub hdr_len: u32,
    /// Padding.
    pub pad0: u32,
    /// The guest's memory: address in the process in bytes. It must not cross a page.
    pub guest_uaddr: u64,
    /// Its length in bytes.
    pub guest_len: u32,
    /// Padding.
    pub pad1: u32,
    /// Where the encrypted data goes: address in the process in bytes.
    pub trans_uaddr: u64,
    /// In: bytes of the buffer, 0 to ask. Out: bytes of the data.
    pub trans_len: u32,
    /// Padding.
    pub pad2: u32,
}
const _: () = assert!(size_of::<SendUpdateData>() == 48 && offset_of!(SendUpdateData, hdr_len) == 8);
const _: () =
    assert!(offset_of!(SendUpdateData, guest_uaddr) == 16 && offset_of!(SendUpdateData, guest_len) == 24);
const _: () =
    assert!(offset_of!(SendUpdateData, trans_uaddr) == 32 && offset_of!(SendUpdateData, trans_len) == 40);

/// `KVM_SEV_RECEIVE_START`: begin to receive.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_receive_start`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReceiveStart {
    /// In: 0 for a new key, or the handle of the guest whose key is shared. Out: this guest's handle.
    pub handle: u32,
    /// The guest's policy.
    pub policy: u32,
    /// The certificate of the sending platform: address in the process in bytes.
    pub pdh_uaddr: u64,
    /// Its length in bytes.
    pub pdh_len: u32,
    /// Padding.
    pub pad0: u32,
    /// The session data: address in the process in bytes.
    pub session_uaddr: u64,
    /// Its length in bytes.
    pub session_len: u32,
    /// Padding.
    pub pad1: u32,
}
const _: () = assert!(size_of::<ReceiveStart>() == 40 && offset_of!(ReceiveStart, policy) == 4);
const _: () = assert!(offset_of!(ReceiveStart, pdh_uaddr) == 8 && offset_of!(ReceiveStart, pdh_len) == 16);
const _: () =
    assert!(offset_of!(ReceiveStart, session_uaddr) == 24 && offset_of!(ReceiveStart, session_len) == 32);

/// `KVM_SEV_RECEIVE_UPDATE_DATA`: decrypt one page of the sender.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_receive_update_data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReceiveUpdateData {
    /// The packet's header: address in the process in bytes.
    pub hdr_uaddr: u64,
    /// Its length in bytes.
    pub hdr_len: u32,
    /// Padding.
    pub pad0: u32,
    /// The guest's memory: address in the process in bytes. It must not cross a page.
    pub guest_uaddr: u64,
    /// Its length in bytes.
    pub guest_len: u32,
    /// Padding.
    pub pad1: u32,
    /// The encrypted data: address in the process in bytes.
    pub trans_uaddr: u64,
    /// Its length in bytes.
    pub trans_len: u32,
    /// Padding.
    pub pad2: u32,
}
const _: () = assert!(size_of::<ReceiveUpdateData>() == 48 && offset_of!(ReceiveUpdateData, hdr_len) == 8);
const _: () = assert!(offset_of!(ReceiveUpdateData, guest_uaddr) == 16);
const _: () = assert!(offset_of!(ReceiveUpdateData, guest_len) == 24);
const _: () = assert!(offset_of!(ReceiveUpdateData, trans_uaddr) == 32);
const _: () = assert!(offset_of!(ReceiveUpdateData, trans_len) == 40);
