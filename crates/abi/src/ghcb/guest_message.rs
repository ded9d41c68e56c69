//! The head of an SNP guest message, as far as KVM looks at it.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI", revision 1.5x, section 7 "Guest Messages".

/// Offset of `msg_type`, the byte that KVM reads without authenticating it.
pub const MSG_TYPE: u64 = 0x34;
/// `MSG_REPORT_REQ`: the guest asks for an attestation report.
pub const MSG_REPORT_REQ: u8 = 5;

/// The hypervisor's half of `SW_EXITINFO2`, bits 63:32, after an extended guest request.
///
/// Source: Linux v7.2 `include/uapi/linux/sev-guest.h`, `SNP_GUEST_VMM_ERR_*`.
pub mod vmm_error {
    /// The guest's buffer is too small; RBX holds the pages needed.
    pub const INVALID_LEN: u64 = 1 << 32;
    /// Try again later.
    pub const BUSY: u64 = 2 << 32;
    /// Anything else. KVM's own choice, not a number of the GHCB specification.
    pub const GENERIC: u64 = 0xffff_ffff << 32;
}
