//! Launching an SNP guest.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the blob behind [`LaunchFinish::id_block_uaddr`].
pub const ID_BLOCK_BYTES: usize = 96;
/// Bytes of the blob behind [`LaunchFinish::id_auth_uaddr`].
pub const ID_AUTH_BYTES: usize = 4096;

/// Bits of the guest policy. Bits 7:0 and 15:8 are the least minor and major ABI version.
///
/// Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI" revision 1.58, table 9; Linux v7.2
/// `arch/x86/kvm/svm/sev.c`, `snp_launch_start`. Which of the bits from 21 on a host takes depends on its firmware.
pub mod policy {
    crate::named::named! {
        u64;
        SMT = 1 << 16, "The guest may run where simultaneous multithreading is on.";
        RSVD = 1 << 17, "Must be 1; KVM refuses the launch otherwise.";
        MIGRATE_MA = 1 << 18, "The guest may have a migration agent.";
        DEBUG = 1 << 19, "The host may decrypt the guest's memory.";
        SINGLE_SOCKET = 1 << 20, "The guest runs on one socket only.";
        CXL_ALLOW = 1 << 21, "The host may have CXL devices and memory.";
        MEM_AES_256_XTS = 1 << 22, "Memory must be encrypted with AES-256-XTS.";
        RAPL_DIS = 1 << 23, "The running average power limit must be off.";
        CIPHERTEXT_HIDING = 1 << 24, "Ciphertext hiding for the memory must be on.";
        PAGE_SWAP_DISABLE = 1 << 25, "The firmware must not swap or move the guest's pages.";
    }

    /// Bits 7:0: the least minor version of the firmware ABI.
    pub const ABI_MINOR_MASK: u64 = 0xff;
    /// Bits 15:8: the least major version of the firmware ABI.
    pub const ABI_MAJOR_MASK: u64 = 0xff00;
    /// Every bit that means something.
    pub const KNOWN_MASK: u64 = 0x3ff_ffff;
}

/// `KVM_SEV_SNP_PAGE_TYPE_*`. The firmware's type 2, a VMSA, is not among them: KVM adds the VMSAs itself.
///
/// Source: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`.
pub mod page_type {
    crate::named::named! {
        u8;
        NORMAL = 1, "Contents and address are measured.";
        ZERO = 3, "A page of zeroes; `uaddr` is not looked at.";
        UNMEASURED = 4, "Only the address is measured.";
        SECRETS = 5, "The page that the firmware fills with keys.";
        CPUID = 6, "The CPUID table, which the firmware checks and KVM copies back corrected.";
    }
}

/// `KVM_SEV_SNP_LAUNCH_START`: begin the launch.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_snp_launch_start`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LaunchStart {
    /// The guest's policy, as in [`policy`].
    pub policy: u64,
    /// Guest OS visible workarounds, as the hypervisor sees them.
    pub gosvw: [u8; 16],
    /// No flag exists: must be 0.
    pub flags: u16,
    /// Padding.
    pub pad0: [u8; 6],
    /// Padding.
    pub pad1: [u64; 4],
}
const _: () = assert!(size_of::<LaunchStart>() == 64 && offset_of!(LaunchStart, gosvw) == 8);
const _: () = assert!(offset_of!(LaunchStart, flags) == 24 && offset_of!(LaunchStart, pad1) == 32);

/// `KVM_SEV_SNP_LAUNCH_UPDATE`: put pages into the guest and measure them.
///
/// The kernel writes the struct back: call again with what it wrote until `len` is 0.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_snp_launch_update`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LaunchUpdate {
    /// In: the first guest frame number. Out: the first that is left.
    pub gfn_start: u64,
    /// In: the contents, address in the process in bytes, page aligned. Out: what is left.
    pub uaddr: u64,
    /// In: length in bytes, page aligned, not 0. Out: what is left.
    pub len: u64,
    /// The type of the pages, as in [`page_type`].
    pub page_type: u8,
    /// Padding.
    pub pad0: u8,
    /// No flag exists: must be 0.
    pub flags: u16,
    /// Padding.
    pub pad1: u32,
    /// Padding.
    pub pad2: [u64; 4],
}
const _: () = assert!(size_of::<LaunchUpdate>() == 64 && offset_of!(LaunchUpdate, uaddr) == 8);
const _: () = assert!(offset_of!(LaunchUpdate, len) == 16 && offset_of!(LaunchUpdate, page_type) == 24);
const _: () = assert!(offset_of!(LaunchUpdate, flags) == 26 && offset_of!(LaunchUpdate, pad2) == 32);

/// `KVM_SEV_SNP_LAUNCH_FINISH`: measure the vCPUs and let the guest run.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_snp_launch_finish`. `host_data` starts at the
/// odd offset 19.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LaunchFinish {
    /// The ID block of [`ID_BLOCK_BYTES`]: address in the process in bytes, with `id_block_en`.
    pub id_block_uaddr: u64,
    /// Its authentication of [`ID_AUTH_BYTES`]: address in the process in bytes, with `id_block_en`.
    pub id_auth_uaddr: u64,
    /// 1 if there is an ID block.
    pub id_block_en: u8,
    /// 1 if the ID block names an author key; looked at only with `id_block_en`.
    pub auth_key_en: u8,
    /// 1 if reports must not be signed with the VCEK.
    pub vcek_disabled: u8,
    /// What the host wants in the report.
    pub host_data: [u8; 32],
    /// Padding.
    pub pad0: [u8; 3],
    /// No flag exists: must be 0.
    pub flags: u16,
    /// Padding.
    pub pad1: [u64; 4],
}
const _: () = assert!(size_of::<LaunchFinish>() == 88 && offset_of!(LaunchFinish, id_auth_uaddr) == 8);
const _: () =
    assert!(offset_of!(LaunchFinish, id_block_en) == 16 && offset_of!(LaunchFinish, host_data) == 19);
const _: () = assert!(offset_of!(LaunchFinish, flags) == 54 && offset_of!(LaunchFinish, pad1) == 56);
