//! Exit numbers.

use core::fmt;

/// `kvm_run.exit_reason`. Names are those of the numbers 0 to 43, without `KVM_EXIT_`. A number without a name is carried
/// and printed like any other.
///
/// Source: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExitReason(pub u32);

macro_rules! reasons {
    ($($name:ident = $value:literal;)*) => {
        crate::named::named_newtype! {
            ExitReason;
            $($name = $value, stringify!($name), concat!("`KVM_EXIT_", stringify!($name), "`.");)*
        }
    };
}

reasons! {
    UNKNOWN = 0; EXCEPTION = 1; IO = 2; HYPERCALL = 3; DEBUG = 4; HLT = 5; MMIO = 6; IRQ_WINDOW_OPEN = 7;
    SHUTDOWN = 8; FAIL_ENTRY = 9; INTR = 10; SET_TPR = 11; TPR_ACCESS = 12; S390_SIEIC = 13; S390_RESET = 14;
    DCR = 15; NMI = 16; INTERNAL_ERROR = 17; OSI = 18; PAPR_HCALL = 19; S390_UCONTROL = 20; WATCHDOG = 21;
    S390_TSCH = 22; EPR = 23; SYSTEM_EVENT = 24; S390_STSI = 25; IOAPIC_EOI = 26; HYPERV = 27; ARM_NISV = 28;
    X86_RDMSR = 29; X86_WRMSR = 30; DIRTY_RING_FULL = 31; AP_RESET_HOLD = 32; X86_BUS_LOCK = 33; XEN = 34;
    RISCV_SBI = 35; RISCV_CSR = 36; NOTIFY = 37; LOONGARCH_IOCSR = 38; MEMORY_FAULT = 39; TDX = 40; ARM_SEA = 41;
    ARM_LDST64B = 42; SNP_REQ_CERTS = 43;
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "KVM_EXIT_{name} ({})", self.0),
            None => write!(f, "exit reason {}", self.0),
        }
    }
}
