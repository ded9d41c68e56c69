//! The attestation report of an SNP guest, versions 2 to 5.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI", revision 1.58, table 23 "`ATTESTATION_REPORT` Structure".
//! The versions share their offsets: a later one gives meaning to bytes that were reserved and zero.

pub mod tcb;

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a report, in each version.
pub const REPORT_BYTES: usize = 0x4a0;
/// Bytes that the signature covers: all that stands before it.
pub const SIGNED_BYTES: usize = 0x2a0;

/// Bits of [`AttestationReport::flags`].
pub mod flags {
    /// Bit 0: `author_key_digest` is filled.
    pub const AUTHOR_KEY_EN: u32 = 1 << 0;
    /// Bit 1: the host has the firmware not sign reports.
    pub const MASK_CHIP_KEY: u32 = 1 << 1;
    /// Bits 4:2: which key signed the report, as in [`super::signing_key`].
    pub const SIGNING_KEY_MASK: u32 = 0x1c;
    /// The shift of [`SIGNING_KEY_MASK`].
    pub const SIGNING_KEY_SHIFT: u32 = 2;
}

/// Which key signed the report.
pub mod signing_key {
    crate::named::named! {
        u32;
        VCEK = 0, "The versioned chip endorsement key.";
        VLEK = 1, "The versioned loaded endorsement key.";
        NONE = 7, "None: the report is not signed.";
    }
}

/// [`AttestationReport::signature_algo`].
pub mod signature_algo {
    crate::named::named! {
        u32;
        INVALID = 0, "None.";
        ECDSA_P384_SHA384 = 1, "ECDSA with the curve P-384 and SHA-384: R in 72 bytes, S in 72, little endian.";
    }
}

/// Bits of [`AttestationReport::platform_info`].
pub mod platform_info {
    crate::named::named! {
        u64;
        SMT_EN = 1 << 0, "Simultaneous multithreading is on.";
        TSME_EN = 1 << 1, "Transparent memory encryption is on.";
        ECC_EN = 1 << 2, "The memory corrects errors.";
        RAPL_DIS = 1 << 3, "The running average power limit is off.";
        CIPHERTEXT_HIDING_DRAM_EN = 1 << 4, "Ciphertext hiding for the memory is on.";
        ALIAS_CHECK_COMPLETE = 1 << 5, "The memory was checked for aliases since the last reset, and has none.";
        TIO_EN = 1 << 7, "SEV-TIO is on.";
    }
}

