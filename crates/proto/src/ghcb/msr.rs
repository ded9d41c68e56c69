//! Requests of the MSR protocol.

use exeunt_abi::ghcb::msr as bits;
use exeunt_abi::{Gfn, Gpa};

/// What the GHCB MSR says at a `VMGEXIT`. A value without a meaning survives as it is.
///
/// Source: Linux v7.2 `arch/x86/include/asm/sev-common.h`; AMD 56421 revision 2.0x, section 2.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MsrRequest {
    /// No request: the address of a GHCB page.
    Page(Gpa),
    /// Version range and C-bit position.
    SevInfo,
    /// One register of a CPUID leaf.
    Cpuid {
        /// The leaf.
        function: u32,
        /// 0 = EAX, 1 = EBX, 2 = ECX, 3 = EDX.
        register: u8,
    },
    /// Hold this vCPU in reset.
    ApResetHold,
    /// The hypervisor's preferred GHCB address.
    PreferredGpa,
    /// Register the GHCB address.
    RegisterGpa(Gfn),
    /// Change the state of one page.
    Psc {
        /// 1 = private, 2 = shared; the guest may ask for anything in 4 bits.
        operation: u8,
        /// The page, 40 bits.
        gfn: Gfn,
    },
    /// Run another privilege level of this vCPU. KVM leaves the MSR as it is.
    RunVmpl {
        /// The level.
        vmpl: u8,
    },
    /// What the hypervisor supports.
    HvFeatures,
    /// Terminate the guest.
    Terminate,
    /// A value without a meaning here.
    Unknown(u64),
}

impl MsrRequest {
    /// Decodes the GHCB MSR. Every value has a decoding.
    #[must_use]
    pub const fn decode(value: u64) -> Self {
        match value & bits::INFO_MASK {
            0 => Self::Page(Gpa(value)),
            bits::SEV_INFO_REQUEST => Self::SevInfo,
            bits::CPUID_REQUEST => {
                Self::Cpuid { function: (value >> 32) as u32, register: (value >> 30 & 3) as u8 }
            }
            bits::AP_RESET_HOLD_REQUEST => Self::ApResetHold,
            bits::PREFERRED_GPA_REQUEST => Self::PreferredGpa,
            bits::REGISTER_GPA_REQUEST => Self::RegisterGpa(Gfn(value >> 12)),
            bits::PSC_REQUEST => {
                Self::Psc { operation: (value >> 52 & 0xf) as u8, gfn: Gfn(value >> 12 & 0xff_ffff_ffff) }
            }
            bits::RUN_VMPL_REQUEST => Self::RunVmpl { vmpl: (value >> 32 & 0xff) as u8 },
            bits::HV_FEATURES_REQUEST => Self::HvFeatures,
            bits::TERMINATE_REQUEST => Self::Terminate,
            _ => Self::Unknown(value),
        }
    }

    /// Encodes a page-state change of one page.
    #[must_use]
    pub const fn psc(gfn: Gfn, operation: u8) -> u64 {
        ((operation & 0xf) as u64) << 52 | (gfn.0 & 0xff_ffff_ffff) << 12 | bits::PSC_REQUEST
    }

    /// Encodes a termination request. Bits of `set` above the lowest four are dropped.
    #[must_use]
    pub const fn terminate(set: u8, code: u8) -> u64 {
        (code as u64) << 16 | ((set & 0xf) as u64) << 12 | bits::TERMINATE_REQUEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::termination::SevTermination;

    #[test]
    fn what_a_guest_encodes_is_what_the_host_decodes() {
        for operation in 0..16 {
            for gfn in [0, 1, 0x12_3456_789a, 0xff_ffff_ffff] {
                let request = MsrRequest::Psc { operation, gfn: Gfn(gfn) };
                assert_eq!(MsrRequest::decode(MsrRequest::psc(Gfn(gfn), operation)), request);
            }
        }
        for (set, code) in [(0, 0), (1, 1), (15, 255)] {
            let value = MsrRequest::terminate(set, code);
            assert_eq!(MsrRequest::decode(value), MsrRequest::Terminate);
            assert_eq!(SevTermination::from_msr(value), SevTermination::Reason { set, code });
        }
    }

    #[test]
    fn every_info_value_decodes_and_the_unknown_survives() {
        for info in 0..0x1000 {
            let value = 0x1234_5678_9abc_d000 | info;
            if let MsrRequest::Unknown(got) = MsrRequest::decode(value) {
                assert_eq!(got, value);
            }
        }
        let cpuid = MsrRequest::decode(0x8000_001f_4000_0004);
        assert_eq!(cpuid, MsrRequest::Cpuid { function: 0x8000_001f, register: 1 });
        assert_eq!(MsrRequest::decode(0x2_0000_0016), MsrRequest::RunVmpl { vmpl: 2 });
    }
}
