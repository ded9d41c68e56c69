//! `struct kvm_run`: its head, its tail, and the members of its exit union.
//!
//! Source: Linux `include/uapi/linux/kvm.h`, v5.10, v5.17, v6.1, v6.12 and v7.2.

use super::ctype::{Member, chars, group, u8, u8s, u16, u32, u64, u64s, ulong, ulongs, union};
use super::registry::{Def, everywhere, since};
use super::release::Release::{Linux5_10, Linux5_17, Linux6_1, Linux6_12, Linux7_2};

/// Before the exit union.
pub(super) const HEAD: &[Member] = &[
    u8("request_interrupt_window"),
    u8("immediate_exit"),
    u8s("padding1", 6),
    u32("exit_reason"),
    u8("ready_for_interrupt_injection"),
    u8("if_flag"),
    u16("flags"),
    u64("cr8"),
    u64("apic_base"),
];

/// The member that fixes the size of the exit union.
pub(super) const FIXED_SIZE: &[Member] = &[chars("padding", 256)];

/// Behind the exit union. The registers in `s` are the architecture's.
pub(super) const TAIL: &[Member] =
    &[u64("kvm_valid_regs"), u64("kvm_dirty_regs"), union("s", &[chars("padding", 2048)])];

const MMIO: &[Member] = &[u64("phys_addr"), u8s("data", 8), u32("len"), u8("is_write")];

const INTERNAL: &[Member] = &[u32("suberror"), u32("ndata"), u64s("data", 16)];

const EMULATION_FAILURE: &[Member] = &[
    u32("suberror"),
    u32("ndata"),
    u64("flags"),
    union("", &[group("", &[u8("insn_size"), u8s("insn_bytes", 15)])]),
];

const HYPERV: &[Member] = &[
    u32("type"),
    u32("pad1"),
    union(
        "u",
        &[
            group("synic", &[u32("msr"), u32("pad2"), u64("control"), u64("evt_page"), u64("msg_page")]),
            group("hcall", &[u64("input"), u64("result"), u64s("params", 2)]),
            group(
                "syndbg",
                &[
                    u32("msr"),
                    u32("pad2"),
                    u64("control"),
                    u64("status"),
                    u64("send_page"),
                    u64("recv_page"),
                    u64("pending_page"),
                ],
            ),
        ],
    ),
];

const XEN: &[Member] = &[
    u32("type"),
    union(
        "u",
        &[group("hcall", &[u32("longmode"), u32("cpl"), u64("input"), u64("result"), u64s("params", 6)])],
    ),
];

const TDX: &[Member] = &[
    u64("flags"),
    u64("nr"),
    union(
        "",
        &[
            group("unknown", &[u64("ret"), u64s("data", 5)]),
            group("get_quote", &[u64("ret"), u64("gpa"), u64("size")]),
            group(
                "get_tdvmcall_info",
                &[u64("ret"), u64("leaf"), u64("r11"), u64("r12"), u64("r13"), u64("r14")],
            ),
            group("setup_event_notify", &[u64("ret"), u64("vector")]),
        ],
    ),
];

const HYPERCALL: &[Member] = &[u64("nr"), u64s("args", 6), u64("ret"), u32("longmode"), u32("pad")];

const HYPERCALL_FLAGS: &[Member] =
    &[u64("nr"), u64s("args", 6), u64("ret"), union("", &[u32("longmode"), u64("flags")])];

/// Up to 5.17: nothing says that `flags` has a hole before it, and i386 has none.
const SYSTEM_EVENT_FLAGS: &[Member] = &[u32("type"), u64("flags")];

/// As shipped from 5.18 on: `flags` is another name of `data[0]`.
const SYSTEM_EVENT: &[Member] = &[u32("type"), u32("ndata"), union("", &[u64("flags"), u64s("data", 16)])];

/// The members of the exit union, by the number of their exit.
pub(super) const EXITS: &[Def] = &[
    everywhere("hw", &[since(Linux5_10, &[u64("hardware_exit_reason")])]),
    everywhere("ex", &[since(Linux5_10, &[u32("exception"), u32("error_code")])]),
    everywhere(
        "io",
        &[since(Linux5_10, &[u8("direction"), u8("size"), u16("port"), u32("count"), u64("data_offset")])],
    ),
    everywhere("hypercall", &[since(Linux5_10, HYPERCALL), since(Linux6_12, HYPERCALL_FLAGS)]),
    everywhere("mmio", &[since(Linux5_10, MMIO)]),
    everywhere("fail_entry", &[since(Linux5_10, &[u64("hardware_entry_failure_reason"), u32("cpu")])]),
    everywhere("tpr_access", &[since(Linux5_10, &[u64("rip"), u32("is_write"), u32("pad")])]),
    everywhere("internal", &[since(Linux5_10, INTERNAL)]),
    everywhere("emulation_failure", &[since(Linux5_17, EMULATION_FAILURE)]),
    everywhere("system_event", &[since(Linux5_10, SYSTEM_EVENT_FLAGS), since(Linux6_1, SYSTEM_EVENT)]),
    everywhere("eoi", &[since(Linux5_10, &[u8("vector")])]),
    everywhere("hyperv", &[since(Linux5_10, HYPERV)]),
    everywhere("arm_nisv", &[since(Linux5_10, &[u64("esr_iss"), u64("fault_ipa")])]),
    everywhere(
        "msr",
        &[since(Linux5_10, &[u8("error"), u8s("pad", 7), u32("reason"), u32("index"), u64("data")])],
    ),
    everywhere("xen", &[since(Linux5_17, XEN)]),
    everywhere(
        "riscv_sbi",
        &[since(
            Linux5_17,
            &[ulong("extension_id"), ulong("function_id"), ulongs("args", 6), ulongs("ret", 2)],
        )],
    ),
    everywhere(
        "riscv_csr",
        &[since(Linux6_1, &[ulong("csr_num"), ulong("new_value"), ulong("write_mask"), ulong("ret_value")])],
    ),
    everywhere("notify", &[since(Linux6_1, &[u32("flags")])]),
    everywhere("iocsr_io", &[since(Linux6_12, MMIO)]),
    everywhere("memory_fault", &[since(Linux6_12, &[u64("flags"), u64("gpa"), u64("size")])]),
    everywhere("tdx", &[since(Linux7_2, TDX)]),
    everywhere("arm_sea", &[since(Linux7_2, &[u64("flags"), u64("esr"), u64("gva"), u64("gpa")])]),
    everywhere("snp_req_certs", &[since(Linux7_2, &[u64("gpa"), u64("npages"), u64("ret")])]),
];
