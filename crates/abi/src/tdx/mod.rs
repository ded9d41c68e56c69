//! The TDX module: what a TD asks of it by `TDCALL`, and what it tells the kernel.
//!
//! Sources: Intel 348551 "Intel TDX Module Architecture Application Binary Interface (ABI) Reference Specification",
//! version 1.5, chapters 3 "ABI Reference: Constants" and 5; Linux v7.2 `arch/x86/kvm/vmx/tdx_errno.h` and
//! `arch/x86/include/asm/shared/tdx.h`.

pub mod report;

use core::fmt;

/// RAX of a `TDCALL`: what the TD wants.
pub mod leaf {
    crate::named::named! {
        u64;
        VP_VMCALL = 0, "`TDG.VP.VMCALL`: a call to the host, as in [`crate::ghci`].";
        VP_INFO = 1, "`TDG.VP.INFO`: what the TD is.";
        MR_RTMR_EXTEND = 2, "`TDG.MR.RTMR.EXTEND`: extend a measurement register at run time.";
        MR_REPORT = 4, "`TDG.MR.REPORT`: a report of the TD, [`super::report::TdReport`].";
        MEM_PAGE_ACCEPT = 6, "`TDG.MEM.PAGE.ACCEPT`: take a pending page, which becomes zero.";
    }
}

/// RAX after a call of the TDX module, by the TD or by the kernel: a class in bits 63:32, details in bits 31:0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CompletionStatus(pub u64);

crate::named::named_newtype! {
    CompletionStatus;
    SUCCESS = 0, "Done. After `TDH.VP.ENTER` bits 31:0 are the VMX exit reason.";
    NON_RECOVERABLE_VCPU = 0x4000_0001 << 32, "The vCPU is lost.";
    NON_RECOVERABLE_TD = 0x4000_0002 << 32, "The TD is lost.";
    NON_RECOVERABLE_TD_NON_ACCESSIBLE = 0x6000_0005 << 32, "The TD is lost with its memory.";
    NON_RECOVERABLE_TD_WRONG_APIC_MODE = 0x6000_0007 << 32, "The TD left the mode x2APIC.";
    TD_FATAL = 0xe000_0604 << 32, "The TD was lost before.";
    VCPU_STATE_INCORRECT = 0xc000_0700 << 32, "The vCPU was lost before, or is not ready.";
    OPERAND_INVALID = 0xc000_0100 << 32, "An operand is wrong; bits 31:0 say which, as in [`operand`].";
    OPERAND_BUSY = 0x8000_0200 << 32, "An operand is in use elsewhere; bits 31:0 say which.";
    PAGE_ALREADY_ACCEPTED = 0x0000_0b0a << 32, "The page is there already; bits 31:0 are its level.";
    PAGE_SIZE_MISMATCH = 0xc000_0b0b << 32, "The page is mapped at a smaller size; bits 31:0 are the level asked for.";
}

impl CompletionStatus {
    /// `TDX_ERROR`: bit 63.
    pub const ERROR: u64 = 1 << 63;
    /// `TDX_NON_RECOVERABLE`: bit 62.
    pub const NON_RECOVERABLE: u64 = 1 << 62;
    /// `TDX_SW_ERROR`: the kernel could not call the module.
    pub const SW_ERROR: u64 = Self::ERROR | 0xff << 40;

    /// The class: the status without the details.
    #[must_use]
    pub const fn class(self) -> Self {
        Self(self.0 & !0xffff_ffff)
    }

    /// Bits 31:0.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the upper half is the class")]
    pub const fn details(self) -> u32 {
        self.0 as u32
    }

    /// The status with details, which replace those that it has.
    #[must_use]
    pub const fn with(self, details: u32) -> Self {
        Self(self.class().0 | details as u64)
    }
}

impl fmt::Display for CompletionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.class().name(), self.details()) {
            (Some(name), 0) => f.write_str(name),
            (Some(name), details) => write!(f, "{name} ({details:#x})"),
            (None, _) => write!(f, "completion status {:#x}", self.0),
        }
    }
}

impl fmt::Debug for CompletionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Details of [`CompletionStatus::OPERAND_INVALID`] and [`CompletionStatus::OPERAND_BUSY`].
pub mod operand {
    crate::named::named! {
        u32;
        RAX = 0, "RAX: the leaf.";
        RCX = 1, "RCX.";
        RDX = 2, "RDX.";
        R8 = 8, "R8.";
        ATTRIBUTES = 64, "`TD_PARAMS.ATTRIBUTES`.";
        XFAM = 65, "`TD_PARAMS.XFAM`.";
        CPUID_CONFIG = 69, "`TD_PARAMS.CPUID_CONFIG`: a bit that cannot be configured.";
    }
}

/// `ATTRIBUTES` of a TD.
pub mod attributes {
    crate::named::named! {
        u64;
        DEBUG = 1 << 0, "The host may look into the TD.";
        SEPT_VE_DISABLE = 1 << 28,
            "An access to a pending page exits to the host; otherwise the TD gets a `#VE`.";
        PKS = 1 << 30, "Supervisor protection keys.";
        KL = 1 << 31, "Key locker.";
        PERFMON = 1 << 63, "Performance monitoring.";
    }
}

/// RCX of `TDG.VP.VMCALL`: bit `n` of 15:0 passes the register with encoding `n` to the host and back. RAX, RCX, RSP and
/// RBP cannot be passed; XMM registers in bits 31:16.
pub mod gpr {
    /// RDX.
    pub const RDX: u64 = 1 << 2;
    /// RBX.
    pub const RBX: u64 = 1 << 3;
    /// RSI.
    pub const RSI: u64 = 1 << 6;
    /// RDI.
    pub const RDI: u64 = 1 << 7;
    /// R10 to R15, which every call of the GHCI uses.
    pub const R10_TO_R15: u64 = 0xfc00;
    /// All that may be passed.
    pub const ALL: u64 = RDX | RBX | RSI | RDI | 0xff00;
    /// Bits that are refused, with `TD_PARAMS.CONFIG_FLAGS.NO_RBP_MOD`, which KVM sets: RAX, RCX, RSP, RBP, and above 31.
    pub const REFUSED: u64 = !0xffff_ffff | 0b11_0011;
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_status_is_named_by_its_class_and_keeps_its_details() {
        for status in CompletionStatus::ALL {
            assert_eq!(status.class(), *status, "details are separate");
            assert_eq!(status.with(7).class().name(), status.name());
            assert_eq!(status.with(7).details(), 7);
        }
        assert_eq!(CompletionStatus::OPERAND_INVALID.with(1).to_string(), "OPERAND_INVALID (0x1)");
        assert_eq!(CompletionStatus(9 << 32).to_string(), "completion status 0x900000000");
    }

    #[test]
    fn a_register_is_either_passed_or_refused() {
        for bit in 0..16 {
            let (passed, refused) = (gpr::ALL >> bit & 1, gpr::REFUSED >> bit & 1);
            assert_eq!(passed + refused, 1, "register {bit}");
        }
    }
}
