//! The types that `KVM_CREATE_VM` takes on x86.

/// The type of a virtual machine.
///
/// Source: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `KVM_X86_*_VM`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VmType {
    /// 0: an ordinary VM.
    #[default]
    Default,
    /// 1: private memory kept by software only, for tests.
    SwProtected,
    /// 2: SEV: encrypted memory, no GHCB.
    Sev,
    /// 3: SEV-ES: encrypted registers, GHCB.
    SevEs,
    /// 4: SEV-SNP: as SEV-ES, with the reverse map table.
    Snp,
    /// 5: TDX: encrypted registers and memory, `TDG.VP.VMCALL` in the place of the GHCB.
    Tdx,
}

impl VmType {
    /// Every type that Linux 7.2 knows, in the order of the numbers.
    pub const ALL: [Self; 6] =
        [Self::Default, Self::SwProtected, Self::Sev, Self::SevEs, Self::Snp, Self::Tdx];

    /// The argument of `KVM_CREATE_VM`.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Default => 0,
            Self::SwProtected => 1,
            Self::Sev => 2,
            Self::SevEs => 3,
            Self::Snp => 4,
            Self::Tdx => 5,
        }
    }

    /// The name in scenario files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::SwProtected => "sw-protected",
            Self::Sev => "sev",
            Self::SevEs => "sev-es",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
        }
    }

    /// The type with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|vm_type| vm_type.number() == number)
    }

    /// The type with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|vm_type| vm_type.name() == name)
    }

    /// The guest's registers are encrypted.
    #[must_use]
    pub const fn has_protected_state(self) -> bool {
        matches!(self, Self::SevEs | Self::Snp | Self::Tdx)
    }

    /// The guest speaks the GHCB protocol.
    #[must_use]
    pub const fn has_ghcb(self) -> bool {
        matches!(self, Self::SevEs | Self::Snp)
    }

    /// The VM has memory attributes: pages can be private.
    #[must_use]
    pub const fn has_private_memory(self) -> bool {
        matches!(self, Self::SwProtected | Self::Snp | Self::Tdx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_number_lead_back_to_their_type() {
        for (number, vm_type) in (0..).zip(VmType::ALL) {
            assert_eq!(VmType::from_name(vm_type.name()), Some(vm_type));
            assert_eq!((vm_type.number(), VmType::from_number(number)), (number, Some(vm_type)));
        }
        assert_eq!(VmType::from_number(6), None);
        assert_eq!(VmType::from_name("s390"), None);
    }
}
