//! Bits of the hypervisor's features: the answer to `HV_FEATURES`, on the page or, shifted by 12, in the MSR.
//!
//! Sources: AMD 56421 revision 2.04, section 2.2; Linux v7.2 `arch/x86/include/asm/sev-common.h`, `GHCB_HV_FT_*`.

crate::named::named! {
    u64;
    SNP = 1 << 0, "SNP guests, with page-state changes and guest requests.";
    SNP_AP_CREATION = 1 << 1, "AP creation.";
    SNP_RESTRICTED_INJECTION = 1 << 2, "Restricted injection.";
    SNP_RESTRICTED_INJECTION_TIMER = 1 << 3, "The timer under restricted injection.";
    APIC_ID_LIST = 1 << 4, "The list of APIC ids.";
    SNP_MULTI_VMPL = 1 << 5, "More than one privilege level.";
}

/// What KVM answers, to plain SEV-ES guests too.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `GHCB_HV_FT_SUPPORTED`.
pub const OF_KVM: u64 = SNP | SNP_AP_CREATION;
