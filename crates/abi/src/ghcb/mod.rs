//! The guest-hypervisor communication block of SEV-ES and SNP: the page, the MSR, the codes.
//!
//! Sources: AMD 56421 "SEV-ES Guest-Hypervisor Communication Block Standardization", revision 2.0x, and Linux v7.2
//! `arch/x86/include/asm/svm.h` and `sev-common.h`.

pub mod exit_code;
pub mod features;
pub mod guest_message;
pub mod msr;
pub mod page;
pub mod psc;
