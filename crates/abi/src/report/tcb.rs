//! `TCB_VERSION`: eight bytes, of which each is the security version of a part. Which part depends on the product.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI", revision 1.58, tables 3 and 4.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `TCB_VERSION` of Milan and Genoa.
///
/// Layout: AMD 56860 revision 1.58, table 3.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TcbMilan {
    /// The secure processor's boot loader.
    pub boot_loader: u8,
    /// The secure processor's operating system.
    pub tee: u8,
    /// Reserved.
    pub reserved: [u8; 4],
    /// The SNP firmware.
    pub snp: u8,
    /// The lowest microcode level of all cores.
    pub microcode: u8,
}
const _: () = assert!(size_of::<TcbMilan>() == 8 && offset_of!(TcbMilan, tee) == 1);
const _: () = assert!(offset_of!(TcbMilan, snp) == 6 && offset_of!(TcbMilan, microcode) == 7);

/// `TCB_VERSION` of Turin.
///
/// Layout: AMD 56860 revision 1.58, table 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TcbTurin {
    /// The firmware that runs first on the secure processor.
    pub fmc: u8,
    /// The secure processor's boot loader.
    pub boot_loader: u8,
    /// The secure processor's operating system.
    pub tee: u8,
    /// The SNP firmware.
    pub snp: u8,
    /// Reserved.
    pub reserved: [u8; 3],
    /// The lowest microcode level of all cores.
    pub microcode: u8,
}
const _: () = assert!(size_of::<TcbTurin>() == 8 && offset_of!(TcbTurin, boot_loader) == 1);
const _: () = assert!(offset_of!(TcbTurin, tee) == 2 && offset_of!(TcbTurin, snp) == 3);
const _: () = assert!(offset_of!(TcbTurin, microcode) == 7);

/// CPU family of Milan and Genoa, as a report of version 3 gives it.
pub const FAMILY_ZEN3_ZEN4: u8 = 0x19;
/// CPU family of Turin.
pub const FAMILY_ZEN5: u8 = 0x1a;
