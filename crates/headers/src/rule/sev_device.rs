//! `/dev/sev` and `/dev/sev-guest`: the PSP's platform commands and a guest's requests.
//!
//! Source: Linux `include/uapi/linux/psp-sev.h` and `include/uapi/linux/sev-guest.h`, v5.10 to v7.2.

use super::ctype::{Member, Scalar, bits, group, u8, u8s, u32, u64, union};
use super::registry::{Def, everywhere, packed, since};
use super::release::Release::{Linux5_10, Linux6_1, Linux6_12, Linux7_2};

const STATUS: &[Member] =
    &[u8("api_major"), u8("api_minor"), u8("state"), u32("flags"), u8("build"), u32("guest_count")];

const PEK_CERT_IMPORT: &[Member] =
    &[u64("pek_cert_address"), u32("pek_cert_len"), u64("oca_cert_address"), u32("oca_cert_len")];

const PDH_CERT_EXPORT: &[Member] =
    &[u64("pdh_cert_address"), u32("pdh_cert_len"), u64("cert_chain_address"), u32("cert_chain_len")];

const SNP_STATUS: &[Member] = &[
    u8("api_major"),
    u8("api_minor"),
    u8("state"),
    bits(Scalar::U8, &[("is_rmp_initialized", 1), ("rsvd", 7)]),
    u32("build_id"),
    bits(Scalar::U32, &[("mask_chip_id", 1), ("mask_chip_key", 1), ("vlek_en", 1), ("rsvd1", 29)]),
    u32("guest_count"),
    u64("current_tcb_version"),
    u64("reported_tcb_version"),
];

const SNP_STATUS_FEATURES: &[Member] = &[
    u8("api_major"),
    u8("api_minor"),
    u8("state"),
    bits(Scalar::U8, &[("is_rmp_initialized", 1), ("rsvd", 7)]),
    u32("build_id"),
    bits(
        Scalar::U32,
        &[
            ("mask_chip_id", 1),
            ("mask_chip_key", 1),
            ("vlek_en", 1),
            ("feature_info", 1),
            ("rapl_dis", 1),
            ("ciphertext_hiding_cap", 1),
            ("ciphertext_hiding_en", 1),
            ("rsvd1", 25),
        ],
    ),
    u32("guest_count"),
    u64("current_tcb_version"),
    u64("reported_tcb_version"),
];

const SNP_CONFIG: &[Member] = &[
    u64("reported_tcb"),
    bits(Scalar::U32, &[("mask_chip_id", 1), ("mask_chip_key", 1), ("rsvd", 30)]),
    u8s("rsvd1", 52),
];

const VLEK_LOAD: &[Member] =
    &[u32("len"), u8("vlek_wrapped_version"), u8s("rsvd", 3), u64("vlek_wrapped_address")];

const REPORT_REQ: &[Member] = &[u8s("user_data", 64), u32("vmpl"), u8s("rsvd", 28)];

const GUEST_REQUEST: &[Member] = &[
    u8("msg_version"),
    u64("req_data"),
    u64("resp_data"),
    union("", &[u64("exitinfo2"), group("", &[u32("fw_error"), u32("vmm_error")])]),
];

/// As published with 6.1; its stable series has the union.
const GUEST_REQUEST_FW_ERR: &[Member] =
    &[u8("msg_version"), u64("req_data"), u64("resp_data"), u64("fw_err")];

pub(super) const STRUCTS: &[Def] = &[
    packed("sev_issue_cmd", &[since(Linux5_10, &[u32("cmd"), u64("data"), u32("error")])]),
    packed("sev_user_data_status", &[since(Linux5_10, STATUS)]),
    packed("sev_user_data_pek_csr", &[since(Linux5_10, &[u64("address"), u32("length")])]),
    packed("sev_user_data_pek_cert_import", &[since(Linux5_10, PEK_CERT_IMPORT)]),
    packed("sev_user_data_pdh_cert_export", &[since(Linux5_10, PDH_CERT_EXPORT)]),
    packed("sev_user_data_get_id", &[since(Linux5_10, &[u8s("socket1", 64), u8s("socket2", 64)])]),
    packed("sev_user_data_get_id2", &[since(Linux5_10, &[u64("address"), u32("length")])]),
    packed("sev_user_data_snp_status", &[since(Linux6_12, SNP_STATUS), since(Linux7_2, SNP_STATUS_FEATURES)]),
    packed("sev_user_data_snp_config", &[since(Linux6_12, SNP_CONFIG)]),
    packed("sev_user_data_snp_vlek_load", &[since(Linux6_12, VLEK_LOAD)]),
    packed("sev_user_data_snp_wrapped_vlek_hashstick", &[since(Linux6_12, &[u8s("data", 432)])]),
    everywhere("snp_report_req", &[since(Linux6_1, REPORT_REQ)]),
    everywhere(
        "snp_guest_request_ioctl",
        &[since(Linux6_1, GUEST_REQUEST_FW_ERR), since(Linux6_1, GUEST_REQUEST)],
    ),
    everywhere(
        "snp_ext_report_req",
        &[since(Linux6_1, &[group("data", REPORT_REQ), u64("certs_address"), u32("certs_len")])],
    ),
];
