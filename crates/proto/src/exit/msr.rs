//! Model-specific registers that userspace emulates.

use super::Exit;
use core::fmt;
use exeunt_abi::kvm::run::{RunPage, X86Msr, msr_exit_reason};

/// The guest reads a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rdmsr {
    /// The number of the register.
    pub index: u32,
    /// Why KVM asks: `KVM_MSR_EXIT_REASON_*`.
    pub reason: u32,
}

/// The guest writes a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrmsr {
    /// The number of the register.
    pub index: u32,
    /// Why KVM asks: `KVM_MSR_EXIT_REASON_*`.
    pub reason: u32,
    /// What the guest writes.
    pub value: u64,
}

impl fmt::Display for Rdmsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RDMSR {:#x}{}", self.index, Why(self.reason))
    }
}

impl fmt::Display for Wrmsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WRMSR {:#x} := {:#x}{}", self.index, self.value, Why(self.reason))
    }
}

struct Why(u32);

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match msr_exit_reason::name(self.0) {
            Some(name) => write!(f, " ({name})"),
            None => write!(f, " (reason {:#x})", self.0),
        }
    }
}

pub(super) fn decode_read(page: &RunPage) -> Exit {
    let wire: X86Msr = page.payload();
    Exit::Rdmsr(Rdmsr { index: wire.index, reason: wire.reason })
}

pub(super) fn decode_write(page: &RunPage) -> Exit {
    let wire: X86Msr = page.payload();
    Exit::Wrmsr(Wrmsr { index: wire.index, reason: wire.reason, value: wire.data })
}

/// Writes the union as KVM does: all of it, with `error` and, for a read, `data` preset to 0.
///
/// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_msr_user_space`.
pub(super) fn encode(index: u32, reason: u32, value: u64, page: &mut RunPage) {
    page.set_payload(&X86Msr { error: 0, pad: [0; 7], reason, index, data: value });
}
