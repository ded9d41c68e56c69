//! `KVM_EXIT_COCO` of the certificate patches, version 1. It was never merged; `KVM_EXIT_SNP_REQ_CERTS` took its place.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The exit number of the proposal, which is `KVM_EXIT_TDX` in kernels that shipped.
pub const COCO: super::ExitReason = super::ExitReason(40);
/// `KVM_EXIT_COCO_REQ_CERTS`, the only value of `nr`.
pub const REQ_CERTS: u8 = 0;
/// `KVM_EXIT_COCO_REQ_CERTS_ERR_INVALID_LEN`: the buffer is too small, and `npages` says what is needed.
pub const ERR_INVALID_LEN: u32 = 1;
/// `KVM_EXIT_COCO_REQ_CERTS_ERR_GENERIC`: anything else.
pub const ERR_GENERIC: u32 = 1 << 31;

/// `kvm_run.coco`: a confidential guest asks for something, which could only be certificates.
///
/// Layout: proposal "KVM: Introduce `KVM_EXIT_COCO` exit type", version 1 (2024), never merged; the same on i386, since
/// its padding is explicit. Version 2 moved `ret` and lost that property.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CocoV1 {
    /// What is asked for: [`REQ_CERTS`].
    pub nr: u8,
    /// Padding.
    pub pad0: [u8; 7],
    /// Where the guest wants the table: a guest frame number.
    pub gfn: u64,
    /// In: 4 KiB pages of the guest's buffer. Out: the pages needed.
    pub npages: u32,
    /// Userspace's answer: 0, [`ERR_INVALID_LEN`] or [`ERR_GENERIC`].
    pub ret: u32,
}
const _: () = assert!(size_of::<CocoV1>() == 24 && offset_of!(CocoV1, gfn) == 8);
const _: () = assert!(offset_of!(CocoV1, npages) == 16 && offset_of!(CocoV1, ret) == 20);
impl Payload for CocoV1 {}
