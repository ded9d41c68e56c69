//! Structs of VMs and vCPUs: memory, capabilities, attributes, events.
//!
//! Source: Linux `include/uapi/linux/kvm.h` and, for the events, `arch/x86/include/uapi/asm/kvm.h`, v5.10 to v7.2.

use super::ctype::{Member, flexible, group, u8, u8s, u32, u32s, u64, u64s};
use super::registry::{Def, everywhere, on_x86, since};
use super::release::Release::{Linux5_10, Linux5_17, Linux6_1, Linux6_12};

const CPUID_ENTRY: &[Member] = &[
    u32("function"),
    u32("index"),
    u32("flags"),
    u32("eax"),
    u32("ebx"),
    u32("ecx"),
    u32("edx"),
    u32s("padding", 3),
];

const REGION2: &[Member] = &[
    u32("slot"),
    u32("flags"),
    u64("guest_phys_addr"),
    u64("memory_size"),
    u64("userspace_addr"),
    u64("guest_memfd_offset"),
    u32("guest_memfd"),
    u32("pad1"),
    u64s("pad2", 14),
];

const EXCEPTION: Member =
    group("exception", &[u8("injected"), u8("nr"), u8("has_error_code"), u8("pending"), u32("error_code")]);
const INTERRUPT: Member = group("interrupt", &[u8("injected"), u8("nr"), u8("soft"), u8("shadow")]);
const NMI: Member = group("nmi", &[u8("injected"), u8("pending"), u8("masked"), u8("pad")]);
const SMI: Member = group("smi", &[u8("smm"), u8("pending"), u8("smm_inside_nmi"), u8("latched_init")]);

const EVENTS: &[Member] = &[
    EXCEPTION,
    INTERRUPT,
    NMI,
    u32("sipi_vector"),
    u32("flags"),
    SMI,
    u8s("reserved", 27),
    u8("exception_has_payload"),
    u64("exception_payload"),
];

const EVENTS_TRIPLE_FAULT: &[Member] = &[
    EXCEPTION,
    INTERRUPT,
    NMI,
    u32("sipi_vector"),
    u32("flags"),
    SMI,
    group("triple_fault", &[u8("pending")]),
    u8s("reserved", 26),
    u8("exception_has_payload"),
    u64("exception_payload"),
];

pub(super) const STRUCTS: &[Def] = &[
    on_x86("kvm_vcpu_events", &[since(Linux5_10, EVENTS), since(Linux6_1, EVENTS_TRIPLE_FAULT)]),
    everywhere(
        "kvm_enable_cap",
        &[since(Linux5_10, &[u32("cap"), u32("flags"), u64s("args", 4), u8s("pad", 64)])],
    ),
    everywhere(
        "kvm_memory_attributes",
        &[since(Linux6_12, &[u64("address"), u64("size"), u64("attributes"), u64("flags")])],
    ),
    everywhere(
        "kvm_create_guest_memfd",
        &[since(Linux6_12, &[u64("size"), u64("flags"), u64s("reserved", 6)])],
    ),
    everywhere(
        "kvm_userspace_memory_region",
        &[since(
            Linux5_10,
            &[u32("slot"), u32("flags"), u64("guest_phys_addr"), u64("memory_size"), u64("userspace_addr")],
        )],
    ),
    everywhere("kvm_userspace_memory_region2", &[since(Linux6_12, REGION2)]),
    everywhere(
        "kvm_pre_fault_memory",
        &[since(Linux6_12, &[u64("gpa"), u64("size"), u64("flags"), u64s("padding", 5)])],
    ),
    everywhere("kvm_enc_region", &[since(Linux5_10, &[u64("addr"), u64("size")])]),
    everywhere(
        "kvm_device_attr",
        &[since(Linux5_10, &[u32("flags"), u32("group"), u64("attr"), u64("addr")])],
    ),
    everywhere("kvm_create_device", &[since(Linux5_10, &[u32("type"), u32("fd"), u32("flags")])]),
    on_x86("kvm_cpuid_entry2", &[since(Linux5_10, CPUID_ENTRY)]),
    on_x86(
        "kvm_cpuid2",
        &[since(Linux5_10, &[u32("nent"), u32("padding"), flexible("entries", "kvm_cpuid_entry2")])],
    ),
    everywhere("kvm_mp_state", &[since(Linux5_10, &[u32("mp_state")])]),
    everywhere(
        "kvm_irqfd",
        &[since(Linux5_10, &[u32("fd"), u32("gsi"), u32("flags"), u32("resamplefd"), u8s("pad", 16)])],
    ),
    everywhere(
        "kvm_msi",
        &[since(
            Linux5_10,
            &[u32("address_lo"), u32("address_hi"), u32("data"), u32("flags"), u32("devid"), u8s("pad", 12)],
        )],
    ),
    on_x86(
        "kvm_clock_data",
        &[
            since(Linux5_10, &[u64("clock"), u32("flags"), u32s("pad", 9)]),
            since(
                Linux5_17,
                &[u64("clock"), u32("flags"), u32("pad0"), u64("realtime"), u64("host_tsc"), u32s("pad", 4)],
            ),
        ],
    ),
];
