//! `KVM_EXIT_MMIO`.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `kvm_run.mmio`: an access to memory that no slot backs.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_MMIO`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Mmio {
    /// Guest physical address in bytes.
    pub phys_addr: u64,
    /// The bytes written, or to be read.
    pub data: [u8; 8],
    /// How many bytes, at most 8.
    pub len: u32,
    /// 1 for a write.
    pub is_write: u8,
    /// Padding.
    pub pad: [u8; 3],
}
const _: () = assert!(size_of::<Mmio>() == 24 && offset_of!(Mmio, data) == 8);
const _: () = assert!(offset_of!(Mmio, len) == 16 && offset_of!(Mmio, is_write) == 20);
impl Payload for Mmio {}
