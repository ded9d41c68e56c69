//! Commands of `KVM_MEMORY_ENCRYPT_OP` for SEV, SEV-ES and SEV-SNP.
//!
//! Up to 6.1 the holes of these structs were left to the compiler, so that an i386 process laid them out differently;
//! 6.12 spells them out.
//!
//! Source: Linux `include/uapi/linux/kvm.h` (v5.10, v6.1) and `arch/x86/include/uapi/asm/kvm.h` (v6.12, v7.2).

use super::ctype::{Member, u8, u8s, u16, u32, u32s, u64, u64s};
use super::registry::{Def, Form, since};
use super::release::Release::{Linux5_10, Linux5_17, Linux6_12};
use crate::target::Target;

const LAUNCH_START: &[Member] = &[
    u32("handle"),
    u32("policy"),
    u64("dh_uaddr"),
    u32("dh_len"),
    u32("pad0"),
    u64("session_uaddr"),
    u32("session_len"),
    u32("pad1"),
];

const LAUNCH_START_UNPADDED: &[Member] =
    &[u32("handle"), u32("policy"), u64("dh_uaddr"), u32("dh_len"), u64("session_uaddr"), u32("session_len")];

const DATA: &[Member] = &[u64("uaddr"), u32("len"), u32("pad0")];
const DATA_UNPADDED: &[Member] = &[u64("uaddr"), u32("len")];

/// A packet: header, guest memory, transport buffer.
const PACKET: &[Member] = &[
    u64("hdr_uaddr"),
    u32("hdr_len"),
    u32("pad0"),
    u64("guest_uaddr"),
    u32("guest_len"),
    u32("pad1"),
    u64("trans_uaddr"),
    u32("trans_len"),
    u32("pad2"),
];

const PACKET_UNPADDED: &[Member] = &[
    u64("hdr_uaddr"),
    u32("hdr_len"),
    u64("guest_uaddr"),
    u32("guest_len"),
    u64("trans_uaddr"),
    u32("trans_len"),
];

const SEND_START: &[Member] = &[
    u32("policy"),
    u32("pad0"),
    u64("pdh_cert_uaddr"),
    u32("pdh_cert_len"),
    u32("pad1"),
    u64("plat_certs_uaddr"),
    u32("plat_certs_len"),
    u32("pad2"),
    u64("amd_certs_uaddr"),
    u32("amd_certs_len"),
    u32("pad3"),
    u64("session_uaddr"),
    u32("session_len"),
    u32("pad4"),
];

const SEND_START_UNPADDED: &[Member] = &[
    u32("policy"),
    u64("pdh_cert_uaddr"),
    u32("pdh_cert_len"),
    u64("plat_certs_uaddr"),
    u32("plat_certs_len"),
    u64("amd_certs_uaddr"),
    u32("amd_certs_len"),
    u64("session_uaddr"),
    u32("session_len"),
];

const RECEIVE_START: &[Member] = &[
    u32("handle"),
    u32("policy"),
    u64("pdh_uaddr"),
    u32("pdh_len"),
    u32("pad0"),
    u64("session_uaddr"),
    u32("session_len"),
    u32("pad1"),
];

const RECEIVE_START_UNPADDED: &[Member] = &[
    u32("handle"),
    u32("policy"),
    u64("pdh_uaddr"),
    u32("pdh_len"),
    u64("session_uaddr"),
    u32("session_len"),
];

const INIT2: &[Member] =
    &[u64("vmsa_features"), u32("flags"), u16("ghcb_version"), u16("pad1"), u32s("pad2", 8)];

const SNP_LAUNCH_START: &[Member] =
    &[u64("policy"), u8s("gosvw", 16), u16("flags"), u8s("pad0", 6), u64s("pad1", 4)];

const SNP_LAUNCH_UPDATE: &[Member] = &[
    u64("gfn_start"),
    u64("uaddr"),
    u64("len"),
    u8("type"),
    u8("pad0"),
    u16("flags"),
    u32("pad1"),
    u64s("pad2", 4),
];

const SNP_LAUNCH_FINISH: &[Member] = &[
    u64("id_block_uaddr"),
    u64("id_auth_uaddr"),
    u8("id_block_en"),
    u8("auth_key_en"),
    u8("vcek_disabled"),
    u8s("host_data", 32),
    u8s("pad0", 3),
    u16("flags"),
    u64s("pad1", 4),
];

/// A struct of x86 that older releases declared for every architecture. Only x86 has it in use.
const fn command(name: &'static str, forms: &'static [Form]) -> Def {
    Def { name, targets: Target::X86, packed: false, forms }
}

pub(super) const STRUCTS: &[Def] = &[
    command(
        "kvm_sev_cmd",
        &[
            since(Linux5_10, &[u32("id"), u64("data"), u32("error"), u32("sev_fd")]),
            since(Linux6_12, &[u32("id"), u32("pad0"), u64("data"), u32("error"), u32("sev_fd")]),
        ],
    ),
    command("kvm_sev_init", &[since(Linux6_12, INIT2)]),
    command(
        "kvm_sev_launch_start",
        &[since(Linux5_10, LAUNCH_START_UNPADDED), since(Linux6_12, LAUNCH_START)],
    ),
    command("kvm_sev_launch_update_data", &[since(Linux5_10, DATA_UNPADDED), since(Linux6_12, DATA)]),
    command("kvm_sev_launch_secret", &[since(Linux5_10, PACKET_UNPADDED), since(Linux6_12, PACKET)]),
    command("kvm_sev_launch_measure", &[since(Linux5_10, DATA_UNPADDED), since(Linux6_12, DATA)]),
    command("kvm_sev_guest_status", &[since(Linux5_10, &[u32("handle"), u32("policy"), u32("state")])]),
    command(
        "kvm_sev_dbg",
        &[
            since(Linux5_10, &[u64("src_uaddr"), u64("dst_uaddr"), u32("len")]),
            since(Linux6_12, &[u64("src_uaddr"), u64("dst_uaddr"), u32("len"), u32("pad0")]),
        ],
    ),
    command(
        "kvm_sev_attestation_report",
        &[
            since(Linux5_17, &[u8s("mnonce", 16), u64("uaddr"), u32("len")]),
            since(Linux6_12, &[u8s("mnonce", 16), u64("uaddr"), u32("len"), u32("pad0")]),
        ],
    ),
    command("kvm_sev_send_start", &[since(Linux5_17, SEND_START_UNPADDED), since(Linux6_12, SEND_START)]),
    command("kvm_sev_send_update_data", &[since(Linux5_17, PACKET_UNPADDED), since(Linux6_12, PACKET)]),
    command(
        "kvm_sev_receive_start",
        &[since(Linux5_17, RECEIVE_START_UNPADDED), since(Linux6_12, RECEIVE_START)],
    ),
    command("kvm_sev_receive_update_data", &[since(Linux5_17, PACKET_UNPADDED), since(Linux6_12, PACKET)]),
    command("kvm_sev_snp_launch_start", &[since(Linux6_12, SNP_LAUNCH_START)]),
    command("kvm_sev_snp_launch_update", &[since(Linux6_12, SNP_LAUNCH_UPDATE)]),
    command("kvm_sev_snp_launch_finish", &[since(Linux6_12, SNP_LAUNCH_FINISH)]),
];
