//! Bytes of the KVM confidential exit boundary: layouts, numbers, dialects.
//!
//! Nothing here has a meaning yet. A struct says where the bytes lie, which kernel writes them and in which unit;
//! `exeunt-proto` turns them into exits and replies. Start with [`kvm::run::RunPage`].
//!
//! All values are little endian, as on every host that runs confidential guests (x86-64, arm64, riscv64).
#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
pub mod dialect;
pub mod errno;
pub mod ghcb;
pub mod ghci;
pub mod kvm;
pub mod msr_index;
mod named;
pub mod psci;
pub mod psp;
pub mod report;
pub mod rmp;
pub mod sbi;
pub mod tdx;
pub mod vmsa;

pub use addr::{Gfn, Gpa, PAGE_SIZE, PAGES_PER_2M};
pub use dialect::{
    Arch, CertsForm, ConversionForm, Dialect, Kernel, SystemEventForm, TripleFaultForm, WordSize,
};
pub use errno::Errno;
