//! `KVM_EXIT_HYPERCALL`.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_HC_MAP_GPA_RANGE`, the only hypercall that KVM forwards on x86.
///
/// Source: Linux v7.2 `include/uapi/linux/kvm_para.h`.
pub const MAP_GPA_RANGE: u64 = 12;

/// `KVM_EXIT_HYPERCALL_LONG_MODE`: the caller ran 64-bit code.
pub const HYPERCALL_LONG_MODE: u64 = 1 << 0;

/// Bits of `args[2]` of `KVM_HC_MAP_GPA_RANGE`.
///
/// Source: Linux v7.2 `include/uapi/linux/kvm_para.h`, `KVM_MAP_GPA_RANGE_*`.
pub mod map_gpa_range {
    /// Bits 3:0: the preferred page size, 0 = 4K, 1 = 2M, 2 = 1G. A hint.
    pub const PAGE_SIZE_MASK: u64 = 0xf;
    /// The hint for 2 MiB pages.
    pub const PAGE_SIZE_2M: u64 = 1;
    /// Bit 4: the range becomes private.
    pub const ENCRYPTED: u64 = 1 << 4;
}

/// `kvm_run.hypercall`: a hypercall that userspace must answer.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_HYPERCALL`. Up to 6.5 the last member was
/// `u32 longmode` and its upper half was not written; an SNP page-state change does not write it at all.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Hypercall {
    /// The hypercall's number.
    pub nr: u64,
    /// The arguments; `args[3..]` are stale for `KVM_HC_MAP_GPA_RANGE`.
    pub args: [u64; 6],
    /// Userspace's answer. From 6.14 the kernel presets it to 0; before, it is stale.
    pub ret: u64,
    /// `KVM_EXIT_HYPERCALL_*`.
    pub flags: u64,
}
const _: () = assert!(size_of::<Hypercall>() == 72 && offset_of!(Hypercall, args) == 8);
const _: () = assert!(offset_of!(Hypercall, ret) == 56 && offset_of!(Hypercall, flags) == 64);
impl Payload for Hypercall {}
