//! An SNP guest message: its header, of which KVM looks at one byte, and the first bytes of the report response.
//!
//! Sources: AMD 56860 "SEV Secure Nested Paging Firmware ABI", revision 1.58, section 8 "Guest Messages"; Linux v7.2
//! `arch/x86/include/asm/sev.h`, `struct snp_guest_msg_hdr`.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset of `msg_type`, the byte that KVM reads without authenticating it.
pub const MSG_TYPE: u64 = 0x34;
/// `MSG_REPORT_REQ`: the guest asks for an attestation report.
pub const MSG_REPORT_REQ: u8 = msg_type::REPORT_REQ;

/// `msg_type`: what the encrypted rest of the message is.
pub mod msg_type {
    crate::named::named! {
        u8;
        INVALID = 0, "No message.";
        CPUID_REQ = 1, "Check a CPUID table.";
        CPUID_RSP = 2, "Response to [`CPUID_REQ`].";
        KEY_REQ = 3, "Derive a key.";
        KEY_RSP = 4, "Response to [`KEY_REQ`].";
        REPORT_REQ = 5, "Make an attestation report.";
        REPORT_RSP = 6, "Response to [`REPORT_REQ`]: a [`super::ReportResponse`] and the report.";
        EXPORT_REQ = 7, "Export a guest, for a migration agent.";
        EXPORT_RSP = 8, "Response to [`EXPORT_REQ`].";
        IMPORT_REQ = 9, "Import a guest, for a migration agent.";
        IMPORT_RSP = 10, "Response to [`IMPORT_REQ`].";
        ABSORB_REQ = 11, "Take over another guest's context, for a migration agent.";
        ABSORB_RSP = 12, "Response to [`ABSORB_REQ`].";
        VMRK_REQ = 13, "Set the root key, for a migration agent.";
        VMRK_RSP = 14, "Response to [`VMRK_REQ`].";
        ABSORB_NOMA_REQ = 15, "Take over another guest's context without a migration agent.";
        ABSORB_NOMA_RSP = 16, "Response to [`ABSORB_NOMA_REQ`].";
        TSC_INFO_REQ = 17, "Fetch the scale and offset of the secure TSC.";
        TSC_INFO_RSP = 18, "Response to [`TSC_INFO_REQ`].";
    }
}

/// `algo`: the authenticated encryption of the message.
pub mod algo {
    crate::named::named! {
        u8;
        INVALID = 0, "None.";
        AES_256_GCM = 1, "AES-256-GCM.";
    }
}

/// The header of a guest message, in shared memory. Bytes 0x30 to 0x5f are authenticated, not encrypted.
///
/// Layout: AMD 56860 revision 1.58, table "Message Header Format"; Linux v7.2 `arch/x86/include/asm/sev.h`,
/// `struct snp_guest_msg_hdr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// The authentication tag, of which AES-256-GCM uses 16 bytes.
    pub authtag: [u8; 32],
    /// The sequence number, which makes the initialisation vector.
    pub msg_seqno: u64,
    /// Reserved.
    pub rsvd1: [u8; 8],
    /// As in [`algo`].
    pub algo: u8,
    /// Version of this header: 1.
    pub hdr_version: u8,
    /// Bytes of this header: 96.
    pub hdr_sz: u16,
    /// As in [`msg_type`].
    pub msg_type: u8,
    /// Version of the message: 1.
    pub msg_version: u8,
    /// Bytes of the message behind this header.
    pub msg_sz: u16,
    /// Reserved.
    pub rsvd2: u32,
    /// The key: VMPCK 0 to 3.
    pub msg_vmpck: u8,
    /// Reserved.
    pub rsvd3: [u8; 35],
}
const _: () = assert!(size_of::<Header>() == 96 && offset_of!(Header, msg_seqno) == 0x20);
const _: () = assert!(offset_of!(Header, algo) == 0x30 && offset_of!(Header, hdr_version) == 0x31);
const _: () = assert!(offset_of!(Header, hdr_sz) == 0x32 && offset_of!(Header, msg_type) == 0x34);
const _: () = assert!(offset_of!(Header, msg_version) == 0x35 && offset_of!(Header, msg_sz) == 0x36);
const _: () = assert!(offset_of!(Header, rsvd2) == 0x38 && offset_of!(Header, msg_vmpck) == 0x3c);

/// What stands before the report in a decrypted `MSG_REPORT_RSP`, and so in what `/dev/sev-guest` hands out.
///
/// Layout: AMD 56860 revision 1.58, table "`MSG_REPORT_RSP` Message Structure".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReportResponse {
    /// 0, or 0x16 for a parameter that is wrong, or 0x27 for a key that is not there.
    pub status: u32,
    /// Bytes of the report that follows.
    pub report_size: u32,
    /// Reserved.
    pub rsvd: [u8; 24],
}
const _: () = assert!(size_of::<ReportResponse>() == 32 && offset_of!(ReportResponse, report_size) == 4);

/// The hypervisor's half of `SW_EXITINFO2`, bits 63:32, after an extended guest request.
///
/// Source: Linux v7.2 `include/uapi/linux/sev-guest.h`, `SNP_GUEST_VMM_ERR_*`.
pub mod vmm_error {
    crate::named::named! {
        u64;
        INVALID_LEN = 1 << 32, "The guest's buffer is too small; RBX holds the pages needed.";
        BUSY = 2 << 32, "Try again later.";
        GENERIC = 0xffff_ffff << 32, "Anything else. KVM's own choice, not a number of the GHCB specification.";
    }
}
