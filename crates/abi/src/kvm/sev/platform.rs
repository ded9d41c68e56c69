//! `/dev/sev`: commands for the platform, not for a guest.
//!
//! The driver has no compat handler: a 32-bit process gets `ENOTTY` for each of them.

use core::mem::{offset_of, size_of};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The argument of `SEV_ISSUE_CMD`.
///
/// Layout: Linux v7.2 `include/uapi/linux/psp-sev.h`, `struct sev_issue_cmd`, which is packed: `data` is at 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SevIssueCmd {
    /// Which command, as in [`command`].
    pub cmd: U32,
    /// The command's own struct: address in the process in bytes, 0 for a command without one.
    pub data: U64,
    /// Out: what the firmware said, as in [`super::firmware`].
    pub error: U32,
}
const _: () = assert!(size_of::<SevIssueCmd>() == 16 && offset_of!(SevIssueCmd, data) == 4);
const _: () = assert!(offset_of!(SevIssueCmd, error) == 12);

/// Commands of `SEV_ISSUE_CMD`.
///
/// Source: Linux v7.2 `include/uapi/linux/psp-sev.h`.
pub mod command {
    crate::named::named! {
        u32;
        FACTORY_RESET = 0, "`SEV_FACTORY_RESET`: forget the owner.";
        PLATFORM_STATUS = 1, "`SEV_PLATFORM_STATUS`: versions, state and count of SEV guests.";
        PEK_GEN = 2, "`SEV_PEK_GEN`: make a new platform endorsement key.";
        PEK_CSR = 3, "`SEV_PEK_CSR`: fetch a request to sign that key.";
        PDH_GEN = 4, "`SEV_PDH_GEN`: make a new platform Diffie-Hellman key.";
        PDH_CERT_EXPORT = 5, "`SEV_PDH_CERT_EXPORT`: fetch its certificate and chain.";
        PEK_CERT_IMPORT = 6, "`SEV_PEK_CERT_IMPORT`: make the signer of that key the owner.";
        GET_ID = 7, "`SEV_GET_ID`: replaced by [`GET_ID2`].";
        GET_ID2 = 8, "`SEV_GET_ID2`: fetch the identity of the chip.";
        SNP_PLATFORM_STATUS = 9, "`SNP_PLATFORM_STATUS`: versions, state and count of SNP guests.";
        SNP_COMMIT = 10, "`SNP_COMMIT`: never go back behind the current firmware.";
        SNP_SET_CONFIG = 11, "`SNP_SET_CONFIG`: choose the reported TCB and what reports hide.";
        SNP_VLEK_LOAD = 12, "`SNP_VLEK_LOAD`: load a versioned loaded endorsement key.";
    }

    /// Bytes of the struct that `data` points to: 0 for a command without one, `None` for a number that no command
    /// has.
    #[must_use]
    pub const fn data_bytes(command: u32) -> Option<usize> {
        use core::mem::size_of;
        Some(match command {
            FACTORY_RESET | PEK_GEN | PDH_GEN | SNP_COMMIT => 0,
            PLATFORM_STATUS => size_of::<super::PlatformStatus>(),
            PEK_CSR | GET_ID2 => size_of::<super::Buffer>(),
            PDH_CERT_EXPORT | PEK_CERT_IMPORT => size_of::<super::TwoBuffers>(),
            GET_ID => 128,
            SNP_PLATFORM_STATUS => size_of::<super::SnpPlatformStatus>(),
            SNP_SET_CONFIG => size_of::<super::SnpConfig>(),
            SNP_VLEK_LOAD => size_of::<super::SnpVlekLoad>(),
            _ => return None,
        })
    }
}

/// Out of `SEV_PLATFORM_STATUS`.
///
/// Layout: Linux v7.2 `include/uapi/linux/psp-sev.h`, `struct sev_user_data_status`, which is packed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PlatformStatus {
    /// Major version of the SEV API.
    pub api_major: u8,
    /// Minor version of the SEV API.
    pub api_minor: u8,
    /// State of the platform.
    pub state: u8,
    /// `SEV_STATUS_FLAGS_*`; bit 8 is set where SEV-ES is configured.
    pub flags: U32,
    /// Build of the firmware.
    pub build: u8,
    /// SEV and SEV-ES guests that the firmware manages.
    pub guest_count: U32,
}
const _: () = assert!(size_of::<PlatformStatus>() == 12 && offset_of!(PlatformStatus, flags) == 3);
const _: () = assert!(offset_of!(PlatformStatus, build) == 7 && offset_of!(PlatformStatus, guest_count) == 8);

/// The argument of `SEV_PEK_CSR` and `SEV_GET_ID2`.
///
/// Layout: Linux v7.2 `include/uapi/linux/psp-sev.h`, `struct sev_user_data_pek_csr` and `sev_user_data_get_id2`,
/// which are packed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Buffer {
    /// Where the answer goes: address in the process in bytes.
    pub address: U64,
    /// In: bytes of the buffer, 0 to ask. Out: bytes of the answer.
    pub length: U32,
}
const _: () = assert!(size_of::<Buffer>() == 12 && offset_of!(Buffer, length) == 8);

