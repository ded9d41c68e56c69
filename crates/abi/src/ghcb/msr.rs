//! The GHCB MSR protocol: bits 11:0 say what the rest means, 0 means the address of a GHCB page.
//!
//! Sources: AMD 56421 revision 2.04, section 2.3.1; Linux v7.2 `arch/x86/include/asm/sev-common.h`.

/// Bits 11:0.
pub const INFO_MASK: u64 = 0xfff;

crate::named::named! {
    u64;
    SEV_INFO_RESPONSE = 0x001, "Response: highest version in bits 63:48, lowest in 47:32, C-bit position in 31:24.";
    SEV_INFO_REQUEST = 0x002, "Request: version range and C-bit position.";
    CPUID_REQUEST = 0x004, "Request: one register of a CPUID leaf, the leaf in bits 63:32, the register in 31:30.";
    CPUID_RESPONSE = 0x005, "Response to [`CPUID_REQUEST`]: the value in bits 63:32, the rest as in the request.";
    AP_RESET_HOLD_REQUEST = 0x006, "Request: hold this vCPU in reset.";
    AP_RESET_HOLD_RESPONSE = 0x007, "Response to [`AP_RESET_HOLD_REQUEST`]; bits 63:12 are not 0 once the vCPU got a \
                                     startup interrupt.";
    PREFERRED_GPA_REQUEST = 0x010, "Request: the hypervisor's preferred GHCB address. SNP only.";
    PREFERRED_GPA_RESPONSE = 0x011, "Response to [`PREFERRED_GPA_REQUEST`]: a frame number, or all ones for none.";
    REGISTER_GPA_REQUEST = 0x012, "Request: register the GHCB address, a frame number in bits 63:12. SNP only.";
    REGISTER_GPA_RESPONSE = 0x013, "Response to [`REGISTER_GPA_REQUEST`]: the same number, or all ones for an error.";
    PSC_REQUEST = 0x014, "Request: page-state change of one page, the frame in bits 51:12, the operation in 55:52. \
                          SNP only.";
    PSC_RESPONSE = 0x015, "Response to [`PSC_REQUEST`]; bits 63:32 are the error.";
    RUN_VMPL_REQUEST = 0x016, "Request: run the privilege level of bits 39:32. KVM leaves the MSR as it is.";
    RUN_VMPL_RESPONSE = 0x017, "Response to [`RUN_VMPL_REQUEST`]; bits 63:32 are the error.";
    HV_FEATURES_REQUEST = 0x080, "Request: what the hypervisor supports.";
    HV_FEATURES_RESPONSE = 0x081, "Response to [`HV_FEATURES_REQUEST`]: the bits of [`super::features`] in 63:12.";
    TERMINATE_REQUEST = 0x100, "Request: terminate the guest, the reason set in bits 15:12, the code in 23:16.";
}

/// The response of KVM to a page-state change that failed: bit 63 is the error.
pub const PSC_RESPONSE_ERROR: u64 = 1 << 63 | PSC_RESPONSE;
