//! The GHCB MSR protocol: bits 11:0 say what the rest means, 0 means the address of a GHCB page.

/// Bits 11:0.
pub const INFO_MASK: u64 = 0xfff;

/// Response: version range and C-bit position.
pub const SEV_INFO_RESPONSE: u64 = 0x001;
/// Request: version range and C-bit position.
pub const SEV_INFO_REQUEST: u64 = 0x002;
/// Request: one register of a CPUID leaf.
pub const CPUID_REQUEST: u64 = 0x004;
/// Response to [`CPUID_REQUEST`].
pub const CPUID_RESPONSE: u64 = 0x005;
/// Request: hold this vCPU in reset.
pub const AP_RESET_HOLD_REQUEST: u64 = 0x006;
/// Response to [`AP_RESET_HOLD_REQUEST`]; bits 63:12 are not 0 once the vCPU got a startup interrupt.
pub const AP_RESET_HOLD_RESPONSE: u64 = 0x007;
/// Request: the hypervisor's preferred GHCB address. SNP only.
pub const PREFERRED_GPA_REQUEST: u64 = 0x010;
/// Response to [`PREFERRED_GPA_REQUEST`].
pub const PREFERRED_GPA_RESPONSE: u64 = 0x011;
/// Request: register the GHCB address. SNP only.
pub const REGISTER_GPA_REQUEST: u64 = 0x012;
/// Response to [`REGISTER_GPA_REQUEST`].
pub const REGISTER_GPA_RESPONSE: u64 = 0x013;
/// Request: page-state change of one page. SNP only.
pub const PSC_REQUEST: u64 = 0x014;
/// Response to [`PSC_REQUEST`]; bits 63:32 are the error.
pub const PSC_RESPONSE: u64 = 0x015;
/// The response of KVM to a page-state change that failed: bit 63 is the error.
pub const PSC_RESPONSE_ERROR: u64 = 1 << 63 | PSC_RESPONSE;
/// Request: what the hypervisor supports.
pub const HV_FEATURES_REQUEST: u64 = 0x080;
/// Response to [`HV_FEATURES_REQUEST`].
pub const HV_FEATURES_RESPONSE: u64 = 0x081;
/// Request: terminate the guest.
pub const TERMINATE_REQUEST: u64 = 0x100;
