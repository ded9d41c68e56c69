//! Why an SEV-ES or SNP guest asked to be terminated.

use core::fmt;
use exeunt_abi::Gpa;
use exeunt_abi::ghcb::msr;

/// `data[0]` of a `KVM_SYSTEM_EVENT_SEV_TERM`: the GHCB MSR, in one of three forms.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_handle_vmgexit_msr_protocol` and `sev_handle_vmgexit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SevTermination {
    /// The guest used the MSR protocol: a reason set and a code.
    Reason {
        /// 0 = GHCB specification, 1 = Linux.
        set: u8,
        /// What went wrong, by set.
        code: u8,
    },
    /// The guest used its GHCB page. KVM cleared the reason in there.
    ByPage {
        /// The GHCB.
        ghcb: Gpa,
    },
    /// A guest that is not SNP made a request that only SNP guests may make.
    NeedsSnp {
        /// The whole MSR; bits 11:0 are the request.
        msr: u64,
    },
    /// A form that no kernel known here writes.
    Unknown {
        /// The whole MSR.
        msr: u64,
    },
}

impl SevTermination {
    /// Tells the forms apart by bits 11:0.
    #[must_use]
    pub const fn from_msr(value: u64) -> Self {
        match value & msr::INFO_MASK {
            msr::TERMINATE_REQUEST => {
                Self::Reason { set: (value >> 12 & 0xf) as u8, code: (value >> 16 & 0xff) as u8 }
            }
            0 => Self::ByPage { ghcb: Gpa(value) },
            msr::PREFERRED_GPA_REQUEST | msr::REGISTER_GPA_REQUEST | msr::PSC_REQUEST => {
                Self::NeedsSnp { msr: value }
            }
            _ => Self::Unknown { msr: value },
        }
    }

    /// What the reason means, if it was given and is known.
    ///
    /// Source: Linux v7.2 `arch/x86/include/asm/sev-common.h`, `GHCB_SEV_ES_GEN_REQ` and `GHCB_TERM_*`.
    #[must_use]
    pub const fn meaning(self) -> Option<&'static str> {
        let Self::Reason { set, code } = self else { return None };
        Some(match (set, code) {
            (0, 0) => "general termination request",
            (0, 1) => "GHCB protocol range not supported",
            (0, 2) => "SNP features not supported",
            (1, 0) => "GHCB registration failed (REGISTER)",
            (1, 1) => "page-state change failed (PSC)",
            (1, 2) => "PVALIDATE failed (PVALIDATE)",
            (1, 3) => "not running at VMPL0 (NOT_VMPL0)",
            (1, 4) => "CPUID page missing or wrong (CPUID)",
            (1, 5) => "CPUID value from the hypervisor refused (CPUID_HV)",
            (1, 6) => "secrets page missing or wrong (SECRETS_PAGE)",
            (1, 7) => "SVSM missing (NO_SVSM)",
            (1, 8) => "SVSM runs at VMPL0 (SVSM_VMPL0)",
            (1, 9) => "SVSM calling area address wrong (SVSM_CAA)",
            (1, 10) => "secure TSC failed (SECURE_TSC)",
            (1, 11) => "SVSM calling area remap failed (SVSM_CA_REMAP_FAIL)",
            (1, 12) => "secure AVIC failed (SAVIC_FAIL)",
            _ => return None,
        })
    }
}

impl fmt::Display for SevTermination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Reason { set, code } => {
                let meaning = self.meaning().unwrap_or("unknown reason");
                write!(f, "reason set {set:#x}, code {code:#x}: {meaning}")
            }
            Self::ByPage { ghcb } => write!(f, "by the GHCB at {ghcb}; the reason is in the kernel log only"),
            Self::NeedsSnp { msr } => {
                write!(f, "GHCB MSR {msr:#x}: an SNP-only request from a guest that is not SNP")
            }
            Self::Unknown { msr } => write!(f, "GHCB MSR {msr:#x} of unknown form"),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn the_three_forms_are_told_apart_for_every_value_of_bits_11_to_0() {
        for low in 0..0x1000 {
            let value = 0x0042_3000 | low;
            let expected = match low {
                0x100 => SevTermination::Reason { set: 3, code: 0x42 },
                0 => SevTermination::ByPage { ghcb: Gpa(0x0042_3000) },
                0x010 | 0x012 | 0x014 => SevTermination::NeedsSnp { msr: value },
                _ => SevTermination::Unknown { msr: value },
            };
            assert_eq!(SevTermination::from_msr(value), expected);
            assert!(!expected.to_string().is_empty());
        }
    }

    #[test]
    fn every_reason_prints_and_the_known_ones_have_a_meaning() {
        let mut known = 0;
        for set in 0..16 {
            for code in 0..=255 {
                let reason = SevTermination::Reason { set, code };
                known += u32::from(reason.meaning().is_some());
                assert!(reason.to_string().contains("reason"));
            }
        }
        assert_eq!(known, 16);
    }
}
