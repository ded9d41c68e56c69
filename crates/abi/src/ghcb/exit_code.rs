//! Exit codes of page-based requests ("NAE events"): SVM exit codes and those that only the GHCB has.
//!
//! Sources: Linux v7.2 `arch/x86/include/uapi/asm/svm.h`; AMD 56421 revision 2.04, table 7.

crate::named::named! {
    u64;
    READ_DR7 = 0x27, "`MOV` from DR7.";
    WRITE_DR7 = 0x37, "`MOV` to DR7.";
    RDTSC = 0x6e, "`RDTSC`. KVM has no handler for it and stops the vCPU with an internal error.";
    RDPMC = 0x6f, "`RDPMC`.";
    CPUID = 0x72, "`CPUID`.";
    INVD = 0x76, "`INVD`.";
    IOIO = 0x7b, "Port I/O.";
    MSR = 0x7c, "`RDMSR` and `WRMSR`; `SW_EXITINFO1` is 0 for a read.";
    VMMCALL = 0x81, "`VMMCALL`.";
    RDTSCP = 0x87, "`RDTSCP`. KVM raises `#UD`.";
    WBINVD = 0x89, "`WBINVD`.";
    MONITOR = 0x8a, "`MONITOR`.";
    MWAIT = 0x8b, "`MWAIT`.";
    MMIO_READ = 0x8000_0001, "Memory-mapped read: the address in `SW_EXITINFO1`, bytes in `SW_EXITINFO2`, the data \
                              in the scratch area.";
    MMIO_WRITE = 0x8000_0002, "Memory-mapped write, as [`MMIO_READ`].";
    NMI_COMPLETE = 0x8000_0003, "The NMI handler is done.";
    AP_HLT_LOOP = 0x8000_0004, "Hold this vCPU in reset.";
    AP_JUMP_TABLE = 0x8000_0005, "Store or fetch the jump table of the application processors.";
    PSC = 0x8000_0010, "Page-state change, SNP only.";
    GUEST_REQUEST = 0x8000_0011, "Guest request to the firmware, SNP only.";
    EXT_GUEST_REQUEST = 0x8000_0012, "Guest request with certificates, SNP only.";
    AP_CREATION = 0x8000_0013, "AP creation, SNP only.";
    HV_DOORBELL_PAGE = 0x8000_0014, "The page for restricted injection. KVM does not support it.";
    HV_IPI = 0x8000_0015, "An interrupt to another vCPU under restricted injection. KVM does not support it.";
    HV_TIMER = 0x8000_0016, "The timer under restricted injection. KVM does not support it.";
    APIC_ID_LIST = 0x8000_0017, "The APIC ids of all vCPUs. KVM does not support it.";
    SNP_RUN_VMPL = 0x8000_0018, "Run another privilege level of this vCPU. KVM does not support it.";
    SAVIC = 0x8000_001a, "The backing page of a secure AVIC. KVM does not support it.";
    HV_FEATURES = 0x8000_fffd, "What the hypervisor supports: the bits of [`super::features`] in `SW_EXITINFO2`.";
    TERM_REQUEST = 0x8000_fffe, "Terminate the guest: the reason set in bits 3:0 of `SW_EXITINFO1`, the code in 11:4.";
    UNSUPPORTED_EVENT = 0x8000_ffff, "The guest met a `#VC` that it does not know. KVM fails `KVM_RUN` with `EINVAL`.";
}

/// Whether KVM takes the code from SNP guests only.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_handle_vmgexit`.
#[must_use]
pub const fn is_snp_only(code: u64) -> bool {
    matches!(code, PSC | GUEST_REQUEST | EXT_GUEST_REQUEST | AP_CREATION)
}

/// `SW_EXITINFO1` of [`IOIO`]. KVM looks at bits 31:0 only; the port is in 31:16.
///
/// Source: Linux v7.2 `arch/x86/include/asm/svm.h`, `SVM_IOIO_*`.
pub mod ioio {
    /// The guest reads from the port.
    pub const TYPE_IN: u64 = 1 << 0;
    /// A string instruction: `SW_EXITINFO2` is the number of elements, the data is in the scratch area.
    pub const STRING: u64 = 1 << 2;
    /// Bytes of an element, one bit each for 1, 2 and 4. KVM takes them as a number.
    pub const SIZE_MASK: u64 = 0x70;
    /// Where [`SIZE_MASK`] begins.
    pub const SIZE_SHIFT: u32 = 4;
    /// Where the port begins.
    pub const PORT_SHIFT: u32 = 16;
}

/// `SW_EXITINFO1` of [`AP_JUMP_TABLE`].
pub mod ap_jump_table {
    /// Store the address of `SW_EXITINFO2`.
    pub const SET: u64 = 0;
    /// Fetch the address into `SW_EXITINFO2`.
    pub const GET: u64 = 1;
}

/// `SW_EXITINFO1` of [`AP_CREATION`], bits 31:0; bits 63:32 are the APIC id. `SW_EXITINFO2` is the address of the VMSA.
pub mod ap_creation {
    crate::named::named! {
        u32;
        CREATE_ON_INIT = 0, "The vCPU takes the VMSA at its next INIT.";
        CREATE = 1, "The vCPU takes the VMSA at once.";
        DESTROY = 2, "The vCPU stops and has no VMSA.";
    }
}
