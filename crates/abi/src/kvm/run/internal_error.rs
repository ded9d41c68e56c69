//! `KVM_EXIT_INTERNAL_ERROR`.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_INTERNAL_ERROR_*`.
pub mod suberror {
    /// The emulator met an instruction that it cannot do.
    pub const EMULATION: u32 = 1;
    /// Simultaneous exceptions.
    pub const SIMUL_EX: u32 = 2;
    /// An exit while an event was delivered.
    pub const DELIVERY_EV: u32 = 3;
    /// An exit code without a handler: `data[0]` is the code, `data[1]` the host CPU.
    pub const UNEXPECTED_EXIT_REASON: u32 = 4;
}

/// `kvm_run.internal`: KVM cannot go on with this vCPU.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_INTERNAL_ERROR`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InternalError {
    /// `KVM_INTERNAL_ERROR_*`.
    pub suberror: u32,
    /// How many of `data` are valid.
    pub ndata: u32,
    /// What the suberror says about itself.
    pub data: [u64; 16],
}
const _: () = assert!(size_of::<InternalError>() == 136 && offset_of!(InternalError, ndata) == 4);
const _: () = assert!(offset_of!(InternalError, data) == 8);
impl Payload for InternalError {}
