//! The two pages that the firmware fills or checks at the launch.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI" revision 1.58, section 8.17 "`SNP_LAUNCH_UPDATE`".

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entries that a CPUID page has room for.
pub const CPUID_COUNT_MAX: u32 = 64;

/// The secrets page.
///
/// Layout: AMD 56860 revision 1.58, table "Secrets Page Format"; Linux v7.2 `arch/x86/include/asm/sev.h`,
/// `struct snp_secrets_page`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SecretsPage {
    /// Version of this structure.
    pub version: u32,
    /// Bit 0: the page was added for an initial migration image.
    pub imi_en: u32,
    /// Family, model and stepping of the CPU, as `CPUID 1` has them in EAX.
    pub fms: u32,
    /// Reserved.
    pub rsvd0: u32,
    /// Guest OS visible workarounds, as the hypervisor gave them.
    pub gosvw: [u8; 16],
    /// The keys of VMPL 0 to 3.
    pub vmpck: [[u8; 32]; 4],
    /// For the guest's own use.
    pub os_area: [u8; 96],
    /// Which quadwords of a VMSA are tweaked, a bit each.
    pub vmsa_tweak_bitmap: [u8; 64],
    /// Of an SVSM: its base, guest physical address in bytes.
    pub svsm_base: u64,
    /// Of an SVSM: its size in bytes.
    pub svsm_size: u64,
    /// Of an SVSM: its calling area, guest physical address in bytes.
    pub svsm_caa: u64,
    /// Of an SVSM: the highest version of its protocol.
    pub svsm_max_version: u32,
    /// Of an SVSM: the privilege level of the guest.
    pub svsm_guest_vmpl: u8,
    /// Reserved.
    pub rsvd1: [u8; 3],
    /// Deviation of the TSC frequency, in units of 2^-16. Since version 4.
    pub tsc_factor: u32,
    /// Reserved.
    pub rsvd2: [u8; 3740],
}
const _: () = assert!(size_of::<SecretsPage>() == 4096 && offset_of!(SecretsPage, gosvw) == 0x10);
const _: () = assert!(offset_of!(SecretsPage, vmpck) == 0x20 && offset_of!(SecretsPage, os_area) == 0xa0);
const _: () = assert!(
    offset_of!(SecretsPage, vmsa_tweak_bitmap) == 0x100 && offset_of!(SecretsPage, svsm_base) == 0x140
);
const _: () = assert!(
    offset_of!(SecretsPage, svsm_guest_vmpl) == 0x15c && offset_of!(SecretsPage, tsc_factor) == 0x160
);

/// One result of `CPUID`.
///
/// Layout: AMD 56860 revision 1.58, table "`CPUID_FUNCTION` Structure".
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CpuidFunction {
    /// The leaf.
    pub eax_in: u32,
    /// The sub-leaf.
    pub ecx_in: u32,
    /// XCR0 at that time.
    pub xcr0_in: u64,
    /// `IA32_XSS` at that time.
    pub xss_in: u64,
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
    /// Reserved.
    pub reserved: u64,
}
const _: () = assert!(size_of::<CpuidFunction>() == 48 && offset_of!(CpuidFunction, xcr0_in) == 8);
const _: () = assert!(offset_of!(CpuidFunction, eax) == 24 && offset_of!(CpuidFunction, reserved) == 40);

/// The CPUID page, and the payload of `MSG_CPUID_REQ` up to its last entry.
///
/// Layout: AMD 56860 revision 1.58, table "CPUID Page Format".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CpuidPage {
    /// Entries in use.
    pub count: u32,
    /// Reserved.
    pub rsvd0: u32,
    /// Reserved.
    pub rsvd1: u64,
    /// The entries.
    pub functions: [CpuidFunction; CPUID_COUNT_MAX as usize],
    /// Reserved.
    pub rsvd2: [u8; 1008],
}
const _: () = assert!(size_of::<CpuidPage>() == 4096 && offset_of!(CpuidPage, functions) == 16);
