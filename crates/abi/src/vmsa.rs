//! The VM save area of an SEV-ES or SNP vCPU: where the registers that KVM sets up lie.
//!
//! Sources: AMD 24593 "Architecture Programmer's Manual, volume 2", table B-4; Linux v7.2
//! `arch/x86/include/asm/svm.h`, `struct sev_es_save_area`.

/// One field of the save area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name as Linux writes it.
    pub name: &'static str,
    /// Bytes from the start of the page.
    pub offset: u16,
    /// Bytes of the field. The 16 of a segment are selector u16, attributes u16, limit u32, base u64.
    pub bytes: u16,
}

/// Bytes of the page.
pub const VMSA_BYTES: usize = 4096;
/// Bytes that have a name: what follows is reserved.
pub const SAVE_AREA_BYTES: u16 = 1648;

macro_rules! fields {
    ($($name:ident $text:literal = $offset:literal, $bytes:literal;)*) => {
        $(
            #[doc = concat!("`", $text, "` at ", stringify!($offset), ", ", stringify!($bytes), " bytes.")]
            pub const $name: Field = Field { name: $text, offset: $offset, bytes: $bytes };
        )*

        /// Every field here, in the order of the page.
        pub const FIELDS: &[Field] = &[$($name),*];
    };
}

fields! {
    ES "es" = 0x000, 16;
    CS "cs" = 0x010, 16;
    SS "ss" = 0x020, 16;
    DS "ds" = 0x030, 16;
    FS "fs" = 0x040, 16;
    GS "gs" = 0x050, 16;
    GDTR "gdtr" = 0x060, 16;
    LDTR "ldtr" = 0x070, 16;
    IDTR "idtr" = 0x080, 16;
    TR "tr" = 0x090, 16;
    PL0_SSP "pl0_ssp" = 0x0a0, 8;
    PL1_SSP "pl1_ssp" = 0x0a8, 8;
    PL2_SSP "pl2_ssp" = 0x0b0, 8;
    PL3_SSP "pl3_ssp" = 0x0b8, 8;
    U_CET "u_cet" = 0x0c0, 8;
    VMPL "vmpl" = 0x0ca, 1;
    CPL "cpl" = 0x0cb, 1;
    EFER "efer" = 0x0d0, 8;
    XSS "xss" = 0x140, 8;
    CR4 "cr4" = 0x148, 8;
    CR3 "cr3" = 0x150, 8;
    CR0 "cr0" = 0x158, 8;
    DR7 "dr7" = 0x160, 8;
    DR6 "dr6" = 0x168, 8;
    RFLAGS "rflags" = 0x170, 8;
    RIP "rip" = 0x178, 8;
    DR0 "dr0" = 0x180, 8;
    DR1 "dr1" = 0x188, 8;
    DR2 "dr2" = 0x190, 8;
    DR3 "dr3" = 0x198, 8;
    DR0_ADDR_MASK "dr0_addr_mask" = 0x1a0, 8;
    DR1_ADDR_MASK "dr1_addr_mask" = 0x1a8, 8;
    DR2_ADDR_MASK "dr2_addr_mask" = 0x1b0, 8;
    DR3_ADDR_MASK "dr3_addr_mask" = 0x1b8, 8;
    RSP "rsp" = 0x1d8, 8;
    S_CET "s_cet" = 0x1e0, 8;
    SSP "ssp" = 0x1e8, 8;
    ISST_ADDR "isst_addr" = 0x1f0, 8;
    RAX "rax" = 0x1f8, 8;
    STAR "star" = 0x200, 8;
    LSTAR "lstar" = 0x208, 8;
    CSTAR "cstar" = 0x210, 8;
    SFMASK "sfmask" = 0x218, 8;
    KERNEL_GS_BASE "kernel_gs_base" = 0x220, 8;
    SYSENTER_CS "sysenter_cs" = 0x228, 8;
    SYSENTER_ESP "sysenter_esp" = 0x230, 8;
    SYSENTER_EIP "sysenter_eip" = 0x238, 8;
    CR2 "cr2" = 0x240, 8;
    G_PAT "g_pat" = 0x268, 8;
    DBGCTL "dbgctl" = 0x270, 8;
    BR_FROM "br_from" = 0x278, 8;
    BR_TO "br_to" = 0x280, 8;
    LAST_EXCP_FROM "last_excp_from" = 0x288, 8;
    LAST_EXCP_TO "last_excp_to" = 0x290, 8;
    PKRU "pkru" = 0x2e8, 4;
    TSC_AUX "tsc_aux" = 0x2ec, 4;
    TSC_SCALE "tsc_scale" = 0x2f0, 8;
    TSC_OFFSET "tsc_offset" = 0x2f8, 8;
    RCX "rcx" = 0x308, 8;
    RDX "rdx" = 0x310, 8;
    RBX "rbx" = 0x318, 8;
    RBP "rbp" = 0x328, 8;
    RSI "rsi" = 0x330, 8;
    RDI "rdi" = 0x338, 8;
    R8 "r8" = 0x340, 8;
    R9 "r9" = 0x348, 8;
    R10 "r10" = 0x350, 8;
    R11 "r11" = 0x358, 8;
    R12 "r12" = 0x360, 8;
    R13 "r13" = 0x368, 8;
    R14 "r14" = 0x370, 8;
    R15 "r15" = 0x378, 8;
    GUEST_EXIT_INFO_1 "guest_exit_info_1" = 0x390, 8;
    GUEST_EXIT_INFO_2 "guest_exit_info_2" = 0x398, 8;
    GUEST_EXIT_INT_INFO "guest_exit_int_info" = 0x3a0, 8;
    GUEST_NRIP "guest_nrip" = 0x3a8, 8;
    SEV_FEATURES "sev_features" = 0x3b0, 8;
    VINTR_CTRL "vintr_ctrl" = 0x3b8, 8;
    GUEST_EXIT_CODE "guest_exit_code" = 0x3c0, 8;
    VIRTUAL_TOM "virtual_tom" = 0x3c8, 8;
    TLB_ID "tlb_id" = 0x3d0, 8;
    PCPU_ID "pcpu_id" = 0x3d8, 8;
    EVENT_INJ "event_inj" = 0x3e0, 8;
    XCR0 "xcr0" = 0x3e8, 8;
    X87_DP "x87_dp" = 0x400, 8;
    MXCSR "mxcsr" = 0x408, 4;
    X87_FTW "x87_ftw" = 0x40c, 2;
    X87_FSW "x87_fsw" = 0x40e, 2;
    X87_FCW "x87_fcw" = 0x410, 2;
    X87_FOP "x87_fop" = 0x412, 2;
    X87_DS "x87_ds" = 0x414, 2;
    X87_CS "x87_cs" = 0x416, 2;
    X87_RIP "x87_rip" = 0x418, 8;
    FPREG_X87 "fpreg_x87" = 0x420, 80;
    FPREG_XMM "fpreg_xmm" = 0x470, 256;
    FPREG_YMM "fpreg_ymm" = 0x570, 256;
}

