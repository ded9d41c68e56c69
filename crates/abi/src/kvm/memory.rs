//! Bits of memory slots, memory attributes and `guest_memfd`.
//!
//! Source: Linux v7.2 `include/uapi/linux/kvm.h`.

/// `KVM_MEM_LOG_DIRTY_PAGES`.
pub const MEM_LOG_DIRTY_PAGES: u32 = 1 << 0;
/// `KVM_MEM_READONLY`.
pub const MEM_READONLY: u32 = 1 << 1;
/// `KVM_MEM_GUEST_MEMFD`: the slot's private half comes from a `guest_memfd`.
pub const MEM_GUEST_MEMFD: u32 = 1 << 2;
/// `KVM_MEMORY_ATTRIBUTE_PRIVATE`.
pub const MEMORY_ATTRIBUTE_PRIVATE: u64 = 1 << 3;
