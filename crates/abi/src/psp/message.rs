//! Payloads of guest messages.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI" revision 1.58, chapter 7 "Guest Messages".

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `MSG_REPORT_REQ`.
///
/// Layout: AMD 56860 revision 1.58, table "`MSG_REPORT_REQ` Message Structure"; Linux v7.2
/// `include/uapi/linux/sev-guest.h`, `struct snp_report_req`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReportRequest {
    /// What the guest wants in the report.
    pub report_data: [u8; 64],
    /// The privilege level for the report: the sender's own or a weaker one.
    pub vmpl: u32,
    /// Bits 1:0: which key signs, as in [`key_sel`].
    pub key_sel: u32,
    /// Reserved.
    pub rsvd: [u8; 24],
}
const _: () = assert!(size_of::<ReportRequest>() == 96 && offset_of!(ReportRequest, vmpl) == 64);
const _: () = assert!(offset_of!(ReportRequest, key_sel) == 68 && offset_of!(ReportRequest, rsvd) == 72);

/// Which key a message asks for.
pub mod key_sel {
    crate::named::named! {
        u32;
        VLEK_OR_VCEK = 0, "The VLEK if one is loaded, else the VCEK.";
        VCEK = 1, "The VCEK.";
        VLEK = 2, "The VLEK.";
    }
}

/// `MSG_KEY_REQ` of version 1.
///
/// Layout: AMD 56860 revision 1.58, table "`MSG_KEY_REQ` Message Structure"; Linux v7.2
/// `include/uapi/linux/sev-guest.h`, `struct snp_derived_key_req`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct KeyRequest {
    /// Bit 0: the VMRK instead of the chip's key. Bits 2:1: which chip key, as in [`key_sel`].
    pub root_key_select: u32,
    /// Reserved.
    pub rsvd: u32,
    /// What is mixed in, as in [`guest_field`].
    pub guest_field_select: u64,
    /// The privilege level that is mixed in.
    pub vmpl: u32,
    /// The security version to mix in: not above that of the guest.
    pub guest_svn: u32,
    /// The TCB version to mix in: not above the committed one.
    pub tcb_version: u64,
}
const _: () = assert!(size_of::<KeyRequest>() == 32 && offset_of!(KeyRequest, guest_field_select) == 8);
const _: () = assert!(offset_of!(KeyRequest, vmpl) == 16 && offset_of!(KeyRequest, tcb_version) == 24);

/// Bits of [`KeyRequest::guest_field_select`].
pub mod guest_field {
    crate::named::named! {
        u64;
        GUEST_POLICY = 1 << 0, "The guest's policy.";
        IMAGE_ID = 1 << 1, "The image of the ID block.";
        FAMILY_ID = 1 << 2, "The family of the ID block.";
        MEASUREMENT = 1 << 3, "The launch digest.";
        GUEST_SVN = 1 << 4, "The security version of the request.";
        TCB_VERSION = 1 << 5, "The TCB version of the request.";
        LAUNCH_MIT_VECTOR = 1 << 6, "The mitigation vector of the request; message version 2.";
    }

    /// Every bit that a request of message version 1 may have.
    pub const KNOWN_V1: u64 = 0x3f;
    /// Every bit that a request of message version 2 may have.
    pub const KNOWN_V2: u64 = 0x7f;
}

/// `MSG_KEY_RSP`.
///
/// Layout: AMD 56860 revision 1.58, table "`MSG_KEY_RSP` Message Structure".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct KeyResponse {
    /// 0, or 0x16 for a parameter that is wrong, or 0x27 for a key that is not there.
    pub status: u32,
    /// Reserved.
    pub rsvd: [u8; 28],
    /// The key.
    pub key: [u8; 32],
}
const _: () = assert!(size_of::<KeyResponse>() == 64 && offset_of!(KeyResponse, key) == 32);

/// Bytes of `MSG_TSC_INFO_REQ`, all of them reserved.
pub const TSC_INFO_REQUEST_BYTES: usize = 128;

/// `MSG_TSC_INFO_RSP`.
///
/// Layout: AMD 56860 revision 1.58, table "`MSG_TSC_INFO_RSP` Message Structure"; Linux v7.2
/// `arch/x86/include/asm/sev.h`, `struct snp_tsc_info_resp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TscInfoResponse {
    /// 0.
    pub status: u32,
    /// Reserved.
    pub rsvd0: u32,
    /// Scale of the guest's TSC: 8 bits before the point, 32 behind it.
    pub tsc_scale: u64,
    /// Offset of the guest's TSC.
    pub tsc_offset: u64,
    /// Deviation of the frequency, in units of 2^-16.
    pub tsc_factor: u32,
    /// Reserved.
    pub rsvd1: [u8; 100],
}
const _: () = assert!(size_of::<TscInfoResponse>() == 128 && offset_of!(TscInfoResponse, tsc_scale) == 8);
const _: () = assert!(offset_of!(TscInfoResponse, tsc_factor) == 24);

/// What stands before the entries in `MSG_CPUID_REQ` and `MSG_CPUID_RSP`.
///
/// Layout: AMD 56860 revision 1.58, tables "`MSG_CPUID_REQ`" and "`MSG_CPUID_RSP` Message Structure".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CpuidHead {
    /// Request: entries. Response: the status.
    pub count_or_status: u32,
    /// Request: reserved. Response: entries.
    pub rsvd_or_count: u32,
    /// Reserved.
    pub rsvd: u64,
}
const _: () = assert!(size_of::<CpuidHead>() == 16 && offset_of!(CpuidHead, rsvd) == 8);
