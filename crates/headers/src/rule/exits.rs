//! `KVM_EXIT_*`: why `KVM_RUN` came back.
//!
//! Source: Linux `include/uapi/linux/kvm.h`, v5.10 to v7.2.

use super::registry::Number;
use super::release::Release::{self, Linux5_10, Linux5_17, Linux6_1, Linux6_12, Linux7_2};

const fn number(name: &'static str, value: u64, since: Release) -> Number {
    Number { name, value, since }
}

pub(super) const NUMBERS: &[Number] = &[
    number("KVM_EXIT_UNKNOWN", 0, Linux5_10),
    number("KVM_EXIT_EXCEPTION", 1, Linux5_10),
    number("KVM_EXIT_IO", 2, Linux5_10),
    number("KVM_EXIT_HYPERCALL", 3, Linux5_10),
    number("KVM_EXIT_DEBUG", 4, Linux5_10),
    number("KVM_EXIT_HLT", 5, Linux5_10),
    number("KVM_EXIT_MMIO", 6, Linux5_10),
    number("KVM_EXIT_IRQ_WINDOW_OPEN", 7, Linux5_10),
    number("KVM_EXIT_SHUTDOWN", 8, Linux5_10),
    number("KVM_EXIT_FAIL_ENTRY", 9, Linux5_10),
    number("KVM_EXIT_INTR", 10, Linux5_10),
    number("KVM_EXIT_SET_TPR", 11, Linux5_10),
    number("KVM_EXIT_TPR_ACCESS", 12, Linux5_10),
    number("KVM_EXIT_S390_SIEIC", 13, Linux5_10),
    number("KVM_EXIT_S390_RESET", 14, Linux5_10),
    number("KVM_EXIT_DCR", 15, Linux5_10),
    number("KVM_EXIT_NMI", 16, Linux5_10),
    number("KVM_EXIT_INTERNAL_ERROR", 17, Linux5_10),
    number("KVM_EXIT_OSI", 18, Linux5_10),
    number("KVM_EXIT_PAPR_HCALL", 19, Linux5_10),
    number("KVM_EXIT_S390_UCONTROL", 20, Linux5_10),
    number("KVM_EXIT_WATCHDOG", 21, Linux5_10),
    number("KVM_EXIT_S390_TSCH", 22, Linux5_10),
    number("KVM_EXIT_EPR", 23, Linux5_10),
    number("KVM_EXIT_SYSTEM_EVENT", 24, Linux5_10),
    number("KVM_EXIT_S390_STSI", 25, Linux5_10),
    number("KVM_EXIT_IOAPIC_EOI", 26, Linux5_10),
    number("KVM_EXIT_HYPERV", 27, Linux5_10),
    number("KVM_EXIT_ARM_NISV", 28, Linux5_10),
    number("KVM_EXIT_X86_RDMSR", 29, Linux5_10),
    number("KVM_EXIT_X86_WRMSR", 30, Linux5_10),
    number("KVM_EXIT_DIRTY_RING_FULL", 31, Linux5_17),
    number("KVM_EXIT_AP_RESET_HOLD", 32, Linux5_17),
    number("KVM_EXIT_X86_BUS_LOCK", 33, Linux5_17),
    number("KVM_EXIT_XEN", 34, Linux5_17),
    number("KVM_EXIT_RISCV_SBI", 35, Linux5_17),
    number("KVM_EXIT_RISCV_CSR", 36, Linux6_1),
    number("KVM_EXIT_NOTIFY", 37, Linux6_1),
    number("KVM_EXIT_LOONGARCH_IOCSR", 38, Linux6_12),
    number("KVM_EXIT_MEMORY_FAULT", 39, Linux6_12),
    number("KVM_EXIT_TDX", 40, Linux7_2),
    number("KVM_EXIT_ARM_SEA", 41, Linux7_2),
    number("KVM_EXIT_ARM_LDST64B", 42, Linux7_2),
    number("KVM_EXIT_SNP_REQ_CERTS", 43, Linux7_2),
];