impl Field {
    /// The field with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        FIELDS.iter().find(|field| field.name == name).copied()
    }

    /// The field that this byte of the page belongs to.
    #[must_use]
    pub fn at(offset: u16) -> Option<Self> {
        let holds = |field: &&Self| offset.checked_sub(field.offset).is_some_and(|into| into < field.bytes);
        FIELDS.iter().find(holds).copied()
    }
}

/// Bits of `SEV_FEATURES`, in the VMSA and in `KVM_SEV_INIT2`.
///
/// Sources: AMD 24593, table B-4; Linux v7.2 `arch/x86/include/asm/svm.h`, `SVM_SEV_FEAT_*`.
pub mod sev_features {
    crate::named::named! {
        u64;
        SNP_ACTIVE = 1 << 0, "The vCPU belongs to an SNP guest.";
        RESTRICTED_INJECTION = 1 << 3, "The hypervisor can inject `#HV` only.";
        ALTERNATE_INJECTION = 1 << 4, "The guest's higher privilege level injects events.";
        DEBUG_SWAP = 1 << 5, "The debug registers are swapped with the VMSA.";
        SECURE_TSC = 1 << 9, "The TSC is not the hypervisor's to change.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_in_order_do_not_overlap_and_end_where_the_save_area_ends() {
        let mut end = 0;
        for field in FIELDS {
            assert!(field.offset >= end, "{}", field.name);
            end = field.offset + field.bytes;
        }
        assert_eq!(end, SAVE_AREA_BYTES);
    }

    #[test]
    fn a_name_and_each_byte_lead_back_to_their_field() {
        for field in FIELDS {
            assert_eq!(Field::from_name(field.name), Some(*field));
        }
        let mut named_bytes = 0;
        for offset in 0..4096 {
            if let Some(field) = Field::at(offset) {
                assert!(field.offset <= offset && offset < field.offset + field.bytes);
                named_bytes += 1;
            }
        }
        assert_eq!(named_bytes, FIELDS.iter().map(|field| field.bytes).sum::<u16>());
        assert_eq!(Field::from_name("ghcb"), None);
    }

    #[test]
    fn the_fields_that_the_ghcb_shares_are_at_the_same_place() {
        for field in crate::ghcb::page::FIELDS {
            let Some(name) = field.name() else { continue };
            let same = FIELDS.iter().find(|of_vmsa| of_vmsa.name.eq_ignore_ascii_case(name));
            if let Some(of_vmsa) = same {
                assert_eq!(of_vmsa.offset, field.offset, "{name}");
            }
        }
    }
}
