//! `KVM_EXIT_MEMORY_FAULT`.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_MEMORY_EXIT_FLAG_PRIVATE`: the access was private.
pub const MEMORY_EXIT_FLAG_PRIVATE: u64 = 1 << 3;

/// `kvm_run.memory_fault`: an access that KVM could not resolve by itself.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_MEMORY_FAULT`.
/// Valid only when `KVM_RUN` returned -1 with `EFAULT` or `EHWPOISON`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MemoryFault {
    /// `KVM_MEMORY_EXIT_FLAG_*`; bit 3 set means a private access.
    pub flags: u64,
    /// Start of the range: guest physical address in bytes.
    pub gpa: u64,
    /// Length of the range in bytes.
    pub size: u64,
}
const _: () = assert!(size_of::<MemoryFault>() == 24 && offset_of!(MemoryFault, gpa) == 8);
impl Payload for MemoryFault {}
