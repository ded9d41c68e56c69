//! The report of a TD: what `TDG.MR.REPORT` writes, and a quote carries.
//!
//! Source: Intel 348551 version 1.5, section 3.9 "Measurement and Attestation Types"; Intel 344425 "Architecture
//! Specification: Intel Trust Domain Extensions Module", chapter 12.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a SHA-384 digest.
pub const DIGEST_BYTES: usize = 48;
/// Measurement registers that are extended at run time.
pub const RTMRS: usize = 4;
/// [`ReportMac::report_type`] of a TD without a service TD: type 0x81, subtype 0, version 0.
pub const TD_REPORT_TYPE: [u8; 4] = [0x81, 0, 0, 0];

/// `REPORTMACSTRUCT`: what the CPU vouches for.
///
/// Layout: Intel 348551 version 1.5, `REPORTMACSTRUCT`. The MAC covers the 224 bytes before it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReportMac {
    /// Type, subtype, version, reserved: [`TD_REPORT_TYPE`].
    pub report_type: [u8; 4],
    /// Reserved, 0.
    pub reserved0: [u8; 12],
    /// Security version of the CPU.
    pub cpu_svn: [u8; 16],
    /// SHA-384 of [`TdReport::tee_tcb_info`].
    pub tee_tcb_info_hash: [u8; DIGEST_BYTES],
    /// SHA-384 of [`TdReport::td_info`].
    pub tee_info_hash: [u8; DIGEST_BYTES],
    /// What the TD wanted in the report.
    pub report_data: [u8; 64],
    /// Reserved, 0.
    pub reserved1: [u8; 32],
    /// The MAC, with a key that only the CPU has.
    pub mac: [u8; 32],
}
const _: () = assert!(size_of::<ReportMac>() == 256 && offset_of!(ReportMac, cpu_svn) == 16);
const _: () = assert!(offset_of!(ReportMac, tee_tcb_info_hash) == 32);
const _: () = assert!(offset_of!(ReportMac, tee_info_hash) == 80);
const _: () = assert!(offset_of!(ReportMac, report_data) == 128 && offset_of!(ReportMac, mac) == 224);

/// `TEE_TCB_INFO`: the TDX module that the TD runs on.
///
/// Layout: Intel 348551 version 1.5, `TEE_TCB_INFO_STRUCT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TeeTcbInfo {
    /// Which of the 8-byte parts are valid: [`TeeTcbInfo::VALID`].
    pub valid: [u8; 8],
    /// Security versions of the TDX module's parts.
    pub tee_tcb_svn: [u8; 16],
    /// Measurement of the TDX module.
    pub mrseam: [u8; DIGEST_BYTES],
    /// Who signed the TDX module; 0 for Intel.
    pub mrsignerseam: [u8; DIGEST_BYTES],
    /// Attributes of the TDX module, 0.
    pub attributes: [u8; 8],
    /// Security versions of the TDX module that runs, which may have been updated since the TD began.
    pub tee_tcb_svn2: [u8; 16],
    /// Reserved, 0.
    pub reserved: [u8; 95],
}
const _: () = assert!(size_of::<TeeTcbInfo>() == 239 && offset_of!(TeeTcbInfo, mrseam) == 24);
const _: () = assert!(offset_of!(TeeTcbInfo, attributes) == 120 && offset_of!(TeeTcbInfo, reserved) == 144);

impl TeeTcbInfo {
    /// [`TeeTcbInfo::valid`] of modules of version 1.5, little endian.
    pub const VALID: u64 = 0x301ff;
}

/// `TDINFO`: the TD.
///
/// Layout: Intel 348551 version 1.5, `TDINFO_STRUCT`, without service TDs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TdInfo {
    /// As in [`super::attributes`], little endian.
    pub attributes: [u8; 8],
    /// Features that the TD may keep state of, little endian.
    pub xfam: [u8; 8],
    /// The measurement of the launch.
    pub mrtd: [u8; DIGEST_BYTES],
    /// What the host configured, as it said.
    pub mrconfigid: [u8; DIGEST_BYTES],
    /// Who owns the TD, as the host said.
    pub mrowner: [u8; DIGEST_BYTES],
    /// What the owner configured, as the host said.
    pub mrownerconfig: [u8; DIGEST_BYTES],
    /// What the TD extended at run time.
    pub rtmr: [[u8; DIGEST_BYTES]; RTMRS],
    /// Digest of the service TDs, 0 without any.
    pub servtd_hash: [u8; DIGEST_BYTES],
    /// Reserved, 0.
    pub reserved: [u8; 64],
}
const _: () = assert!(size_of::<TdInfo>() == 512 && offset_of!(TdInfo, mrtd) == 16);
const _: () = assert!(offset_of!(TdInfo, mrconfigid) == 64 && offset_of!(TdInfo, mrownerconfig) == 160);
const _: () = assert!(offset_of!(TdInfo, rtmr) == 208 && offset_of!(TdInfo, servtd_hash) == 400);

/// `TDREPORT`: the report as it lies in the memory of the TD.
///
/// Layout: Intel 348551 version 1.5, `TDREPORT_STRUCT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TdReport {
    /// What the CPU vouches for.
    pub mac: ReportMac,
    /// The TDX module.
    pub tee_tcb_info: TeeTcbInfo,
    /// Reserved, 0.
    pub reserved: [u8; 17],
    /// The TD.
    pub td_info: TdInfo,
}
const _: () = assert!(size_of::<TdReport>() == 1024 && offset_of!(TdReport, tee_tcb_info) == 256);
const _: () = assert!(offset_of!(TdReport, reserved) == 495 && offset_of!(TdReport, td_info) == 512);
