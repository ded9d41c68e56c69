//! Entries of the CPUID tables of `KVM_SET_CPUID2`, `KVM_GET_SUPPORTED_CPUID` and the commands of a TD.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_MAX_CPUID_ENTRIES`: entries that a table may have.
///
/// Source: Linux v7.2 `arch/x86/include/asm/kvm_host.h`.
pub const MAX_ENTRIES: u32 = 256;

/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`: the leaf has sub-leaves, and [`CpuidEntry2::index`] says which this is.
///
/// Source: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`.
pub const FLAG_SIGNIFICANT_INDEX: u32 = 1 << 0;

/// One leaf, or one sub-leaf of it.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_cpuid_entry2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CpuidEntry2 {
    /// The leaf, EAX of the instruction.
    pub function: u32,
    /// The sub-leaf, ECX of the instruction, with [`FLAG_SIGNIFICANT_INDEX`].
    pub index: u32,
    /// `KVM_CPUID_FLAG_*`.
    pub flags: u32,
    /// What the guest finds in EAX.
    pub eax: u32,
    /// What the guest finds in EBX.
    pub ebx: u32,
    /// What the guest finds in ECX.
    pub ecx: u32,
    /// What the guest finds in EDX.
    pub edx: u32,
    /// Padding, unchecked.
    pub padding: [u32; 3],
}
const _: () = assert!(size_of::<CpuidEntry2>() == 40 && offset_of!(CpuidEntry2, index) == 4);
const _: () = assert!(offset_of!(CpuidEntry2, eax) == 12 && offset_of!(CpuidEntry2, padding) == 28);

/// The head of `struct kvm_cpuid2`; the entries follow.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_cpuid2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cpuid2 {
    /// Entries that follow, or that there is room for.
    pub nent: u32,
    /// Padding.
    pub padding: u32,
}
const _: () = assert!(size_of::<Cpuid2>() == 8 && offset_of!(Cpuid2, padding) == 4);
