//! Responses of the MSR protocol.

use core::fmt;
use exeunt_abi::Gfn;
use exeunt_abi::ghcb::{features, msr as bits};

/// A frame number that says "none", in a response.
const NO_GFN: u64 = u64::MAX >> 12;

/// What the GHCB MSR says after a `VMGEXIT`. A value without a meaning survives as it is, and so does a request that
/// the hypervisor did not answer.
///
/// Source: AMD 56421 revision 2.04, section 2.3.1; Linux v7.2 `arch/x86/kvm/svm/sev.c`,
/// `sev_handle_vmgexit_msr_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MsrResponse {
    /// Version range and C-bit position.
    SevInfo {
        /// The highest version of the protocol.
        max_version: u16,
        /// The lowest version.
        min_version: u16,
        /// The bit of an address that makes a page private.
        c_bit: u8,
    },
    /// One register of a CPUID leaf.
    Cpuid {
        /// Its value.
        value: u32,
        /// 0 = EAX, 1 = EBX, 2 = ECX, 3 = EDX.
        register: u8,
    },
    /// The vCPU came out of the reset hold.
    ApResetHold {
        /// Not 0 if a startup interrupt woke it, 52 bits.
        result: u64,
    },
    /// The preferred GHCB address, if there is one.
    PreferredGpa(Option<Gfn>),
    /// The GHCB address that is registered now, or `None` if it was refused.
    RegisterGpa(Option<Gfn>),
    /// The state of the page was changed, or not.
    Psc {
        /// 0 for success. KVM knows one error: `0x8000_0000`.
        error: u32,
    },
    /// The other privilege level ran, or not.
    RunVmpl {
        /// 0 for success.
        error: u32,
    },
    /// What the hypervisor supports, 52 bits.
    HvFeatures(u64),
    /// A value that is no response.
    Unknown(u64),
}

impl MsrResponse {
    /// Decodes the GHCB MSR. Every value has a decoding; bits that a response does not define are dropped.
    #[must_use]
    pub const fn decode(value: u64) -> Self {
        let (data, high) = (value >> 12, (value >> 32) as u32);
        match value & bits::INFO_MASK {
            bits::SEV_INFO_RESPONSE => Self::SevInfo {
                max_version: (value >> 48) as u16,
                min_version: (value >> 32 & 0xffff) as u16,
                c_bit: (value >> 24 & 0xff) as u8,
            },
            bits::CPUID_RESPONSE => Self::Cpuid { value: high, register: (value >> 30 & 3) as u8 },
            bits::AP_RESET_HOLD_RESPONSE => Self::ApResetHold { result: data },
            bits::PREFERRED_GPA_RESPONSE => Self::PreferredGpa(frame(data)),
            bits::REGISTER_GPA_RESPONSE => Self::RegisterGpa(frame(data)),
            bits::PSC_RESPONSE => Self::Psc { error: high },
            bits::RUN_VMPL_RESPONSE => Self::RunVmpl { error: high },
            bits::HV_FEATURES_RESPONSE => Self::HvFeatures(data),
            _ => Self::Unknown(value),
        }
    }

    /// Encodes the response. Bits that do not fit are dropped.
    #[must_use]
    pub const fn encode(self) -> u64 {
        match self {
            Self::SevInfo { max_version, min_version, c_bit } => {
                let versions = (max_version as u64) << 48 | (min_version as u64) << 32;
                versions | (c_bit as u64) << 24 | bits::SEV_INFO_RESPONSE
            }
            Self::Cpuid { value, register } => {
                (value as u64) << 32 | (register as u64 & 3) << 30 | bits::CPUID_RESPONSE
            }
            Self::ApResetHold { result } => result << 12 | bits::AP_RESET_HOLD_RESPONSE,
            Self::PreferredGpa(gfn) => number(gfn) << 12 | bits::PREFERRED_GPA_RESPONSE,
            Self::RegisterGpa(gfn) => number(gfn) << 12 | bits::REGISTER_GPA_RESPONSE,
            Self::Psc { error } => (error as u64) << 32 | bits::PSC_RESPONSE,
            Self::RunVmpl { error } => (error as u64) << 32 | bits::RUN_VMPL_RESPONSE,
            Self::HvFeatures(features) => features << 12 | bits::HV_FEATURES_RESPONSE,
            Self::Unknown(value) => value,
        }
    }
}