/// The argument of `SEV_PDH_CERT_EXPORT` and `SEV_PEK_CERT_IMPORT`.
///
/// Layout: Linux v7.2 `include/uapi/linux/psp-sev.h`, `struct sev_user_data_pdh_cert_export` and
/// `sev_user_data_pek_cert_import`, which are packed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TwoBuffers {
    /// The certificate: address in the process in bytes.
    pub cert_address: U64,
    /// Its length in bytes.
    pub cert_len: U32,
    /// For export its chain, for import the owner's certificate: address in the process in bytes.
    pub other_address: U64,
    /// Its length in bytes.
    pub other_len: U32,
}
const _: () = assert!(size_of::<TwoBuffers>() == 24 && offset_of!(TwoBuffers, cert_len) == 8);
const _: () = assert!(offset_of!(TwoBuffers, other_address) == 12 && offset_of!(TwoBuffers, other_len) == 20);

/// Out of `SNP_PLATFORM_STATUS`.
///
/// Layout: Linux v7.2 `include/uapi/linux/psp-sev.h`, `struct sev_user_data_snp_status`, which is packed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SnpPlatformStatus {
    /// Major version of the SNP API.
    pub api_major: u8,
    /// Minor version of the SNP API.
    pub api_minor: u8,
    /// State of the platform: 0 before `SNP_INIT`, 1 after.
    pub state: u8,
    /// Bit 0: the reverse map table is initialised.
    pub is_rmp_initialized: u8,
    /// Build of the firmware.
    pub build_id: U32,
    /// Bit 0: reports hide the chip. Bit 1: reports are not signed. Bit 2: a VLEK is loaded. Bit 3:
    /// `SNP_FEATURE_INFO` is there. Bit 4: RAPL is off. Bit 5: ciphertext hiding is possible. Bit 6: it is on.
    pub flags: U32,
    /// SNP guests that the firmware manages.
    pub guest_count: U32,
    /// Versions of what runs, as in [`crate::report::tcb`].
    pub current_tcb_version: U64,
    /// Versions that reports give.
    pub reported_tcb_version: U64,
}
const _: () = assert!(size_of::<SnpPlatformStatus>() == 32 && offset_of!(SnpPlatformStatus, build_id) == 4);
const _: () =
    assert!(offset_of!(SnpPlatformStatus, flags) == 8 && offset_of!(SnpPlatformStatus, guest_count) == 12);
const _: () = assert!(offset_of!(SnpPlatformStatus, current_tcb_version) == 16);
const _: () = assert!(offset_of!(SnpPlatformStatus, reported_tcb_version) == 24);

/// The argument of `SNP_SET_CONFIG`.
///
/// Layout: Linux v7.2 `include/uapi/linux/psp-sev.h`, `struct sev_user_data_snp_config`, which is packed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SnpConfig {
    /// Versions that reports are to give.
    pub reported_tcb: U64,
    /// Bit 0: hide the chip in reports. Bit 1: do not sign reports.
    pub flags: U32,
    /// Reserved, must be 0.
    pub rsvd: [u8; 52],
}
const _: () = assert!(size_of::<SnpConfig>() == 64 && offset_of!(SnpConfig, flags) == 8);
const _: () = assert!(offset_of!(SnpConfig, rsvd) == 12);

/// Bytes of the wrapped key behind [`SnpVlekLoad::vlek_wrapped_address`].
pub const VLEK_HASHSTICK_BYTES: usize = 432;

/// The argument of `SNP_VLEK_LOAD`.
///
/// Layout: Linux v7.2 `include/uapi/linux/psp-sev.h`, `struct sev_user_data_snp_vlek_load`, which is packed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SnpVlekLoad {
    /// Bytes of this struct: 16.
    pub len: U32,
    /// Version of the wrapping: must be 0.
    pub vlek_wrapped_version: u8,
    /// Reserved.
    pub rsvd: [u8; 3],
    /// The wrapped key of [`VLEK_HASHSTICK_BYTES`]: address in the process in bytes.
    pub vlek_wrapped_address: U64,
}
const _: () = assert!(size_of::<SnpVlekLoad>() == 16 && offset_of!(SnpVlekLoad, vlek_wrapped_version) == 4);
const _: () = assert!(offset_of!(SnpVlekLoad, vlek_wrapped_address) == 8);

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn every_command_has_the_data_that_the_header_gives_it() {
        let expected = [0, 12, 0, 12, 0, 24, 24, 128, 12, 32, 0, 64, 16];
        for (number, bytes) in (0..).zip(expected) {
            assert_eq!(command::data_bytes(number), Some(bytes), "{number}");
            assert!(command::name(number).is_some());
        }
        for number in 13..1000 {
            assert_eq!(command::data_bytes(number), None);
        }
    }
}
