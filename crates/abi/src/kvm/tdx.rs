//! `KVM_MEMORY_ENCRYPT_OP` on a TD and its vCPUs: the commands, their numbers and their arguments.
//!
//! Two structs end in a table of CPUID entries whose length varies; here they stop at its header.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The argument of `KVM_MEMORY_ENCRYPT_OP` on a TD.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_tdx_cmd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TdxCmd {
    /// Which command, as in [`id`].
    pub id: u32,
    /// Flags of the command: 0, or [`MEASURE_MEMORY_REGION`] for `INIT_MEM_REGION`.
    pub flags: u32,
    /// The command's own struct: address in the process in bytes. For `INIT_VCPU` it is the initial RCX.
    pub data: u64,
    /// In: must be 0. Out: what the TDX module said.
    pub hw_error: u64,
}
const _: () = assert!(size_of::<TdxCmd>() == 24 && offset_of!(TdxCmd, flags) == 4);
const _: () = assert!(offset_of!(TdxCmd, data) == 8 && offset_of!(TdxCmd, hw_error) == 16);

/// `KVM_TDX_MEASURE_MEMORY_REGION`: the contents of the region count for the measurement.
pub const MEASURE_MEMORY_REGION: u32 = 1 << 0;

/// `enum kvm_tdx_cmd_id`.
///
/// Source: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`.
pub mod id {
    crate::named::named! {
        u32;
        CAPABILITIES = 0, "`KVM_TDX_CAPABILITIES`, on the VM: [`super::Capabilities`].";
        INIT_VM = 1, "`KVM_TDX_INIT_VM`, on the VM: [`super::InitVm`].";
        INIT_VCPU = 2, "`KVM_TDX_INIT_VCPU`, on a vCPU.";
        INIT_MEM_REGION = 3, "`KVM_TDX_INIT_MEM_REGION`, on a vCPU: [`super::InitMemRegion`].";
        FINALIZE_VM = 4, "`KVM_TDX_FINALIZE_VM`, on the VM: the TD may run.";
        GET_CPUID = 5, "`KVM_TDX_GET_CPUID`, on a vCPU: the CPUID values that the TD sees.";
    }

    /// Whether the command goes to a vCPU; the others go to the VM. `None` for a number that no command has.
    #[must_use]
    pub const fn is_for_vcpu(id: u32) -> Option<bool> {
        match id {
            CAPABILITIES | INIT_VM | FINALIZE_VM => Some(false),
            INIT_VCPU | INIT_MEM_REGION | GET_CPUID => Some(true),
            _ => None,
        }
    }
}

/// Bits of [`Capabilities::user_tdvmcallinfo_1_r11`]: calls beyond the base that userspace may implement and then says
/// so in R11 of `GetTdVmCallInfo` leaf 1.
///
/// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`.
pub const TDVMCALLINFO_SETUP_EVENT_NOTIFY_INTERRUPT: u64 = 1 << 1;

/// Out of `KVM_TDX_CAPABILITIES`, up to the CPUID entries.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_tdx_capabilities`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Capabilities {
    /// `ATTRIBUTES` that a TD can have.
    pub supported_attrs: u64,
    /// `XFAM` bits that a TD can have.
    pub supported_xfam: u64,
    /// Calls beyond the base that the kernel implements: userspace adds them to R11 of leaf 1 in any case.
    pub kernel_tdvmcallinfo_1_r11: u64,
    /// Calls that userspace may implement.
    pub user_tdvmcallinfo_1_r11: u64,
    /// The same for R12.
    pub kernel_tdvmcallinfo_1_r12: u64,
    /// The same for R12.
    pub user_tdvmcallinfo_1_r12: u64,
    /// Reserved.
    pub reserved: [u64; 250],
    /// In: CPUID entries that the buffer has room for. Out: how many there are, also with `E2BIG`.
    pub cpuid_nent: u32,
    /// Padding of the CPUID table's header.
    pub cpuid_padding: u32,
}
const _: () = assert!(size_of::<Capabilities>() == 2056 && offset_of!(Capabilities, supported_xfam) == 8);
const _: () = assert!(offset_of!(Capabilities, kernel_tdvmcallinfo_1_r11) == 16);
const _: () = assert!(offset_of!(Capabilities, user_tdvmcallinfo_1_r11) == 24);
const _: () = assert!(offset_of!(Capabilities, kernel_tdvmcallinfo_1_r12) == 32);
const _: () = assert!(offset_of!(Capabilities, user_tdvmcallinfo_1_r12) == 40);
const _: () =
    assert!(offset_of!(Capabilities, reserved) == 48 && offset_of!(Capabilities, cpuid_nent) == 2048);

/// The argument of `KVM_TDX_INIT_VM`, up to the CPUID entries.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_tdx_init_vm`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InitVm {
    /// `ATTRIBUTES` of the TD.
    pub attributes: u64,
    /// `XFAM` of the TD.
    pub xfam: u64,
    /// `MRCONFIGID`, a SHA-384 digest.
    pub mrconfigid: [u64; 6],
    /// `MROWNER`, a SHA-384 digest.
    pub mrowner: [u64; 6],
    /// `MROWNERCONFIG`, a SHA-384 digest.
    pub mrownerconfig: [u64; 6],
    /// Reserved, must be 0.
    pub reserved: [u64; 12],
    /// CPUID entries that follow, at most 256.
    pub cpuid_nent: u32,
    /// Padding of the CPUID table's header, must be 0.
    pub cpuid_padding: u32,
}
const _: () = assert!(size_of::<InitVm>() == 264 && offset_of!(InitVm, xfam) == 8);
const _: () = assert!(offset_of!(InitVm, mrconfigid) == 16 && offset_of!(InitVm, mrowner) == 64);
const _: () = assert!(offset_of!(InitVm, mrownerconfig) == 112 && offset_of!(InitVm, reserved) == 160);
const _: () = assert!(offset_of!(InitVm, cpuid_nent) == 256);

/// The argument of `KVM_TDX_INIT_MEM_REGION`. The kernel writes it back, with `EINTR` too: what is left.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_tdx_init_mem_region`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InitMemRegion {
    /// The contents: address in the process in bytes, page aligned.
    pub source_addr: u64,
    /// Where they go: guest physical address in bytes, page aligned.
    pub gpa: u64,
    /// How many 4 KiB pages.
    pub nr_pages: u64,
}
const _: () = assert!(size_of::<InitMemRegion>() == 24 && offset_of!(InitMemRegion, gpa) == 8);
const _: () = assert!(offset_of!(InitMemRegion, nr_pages) == 16);

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn every_command_goes_to_the_vm_or_to_a_vcpu() {
        for number in 0..100 {
            assert_eq!(id::is_for_vcpu(number).is_some(), id::name(number).is_some());
        }
        assert_eq!(id::is_for_vcpu(id::FINALIZE_VM), Some(false));
    }
}
