//! `KVM_MEMORY_ENCRYPT_OP` on an SEV, SEV-ES or SNP VM: the commands, their numbers and their arguments.
//!
//! Sizes and offsets are the same for i386, x32 and 64-bit processes, since padding at the end is explicit. The kernel
//! does not check most of the padding; write zeroes all the same.

pub mod firmware;
mod launch;
mod migrate;
pub mod platform;
pub mod snp;

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use launch::{
    AttestationReport, Dbg, GuestStatus, Init2, LaunchMeasure, LaunchSecret, LaunchStart, LaunchUpdateData,
};
pub use migrate::{ReceiveStart, ReceiveUpdateData, SendStart, SendUpdateData};

/// The argument of `KVM_MEMORY_ENCRYPT_OP` on an SEV VM.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sev_cmd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SevCmd {
    /// Which command, as in [`id`].
    pub id: u32,
    /// Padding.
    pub pad0: u32,
    /// The command's own struct: address in the process in bytes, 0 for a command without one.
    pub data: u64,
    /// Out: what the firmware said, as in [`firmware`]; 0 where it was not asked.
    pub error: u32,
    /// An open `/dev/sev`. Of a launch the kernel remembers the number, so it has to stay open.
    pub sev_fd: u32,
}
const _: () = assert!(size_of::<SevCmd>() == 24 && offset_of!(SevCmd, data) == 8);
const _: () = assert!(offset_of!(SevCmd, error) == 16 && offset_of!(SevCmd, sev_fd) == 20);

/// `enum sev_cmd_id`.
///
/// Source: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`.
pub mod id {
    crate::named::named! {
        u32;
        INIT = 0, "`KVM_SEV_INIT`: make the VM an SEV guest. Replaced by [`INIT2`].";
        ES_INIT = 1, "`KVM_SEV_ES_INIT`: make the VM an SEV-ES guest with GHCB version 1. Replaced by [`INIT2`].";
        LAUNCH_START = 2, "`KVM_SEV_LAUNCH_START`: [`super::LaunchStart`].";
        LAUNCH_UPDATE_DATA = 3, "`KVM_SEV_LAUNCH_UPDATE_DATA`: [`super::LaunchUpdateData`].";
        LAUNCH_UPDATE_VMSA = 4, "`KVM_SEV_LAUNCH_UPDATE_VMSA`: encrypt the registers of all vCPUs.";
        LAUNCH_SECRET = 5, "`KVM_SEV_LAUNCH_SECRET`: [`super::LaunchSecret`].";
        LAUNCH_MEASURE = 6, "`KVM_SEV_LAUNCH_MEASURE`: [`super::LaunchMeasure`].";
        LAUNCH_FINISH = 7, "`KVM_SEV_LAUNCH_FINISH`: the guest may run.";
        SEND_START = 8, "`KVM_SEV_SEND_START`: [`super::SendStart`].";
        SEND_UPDATE_DATA = 9, "`KVM_SEV_SEND_UPDATE_DATA`: [`super::SendUpdateData`].";
        SEND_UPDATE_VMSA = 10, "`KVM_SEV_SEND_UPDATE_VMSA`, which has no handler.";
        SEND_FINISH = 11, "`KVM_SEV_SEND_FINISH`.";
        RECEIVE_START = 12, "`KVM_SEV_RECEIVE_START`: [`super::ReceiveStart`].";
        RECEIVE_UPDATE_DATA = 13, "`KVM_SEV_RECEIVE_UPDATE_DATA`: [`super::ReceiveUpdateData`].";
        RECEIVE_UPDATE_VMSA = 14, "`KVM_SEV_RECEIVE_UPDATE_VMSA`, which has no handler.";
        RECEIVE_FINISH = 15, "`KVM_SEV_RECEIVE_FINISH`.";
        GUEST_STATUS = 16, "`KVM_SEV_GUEST_STATUS`: [`super::GuestStatus`].";
        DBG_DECRYPT = 17, "`KVM_SEV_DBG_DECRYPT`: [`super::Dbg`].";
        DBG_ENCRYPT = 18, "`KVM_SEV_DBG_ENCRYPT`: [`super::Dbg`].";
        CERT_EXPORT = 19, "`KVM_SEV_CERT_EXPORT`, which has no handler.";
        GET_ATTESTATION_REPORT = 20, "`KVM_SEV_GET_ATTESTATION_REPORT`: [`super::AttestationReport`].";
        SEND_CANCEL = 21, "`KVM_SEV_SEND_CANCEL`.";
        INIT2 = 22, "`KVM_SEV_INIT2`: [`super::Init2`]. Linux 6.10.";
        SNP_LAUNCH_START = 100, "`KVM_SEV_SNP_LAUNCH_START`: [`super::snp::LaunchStart`]. Linux 6.11.";
        SNP_LAUNCH_UPDATE = 101, "`KVM_SEV_SNP_LAUNCH_UPDATE`: [`super::snp::LaunchUpdate`]. Linux 6.11.";
        SNP_LAUNCH_FINISH = 102, "`KVM_SEV_SNP_LAUNCH_FINISH`: [`super::snp::LaunchFinish`]. Linux 6.11.";
        SNP_ENABLE_REQ_CERTS = 103, "`KVM_SEV_SNP_ENABLE_REQ_CERTS`: from now on certificates are asked for with \
                                     `KVM_EXIT_SNP_REQ_CERTS`. Linux 7.0.";
    }

