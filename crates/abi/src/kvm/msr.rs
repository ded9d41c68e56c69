//! Model-specific registers, as the ioctls carry them: a header, and entries behind it.
//!
//! Source: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`. All sizes and offsets are the same for i386, x32 and 64-bit
//! processes, except for the filter.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Before the entries of `KVM_GET_MSRS` and `KVM_SET_MSRS`.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_msrs` up to its entries.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Msrs {
    /// How many entries follow, below 256.
    pub nmsrs: u32,
    /// Padding.
    pub pad: u32,
}
const _: () = assert!(size_of::<Msrs>() == 8 && offset_of!(Msrs, pad) == 4);

/// One register.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_msr_entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MsrEntry {
    /// Its number.
    pub index: u32,
    /// Reserved, never checked.
    pub reserved: u32,
    /// Its value.
    pub data: u64,
}
const _: () = assert!(size_of::<MsrEntry>() == 16 && offset_of!(MsrEntry, data) == 8);

/// Before the numbers of `KVM_GET_MSR_INDEX_LIST` and `KVM_GET_MSR_FEATURE_INDEX_LIST`.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_msr_list` up to its numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MsrList {
    /// In: numbers that the buffer has room for. Out: how many there are, also with `E2BIG`.
    pub nmsrs: u32,
}
const _: () = assert!(size_of::<MsrList>() == 4 && offset_of!(MsrList, nmsrs) == 0);

/// One range of a filter, in a 64-bit process.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_msr_filter_range`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MsrFilterRange {
    /// `KVM_MSR_FILTER_READ` (1) and `KVM_MSR_FILTER_WRITE` (2).
    pub flags: u32,
    /// How many registers, 0 for an unused range.
    pub nmsrs: u32,
    /// The first register.
    pub base: u32,
    /// Padding.
    pub padding: u32,
    /// A bit for each register, set if it is allowed: address in the process in bytes.
    pub bitmap: u64,
}
const _: () = assert!(size_of::<MsrFilterRange>() == 24 && offset_of!(MsrFilterRange, bitmap) == 16);

/// `KVM_X86_SET_MSR_FILTER`: which registers the guest may touch, in a 64-bit process.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_msr_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MsrFilter {
    /// `KVM_MSR_FILTER_DEFAULT_DENY` (1).
    pub flags: u32,
    /// Padding.
    pub padding: u32,
    /// The ranges.
    pub ranges: [MsrFilterRange; 16],
}
const _: () = assert!(size_of::<MsrFilter>() == 392 && offset_of!(MsrFilter, ranges) == 8);
