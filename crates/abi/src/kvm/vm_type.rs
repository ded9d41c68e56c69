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
    /// 3: SEV-ES: encrypted registers, GHCB.
    SevEs,
    /// 4: SEV-SNP: as SEV-ES, with the reverse map table.
    Snp,
}

impl VmType {
    /// Every type of this slice of the model.
    pub const ALL: [Self; 4] = [Self::Default, Self::SwProtected, Self::SevEs, Self::Snp];

    /// The argument of `KVM_CREATE_VM`.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Default => 0,
            Self::SwProtected => 1,
            Self::SevEs => 3,
            Self::Snp => 4,
        }
    }

    /// The name in scenario files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::SwProtected => "sw-protected",
            Self::SevEs => "sev-es",
            Self::Snp => "snp",
        }
    }

    /// The type with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|vm_type| vm_type.name() == name)
    }

    /// The guest's registers are encrypted and it speaks the GHCB protocol.
    #[must_use]
    pub const fn has_protected_state(self) -> bool {
        matches!(self, Self::SevEs | Self::Snp)
    }

    /// The VM has memory attributes: pages can be private.
    #[must_use]
    pub const fn has_private_memory(self) -> bool {
        matches!(self, Self::SwProtected | Self::Snp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_type() {
        for vm_type in VmType::ALL {
            assert_eq!(VmType::from_name(vm_type.name()), Some(vm_type));
        }
        assert_eq!(VmType::from_name("s390"), None);
    }
}
