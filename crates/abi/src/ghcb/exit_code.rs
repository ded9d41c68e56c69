//! Exit codes of page-based requests ("NAE events"): SVM exit codes and those that only the GHCB has.

/// `VMMCALL`.
pub const VMMCALL: u64 = 0x81;
/// Page-state change, SNP only.
pub const PSC: u64 = 0x8000_0010;
/// Guest request to the firmware, SNP only.
pub const GUEST_REQUEST: u64 = 0x8000_0011;
/// Guest request with certificates, SNP only.
pub const EXT_GUEST_REQUEST: u64 = 0x8000_0012;
/// AP creation, SNP only.
pub const AP_CREATION: u64 = 0x8000_0013;
/// What the hypervisor supports.
pub const HV_FEATURES: u64 = 0x8000_fffd;
/// Terminate the guest.
pub const TERM_REQUEST: u64 = 0x8000_fffe;
/// The guest met a `#VC` that it does not know.
pub const UNSUPPORTED_EVENT: u64 = 0x8000_ffff;
