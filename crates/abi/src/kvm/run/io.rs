//! `KVM_EXIT_IO`.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_EXIT_IO_IN`: userspace fills the data.
pub const DIRECTION_IN: u8 = 0;
/// `KVM_EXIT_IO_OUT`: userspace takes the data.
pub const DIRECTION_OUT: u8 = 1;

/// `kvm_run.io`: port I/O.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_IO`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Io {
    /// 0 = in, 1 = out.
    pub direction: u8,
    /// Bytes of one element: 1, 2 or 4; KVM takes any number of 3 bits from an SEV-ES guest.
    pub size: u8,
    /// The port.
    pub port: u16,
    /// Elements, more than one for string instructions.
    pub count: u32,
    /// Where the data starts, in bytes from the start of `kvm_run`.
    pub data_offset: u64,
}
const _: () = assert!(size_of::<Io>() == 16 && offset_of!(Io, port) == 2);
const _: () = assert!(offset_of!(Io, count) == 4 && offset_of!(Io, data_offset) == 8);
impl Payload for Io {}
