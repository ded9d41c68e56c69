//! Memory slots, memory attributes and `guest_memfd`: structs and bits.
//!
//! Source: Linux v7.2 `include/uapi/linux/kvm.h`. All sizes and offsets are the same for i386, x32 and 64-bit
//! processes.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_MEM_LOG_DIRTY_PAGES`.
pub const MEM_LOG_DIRTY_PAGES: u32 = 1 << 0;
/// `KVM_MEM_READONLY`.
pub const MEM_READONLY: u32 = 1 << 1;
/// `KVM_MEM_GUEST_MEMFD`: the slot's private half comes from a `guest_memfd`.
pub const MEM_GUEST_MEMFD: u32 = 1 << 2;
/// `KVM_MEMORY_ATTRIBUTE_PRIVATE`.
pub const MEMORY_ATTRIBUTE_PRIVATE: u64 = 1 << 3;
/// `GUEST_MEMFD_FLAG_MMAP`: userspace may map the shared pages of the file. Linux 6.18.
pub const GUEST_MEMFD_FLAG_MMAP: u64 = 1 << 0;
/// `GUEST_MEMFD_FLAG_INIT_SHARED`: the pages start out shared. Linux 6.18.
pub const GUEST_MEMFD_FLAG_INIT_SHARED: u64 = 1 << 1;

/// `KVM_SET_USER_MEMORY_REGION`: a memory slot.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_userspace_memory_region`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UserspaceMemoryRegion {
    /// The slot's number in bits 15:0, the address space in bits 31:16.
    pub slot: u32,
    /// `KVM_MEM_*`.
    pub flags: u32,
    /// Start of the slot: guest physical address in bytes, page aligned.
    pub guest_phys_addr: u64,
    /// Length in bytes, page aligned; 0 deletes the slot.
    pub memory_size: u64,
    /// Start of the backing: address in the process in bytes, page aligned.
    pub userspace_addr: u64,
}
const _: () = assert!(size_of::<UserspaceMemoryRegion>() == 32);
const _: () = assert!(offset_of!(UserspaceMemoryRegion, flags) == 4);
const _: () = assert!(offset_of!(UserspaceMemoryRegion, guest_phys_addr) == 8);
const _: () = assert!(offset_of!(UserspaceMemoryRegion, memory_size) == 16);
const _: () = assert!(offset_of!(UserspaceMemoryRegion, userspace_addr) == 24);

/// `KVM_SET_USER_MEMORY_REGION2`: a memory slot that can have private pages.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_userspace_memory_region2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UserspaceMemoryRegion2 {
    /// As in [`UserspaceMemoryRegion`].
    pub slot: u32,
    /// `KVM_MEM_*`.
    pub flags: u32,
    /// Start of the slot: guest physical address in bytes, page aligned.
    pub guest_phys_addr: u64,
    /// Length in bytes, page aligned; 0 deletes the slot.
    pub memory_size: u64,
    /// Start of the shared backing: address in the process in bytes, page aligned.
    pub userspace_addr: u64,
    /// Start of the private backing in the file, in bytes, page aligned.
    pub guest_memfd_offset: u64,
    /// The file of the private backing, with [`MEM_GUEST_MEMFD`].
    pub guest_memfd: u32,
    /// Padding, which the kernel does not check.
    pub pad1: u32,
    /// Padding, which the kernel does not check.
    pub pad2: [u64; 14],
}
const _: () = assert!(size_of::<UserspaceMemoryRegion2>() == 160);
const _: () = assert!(offset_of!(UserspaceMemoryRegion2, userspace_addr) == 24);
const _: () = assert!(offset_of!(UserspaceMemoryRegion2, guest_memfd_offset) == 32);
const _: () = assert!(offset_of!(UserspaceMemoryRegion2, guest_memfd) == 40);
const _: () = assert!(offset_of!(UserspaceMemoryRegion2, pad2) == 48);

/// `KVM_SET_MEMORY_ATTRIBUTES`: what a range of guest memory becomes.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_memory_attributes`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MemoryAttributes {
    /// Start of the range: guest physical address in bytes, page aligned.
    pub address: u64,
    /// Length in bytes, page aligned, not 0.
    pub size: u64,
    /// `KVM_MEMORY_ATTRIBUTE_*`.
    pub attributes: u64,
    /// No flag exists: must be 0.
    pub flags: u64,
}
const _: () = assert!(size_of::<MemoryAttributes>() == 32 && offset_of!(MemoryAttributes, size) == 8);
const _: () =
    assert!(offset_of!(MemoryAttributes, attributes) == 16 && offset_of!(MemoryAttributes, flags) == 24);

/// `KVM_CREATE_GUEST_MEMFD`: a file whose pages only guests see.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_create_guest_memfd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CreateGuestMemfd {
    /// Length in bytes, page aligned, above 0 as a signed number.
    pub size: u64,
    /// `GUEST_MEMFD_FLAG_*`.
    pub flags: u64,
    /// Reserved; the kernel does not check it.
    pub reserved: [u64; 6],
}
const _: () = assert!(size_of::<CreateGuestMemfd>() == 64 && offset_of!(CreateGuestMemfd, flags) == 8);
const _: () = assert!(offset_of!(CreateGuestMemfd, reserved) == 16);

/// `KVM_PRE_FAULT_MEMORY`: fault pages in before the guest touches them.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_pre_fault_memory`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PreFaultMemory {
    /// Start of the range: guest physical address in bytes, page aligned. The kernel advances it.
    pub gpa: u64,
    /// Length in bytes, page aligned. The kernel reduces it by what is done.
    pub size: u64,
    /// No flag exists: must be 0.
    pub flags: u64,
    /// Padding, which must be 0.
    pub padding: [u64; 5],
}
const _: () = assert!(size_of::<PreFaultMemory>() == 64 && offset_of!(PreFaultMemory, size) == 8);
const _: () = assert!(offset_of!(PreFaultMemory, flags) == 16 && offset_of!(PreFaultMemory, padding) == 24);

/// `KVM_MEMORY_ENCRYPT_REG_REGION` and `KVM_MEMORY_ENCRYPT_UNREG_REGION`: memory of an SEV guest, which the kernel pins.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_enc_region`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EncRegion {
    /// Start of the range: address in the process in bytes.
    pub addr: u64,
    /// Length in bytes.
    pub size: u64,
}
const _: () = assert!(size_of::<EncRegion>() == 16 && offset_of!(EncRegion, size) == 8);

/// `KVM_GET_DIRTY_LOG`: which pages of a slot were written, in a 64-bit process.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_dirty_log`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DirtyLog {
    /// The slot in bits 15:0, the address space in bits 31:16.
    pub slot: u32,
    /// Padding.
    pub padding1: u32,
    /// A bit for each page: address in the process in bytes.
    pub dirty_bitmap: u64,
}
const _: () = assert!(size_of::<DirtyLog>() == 16 && offset_of!(DirtyLog, dirty_bitmap) == 8);

/// `KVM_CLEAR_DIRTY_LOG`: pages whose writes are to be seen again, in a 64-bit process.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_clear_dirty_log`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ClearDirtyLog {
    /// The slot in bits 15:0, the address space in bits 31:16.
    pub slot: u32,
    /// How many pages.
    pub num_pages: u32,
    /// The first page of the slot.
    pub first_page: u64,
    /// A bit for each page: address in the process in bytes.
    pub dirty_bitmap: u64,
}
const _: () = assert!(size_of::<ClearDirtyLog>() == 24 && offset_of!(ClearDirtyLog, first_page) == 8);
