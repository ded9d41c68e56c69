//! The commands of `KVM_MEMORY_ENCRYPT_OP` for SEV and SNP, and those of `/dev/sev`.

use super::{EVERYWHERE, NEWEST, Ours, X86, ours};
use exeunt_abi::kvm::sev::{self, platform, snp};

pub(super) fn commands() -> Vec<Ours> {
    ours! {
        Whole NEWEST X86 "kvm_sev_cmd" = sev::SevCmd { id, pad0, data, error, sev_fd }
        Whole NEWEST X86 "kvm_sev_init" = sev::Init2 { vmsa_features, flags, ghcb_version, pad1, pad2 }
        Whole NEWEST X86 "kvm_sev_launch_start" = sev::LaunchStart {
            handle, policy, dh_uaddr, dh_len, pad0, session_uaddr, session_len, pad1,
        }
        Whole NEWEST X86 "kvm_sev_launch_update_data" = sev::LaunchUpdateData { uaddr, len, pad0 }
        Whole NEWEST X86 "kvm_sev_launch_secret" = sev::LaunchSecret {
            hdr_uaddr, hdr_len, pad0, guest_uaddr, guest_len, pad1, trans_uaddr, trans_len, pad2,
        }
        Whole NEWEST X86 "kvm_sev_launch_measure" = sev::LaunchMeasure { uaddr, len, pad0 }
        Whole NEWEST X86 "kvm_sev_guest_status" = sev::GuestStatus { handle, policy, state }
        Whole NEWEST X86 "kvm_sev_dbg" = sev::Dbg { src_uaddr, dst_uaddr, len, pad0 }
        Whole NEWEST X86 "kvm_sev_attestation_report" = sev::AttestationReport { mnonce, uaddr, len, pad0 }
    }
}

pub(super) fn migration() -> Vec<Ours> {
    ours! {
        Whole NEWEST X86 "kvm_sev_send_start" = sev::SendStart {
            policy, pad0, pdh_cert_uaddr, pdh_cert_len, pad1, plat_certs_uaddr, plat_certs_len, pad2,
            amd_certs_uaddr, amd_certs_len, pad3, session_uaddr, session_len, pad4,
        }
        Whole NEWEST X86 "kvm_sev_send_update_data" = sev::SendUpdateData {
            hdr_uaddr, hdr_len, pad0, guest_uaddr, guest_len, pad1, trans_uaddr, trans_len, pad2,
        }
        Whole NEWEST X86 "kvm_sev_receive_start" = sev::ReceiveStart {
            handle, policy, pdh_uaddr, pdh_len, pad0, session_uaddr, session_len, pad1,
        }
        Whole NEWEST X86 "kvm_sev_receive_update_data" = sev::ReceiveUpdateData {
            hdr_uaddr, hdr_len, pad0, guest_uaddr, guest_len, pad1, trans_uaddr, trans_len, pad2,
        }
    }
}

pub(super) fn snp() -> Vec<Ours> {
    ours! {
        Whole NEWEST X86 "kvm_sev_snp_launch_start" = snp::LaunchStart { policy, gosvw, flags, pad0, pad1 }
        Whole NEWEST X86 "kvm_sev_snp_launch_update" = snp::LaunchUpdate {
            gfn_start, uaddr, len, page_type: ["type"], pad0, flags, pad1, pad2,
        }
        Whole NEWEST X86 "kvm_sev_snp_launch_finish" = snp::LaunchFinish {
            id_block_uaddr, id_auth_uaddr, id_block_en, auth_key_en, vcek_disabled, host_data, pad0, flags, pad1,
        }
    }
}

/// The structs of `/dev/sev`, which are packed. Some of ours stand for two of C.
pub(super) fn platform() -> Vec<Ours> {
    ours! {
        Whole NEWEST EVERYWHERE "sev_issue_cmd" = platform::SevIssueCmd { cmd, data, error }
        Whole NEWEST EVERYWHERE "sev_user_data_status" = platform::PlatformStatus {
            api_major, api_minor, state, flags, build, guest_count,
        }
        Whole NEWEST EVERYWHERE "sev_user_data_pek_csr" = platform::Buffer { address, length }
        Whole NEWEST EVERYWHERE "sev_user_data_get_id2" = platform::Buffer { address, length }
        Whole NEWEST EVERYWHERE "sev_user_data_pdh_cert_export" = platform::TwoBuffers {
            cert_address: ["pdh_cert_address"], cert_len: ["pdh_cert_len"],
            other_address: ["cert_chain_address"], other_len: ["cert_chain_len"],
        }
        Whole NEWEST EVERYWHERE "sev_user_data_pek_cert_import" = platform::TwoBuffers {
            cert_address: ["pek_cert_address"], cert_len: ["pek_cert_len"],
            other_address: ["oca_cert_address"], other_len: ["oca_cert_len"],
        }
        Whole NEWEST EVERYWHERE "sev_user_data_snp_status" = platform::SnpPlatformStatus {
            api_major, api_minor, state, is_rmp_initialized: ["is_rmp_initialized" "rsvd"], build_id,
            flags: ["mask_chip_id" "mask_chip_key" "vlek_en" "feature_info" "rapl_dis" "ciphertext_hiding_cap"
                "ciphertext_hiding_en" "rsvd1"],
            guest_count, current_tcb_version, reported_tcb_version,
        }
        Whole NEWEST EVERYWHERE "sev_user_data_snp_config" = platform::SnpConfig {
            reported_tcb, flags: ["mask_chip_id" "mask_chip_key" "rsvd"], rsvd: ["rsvd1"],
        }
        Whole NEWEST EVERYWHERE "sev_user_data_snp_vlek_load" = platform::SnpVlekLoad {
            len, vlek_wrapped_version, rsvd, vlek_wrapped_address,
        }
    }
}