/// A report as the firmware writes it.
///
/// Layout: AMD 56860 revision 1.58, table 23, versions 2 to 5.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AttestationReport {
    /// Version of this structure.
    pub version: u32,
    /// Security version of the guest, from its ID block.
    pub guest_svn: u32,
    /// The guest's policy, as in [`crate::kvm::sev::snp::policy`].
    pub policy: u64,
    /// Family of the guest, from its ID block.
    pub family_id: [u8; 16],
    /// Image of the guest, from its ID block.
    pub image_id: [u8; 16],
    /// Privilege level that the request names. `0xffff_ffff`: the host asked.
    pub vmpl: u32,
    /// As in [`signature_algo`].
    pub signature_algo: u32,
    /// Versions of what runs.
    pub current_tcb: [u8; 8],
    /// As in [`platform_info`].
    pub platform_info: u64,
    /// As in [`flags`].
    pub flags: u32,
    /// Reserved.
    pub reserved0: u32,
    /// What the guest wanted in the report.
    pub report_data: [u8; 64],
    /// The launch measurement, SHA-384.
    pub measurement: [u8; 48],
    /// What the host wanted in the report.
    pub host_data: [u8; 32],
    /// Digest of the key that signed the ID block, SHA-384.
    pub id_key_digest: [u8; 48],
    /// Digest of the key that certified that key, SHA-384, or zeroes.
    pub author_key_digest: [u8; 48],
    /// Identity of this guest, which lives as long as it does.
    pub report_id: [u8; 32],
    /// Identity of its migration agent, or all ones.
    pub report_id_ma: [u8; 32],
    /// Versions that the signing key was derived from.
    pub reported_tcb: [u8; 8],
    /// Version 3: family of the CPU, extended and base together. Reserved before.
    pub cpuid_fam_id: u8,
    /// Version 3: model of the CPU, extended and base together. Reserved before.
    pub cpuid_mod_id: u8,
    /// Version 3: stepping of the CPU. Reserved before.
    pub cpuid_step: u8,
    /// Reserved.
    pub reserved1: [u8; 21],
    /// Identity of the chip, or zeroes if the host hides it. Turin uses the first 8 bytes.
    pub chip_id: [u8; 64],
    /// Versions that the host will not go back behind.
    pub committed_tcb: [u8; 8],
    /// Build of the firmware that runs.
    pub current_build: u8,
    /// Its minor version.
    pub current_minor: u8,
    /// Its major version.
    pub current_major: u8,
    /// Reserved.
    pub reserved2: u8,
    /// Build of the committed firmware.
    pub committed_build: u8,
    /// Its minor version.
    pub committed_minor: u8,
    /// Its major version.
    pub committed_major: u8,
    /// Reserved.
    pub reserved3: u8,
    /// Versions at the launch, or at the import of the guest.
    pub launch_tcb: [u8; 8],
    /// Version 5: mitigations that were verified at the launch, a bit each. Reserved before.
    pub launch_mit_vector: u64,
    /// Version 5: mitigations that are verified now, a bit each. Reserved before.
    pub current_mit_vector: u64,
    /// Reserved.
    pub reserved4: [u8; 152],
    /// The signature, by algorithm.
    pub signature: [u8; 512],
}
const _: () = assert!(size_of::<AttestationReport>() == REPORT_BYTES && REPORT_BYTES == 1184);
const _: () = assert!(offset_of!(AttestationReport, guest_svn) == 0x004);
const _: () = assert!(offset_of!(AttestationReport, policy) == 0x008);
const _: () = assert!(offset_of!(AttestationReport, family_id) == 0x010);
const _: () = assert!(offset_of!(AttestationReport, image_id) == 0x020);
const _: () = assert!(offset_of!(AttestationReport, vmpl) == 0x030);
const _: () = assert!(offset_of!(AttestationReport, signature_algo) == 0x034);
const _: () = assert!(offset_of!(AttestationReport, current_tcb) == 0x038);
const _: () = assert!(offset_of!(AttestationReport, platform_info) == 0x040);
const _: () = assert!(offset_of!(AttestationReport, flags) == 0x048);
const _: () = assert!(offset_of!(AttestationReport, report_data) == 0x050);
const _: () = assert!(offset_of!(AttestationReport, measurement) == 0x090);
const _: () = assert!(offset_of!(AttestationReport, host_data) == 0x0c0);
const _: () = assert!(offset_of!(AttestationReport, id_key_digest) == 0x0e0);
const _: () = assert!(offset_of!(AttestationReport, author_key_digest) == 0x110);
const _: () = assert!(offset_of!(AttestationReport, report_id) == 0x140);
const _: () = assert!(offset_of!(AttestationReport, report_id_ma) == 0x160);
const _: () = assert!(offset_of!(AttestationReport, reported_tcb) == 0x180);
const _: () = assert!(offset_of!(AttestationReport, cpuid_fam_id) == 0x188);
const _: () = assert!(offset_of!(AttestationReport, cpuid_mod_id) == 0x189);
const _: () = assert!(offset_of!(AttestationReport, cpuid_step) == 0x18a);
const _: () = assert!(offset_of!(AttestationReport, chip_id) == 0x1a0);
const _: () = assert!(offset_of!(AttestationReport, committed_tcb) == 0x1e0);
const _: () = assert!(offset_of!(AttestationReport, current_build) == 0x1e8);
const _: () = assert!(offset_of!(AttestationReport, current_major) == 0x1ea);
const _: () = assert!(offset_of!(AttestationReport, committed_build) == 0x1ec);
const _: () = assert!(offset_of!(AttestationReport, committed_major) == 0x1ee);
const _: () = assert!(offset_of!(AttestationReport, launch_tcb) == 0x1f0);
const _: () = assert!(offset_of!(AttestationReport, launch_mit_vector) == 0x1f8);
const _: () = assert!(offset_of!(AttestationReport, current_mit_vector) == 0x200);
const _: () = assert!(offset_of!(AttestationReport, reserved4) == 0x208);
const _: () = assert!(offset_of!(AttestationReport, signature) == SIGNED_BYTES);
