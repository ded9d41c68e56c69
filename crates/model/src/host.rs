//! The machine under the kernel, as far as guests and VMMs can tell.

/// Who made the processors of the host, which decides what KVM runs on: SVM or VMX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// SVM. SEV, SEV-ES and SNP guests need it.
    #[default]
    Amd,
    /// VMX. TDs and notify exits need it.
    Intel,
}

/// The processors of the host. They count on x86 only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Host {
    /// Who made them.
    pub vendor: Vendor,
    /// They hold NMIs for guests: `X86_FEATURE_VNMI` of AMD, virtual NMIs of Intel.
    pub virtual_nmi: bool,
}

impl Host {
    /// An AMD host without virtual NMIs.
    pub const AMD: Self = Self { vendor: Vendor::Amd, virtual_nmi: false };
    /// An Intel host with virtual NMIs, as every one since Nehalem has them.
    pub const INTEL: Self = Self { vendor: Vendor::Intel, virtual_nmi: true };

    /// KVM runs on VMX.
    #[must_use]
    pub const fn is_intel(self) -> bool {
        matches!(self.vendor, Vendor::Intel)
    }
}