    /// Whether KVM does anything for the command. The three without a handler end in `EINVAL` like a number that
    /// does not exist.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_mem_enc_ioctl`.
    #[must_use]
    pub const fn has_handler(id: u32) -> bool {
        name(id).is_some() && !matches!(id, SEND_UPDATE_VMSA | RECEIVE_UPDATE_VMSA | CERT_EXPORT)
    }

    /// Bytes of the struct that `data` of the command points to: 0 for a command without one, `None` for a number
    /// that no command has.
    #[must_use]
    pub const fn data_bytes(id: u32) -> Option<usize> {
        use super::snp;
        use core::mem::size_of;
        Some(match id {
            LAUNCH_START => size_of::<super::LaunchStart>(),
            LAUNCH_UPDATE_DATA => size_of::<super::LaunchUpdateData>(),
            LAUNCH_SECRET => size_of::<super::LaunchSecret>(),
            LAUNCH_MEASURE => size_of::<super::LaunchMeasure>(),
            SEND_START => size_of::<super::SendStart>(),
            SEND_UPDATE_DATA => size_of::<super::SendUpdateData>(),
            RECEIVE_START => size_of::<super::ReceiveStart>(),
            RECEIVE_UPDATE_DATA => size_of::<super::ReceiveUpdateData>(),
            GUEST_STATUS => size_of::<super::GuestStatus>(),
            DBG_DECRYPT | DBG_ENCRYPT => size_of::<super::Dbg>(),
            GET_ATTESTATION_REPORT => size_of::<super::AttestationReport>(),
            INIT2 => size_of::<super::Init2>(),
            SNP_LAUNCH_START => size_of::<snp::LaunchStart>(),
            SNP_LAUNCH_UPDATE => size_of::<snp::LaunchUpdate>(),
            SNP_LAUNCH_FINISH => size_of::<snp::LaunchFinish>(),
            id if name(id).is_some() => 0,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_commands_have_a_number_and_no_handler() {
        let without = (0..1000).filter(|number| id::name(*number).is_some() && !id::has_handler(*number));
        assert!(without.eq([10, 14, 19]));
        assert!(!id::has_handler(99) && !id::has_handler(104));
    }

    #[test]
    fn every_command_has_the_data_that_the_header_gives_it() {
        let expected = [
            (2, 40),
            (3, 16),
            (5, 48),
            (6, 16),
            (8, 72),
            (9, 48),
            (12, 40),
            (13, 48),
            (16, 12),
            (17, 24),
            (18, 24),
            (20, 32),
            (22, 48),
            (100, 64),
            (101, 64),
            (102, 88),
        ];
        for number in 0..1000 {
            let named = id::name(number).is_some();
            let bytes = expected.iter().find(|(id, _)| *id == number).map_or(0, |(_, bytes)| *bytes);
            assert_eq!(id::data_bytes(number), named.then_some(bytes), "{number}");
        }
    }
}
