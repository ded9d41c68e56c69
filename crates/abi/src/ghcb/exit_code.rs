//! Exit codes of page-based requests ("NAE events"): SVM exit codes and those that only the GHCB has.

/// `MOV` from DR7.
pub const READ_DR7: u64 = 0x27;
/// `MOV` to DR7.
pub const WRITE_DR7: u64 = 0x37;
/// `RDTSC`.
pub const RDTSC: u64 = 0x6e;
/// `RDPMC`.
pub const RDPMC: u64 = 0x6f;
/// `CPUID`.
pub const CPUID: u64 = 0x72;
/// `INVD`.
pub const INVD: u64 = 0x76;
/// Port I/O.
pub const IOIO: u64 = 0x7b;
/// `RDMSR` and `WRMSR`; `SW_EXITINFO1` is 0 for a read.
pub const MSR: u64 = 0x7c;
/// `VMMCALL`.
pub const VMMCALL: u64 = 0x81;
/// `RDTSCP`.
pub const RDTSCP: u64 = 0x87;
/// `WBINVD`.
pub const WBINVD: u64 = 0x89;
/// `MONITOR`.
pub const MONITOR: u64 = 0x8a;
/// `MWAIT`.
pub const MWAIT: u64 = 0x8b;
/// Memory-mapped read: the address in `SW_EXITINFO1`, bytes in `SW_EXITINFO2`, the data in the scratch area.
pub const MMIO_READ: u64 = 0x8000_0001;
/// Memory-mapped write, as [`MMIO_READ`].
pub const MMIO_WRITE: u64 = 0x8000_0002;
/// The NMI handler is done.
pub const NMI_COMPLETE: u64 = 0x8000_0003;
/// Hold this vCPU in reset.
pub const AP_HLT_LOOP: u64 = 0x8000_0004;
/// Store or fetch the jump table of the application processors.
pub const AP_JUMP_TABLE: u64 = 0x8000_0005;
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
