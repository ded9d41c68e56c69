//! Commands of `KVM_MEMORY_ENCRYPT_OP` for TDX.
//!
//! Source: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_tdx_*`.

use super::ctype::{Member, flexible, group, u32, u64, u64s};
use super::registry::{Def, on_x86, since};
use super::release::Release::Linux7_2;

/// `struct kvm_cpuid2`, the last member of two structs.
const CPUID: Member = group("cpuid", &[u32("nent"), u32("padding"), flexible("entries", "kvm_cpuid_entry2")]);

const CAPABILITIES: &[Member] = &[
    u64("supported_attrs"),
    u64("supported_xfam"),
    u64("kernel_tdvmcallinfo_1_r11"),
    u64("user_tdvmcallinfo_1_r11"),
    u64("kernel_tdvmcallinfo_1_r12"),
    u64("user_tdvmcallinfo_1_r12"),
    u64s("reserved", 250),
    CPUID,
];

const INIT_VM: &[Member] = &[
    u64("attributes"),
    u64("xfam"),
    u64s("mrconfigid", 6),
    u64s("mrowner", 6),
    u64s("mrownerconfig", 6),
    u64s("reserved", 12),
    CPUID,
];

pub(super) const STRUCTS: &[Def] = &[
    on_x86("kvm_tdx_cmd", &[since(Linux7_2, &[u32("id"), u32("flags"), u64("data"), u64("hw_error")])]),
    on_x86("kvm_tdx_capabilities", &[since(Linux7_2, CAPABILITIES)]),
    on_x86("kvm_tdx_init_vm", &[since(Linux7_2, INIT_VM)]),
    on_x86("kvm_tdx_init_mem_region", &[since(Linux7_2, &[u64("source_addr"), u64("gpa"), u64("nr_pages")])]),
];