const fn frame(data: u64) -> Option<Gfn> {
    if data == NO_GFN { None } else { Some(Gfn(data)) }
}

const fn number(gfn: Option<Gfn>) -> u64 {
    match gfn {
        Some(gfn) => gfn.0,
        None => NO_GFN,
    }
}

impl fmt::Display for MsrResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SevInfo { max_version, min_version, c_bit } => {
                write!(f, "GHCB versions {min_version} to {max_version}, C-bit {c_bit}")
            }
            Self::Cpuid { value, register } => {
                let names = ["EAX", "EBX", "ECX", "EDX"];
                let name = names.get(usize::from(register)).unwrap_or(&"?");
                write!(f, "CPUID {name} = {value:#x}")
            }
            Self::ApResetHold { result: 0 } => f.write_str("still held in reset"),
            Self::ApResetHold { result } => write!(f, "woken from the reset hold ({result:#x})"),
            Self::PreferredGpa(None) => f.write_str("no preferred GHCB address"),
            Self::PreferredGpa(Some(gfn)) => write!(f, "preferred GHCB frame {gfn}"),
            Self::RegisterGpa(None) => f.write_str("the GHCB address is refused"),
            Self::RegisterGpa(Some(gfn)) => write!(f, "GHCB frame {gfn} is registered"),
            Self::Psc { error: 0 } => f.write_str("the page has its new state"),
            Self::Psc { error } => write!(f, "page-state change failed ({error:#x})"),
            Self::RunVmpl { error: 0 } => f.write_str("the privilege level ran"),
            Self::RunVmpl { error } => write!(f, "the privilege level did not run ({error:#x})"),
            Self::HvFeatures(bits) => {
                write!(f, "hypervisor features {bits:#x}")?;
                let named = features::ALL.iter().filter(|(bit, _)| bits & bit != 0);
                named.map(|(_, name)| name).try_for_each(|name| write!(f, " {name}"))
            }
            Self::Unknown(value) => match bits::name(value & bits::INFO_MASK) {
                Some(name) => write!(f, "{name} was not answered ({value:#x})"),
                None => write!(f, "unknown response {value:#x}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn decode_undoes_encode_for_every_kind_of_response() {
        let responses = [
            MsrResponse::SevInfo { max_version: 2, min_version: 1, c_bit: 51 },
            MsrResponse::Cpuid { value: u32::MAX, register: 3 },
            MsrResponse::ApResetHold { result: 1 },
            MsrResponse::PreferredGpa(None),
            MsrResponse::PreferredGpa(Some(Gfn(0x1234))),
            MsrResponse::RegisterGpa(None),
            MsrResponse::RegisterGpa(Some(Gfn(NO_GFN - 1))),
            MsrResponse::Psc { error: 0 },
            MsrResponse::Psc { error: 1 << 31 },
            MsrResponse::RunVmpl { error: 1 },
            MsrResponse::HvFeatures(features::OF_KVM),
            MsrResponse::Unknown(0x100),
        ];
        for response in responses {
            assert_eq!(MsrResponse::decode(response.encode()), response);
        }
        assert_eq!(MsrResponse::Psc { error: 1 << 31 }.encode(), bits::PSC_RESPONSE_ERROR);
    }

    #[test]
    fn every_info_value_decodes_and_prints_and_the_unknown_survives() {
        for info in 0..0x1000 {
            for value in [info, 0x1234_5678_9abc_d000 | info, !0xfff | info] {
                let response = MsrResponse::decode(value);
                assert!(!response.to_string().is_empty());
                if let MsrResponse::Unknown(got) = response {
                    assert_eq!(got, value);
                }
            }
        }
        let unanswered = MsrResponse::decode(0x0002_0000_0016).to_string();
        assert_eq!(unanswered, "RUN_VMPL_REQUEST was not answered (0x200000016)");
        let features = MsrResponse::decode(0x3081).to_string();
        assert_eq!(features, "hypervisor features 0x3 SNP SNP_AP_CREATION");
    }
}
