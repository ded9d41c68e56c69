//! `KVM_EXIT_INTERNAL_ERROR`, and what it holds when the emulator gave up.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_INTERNAL_ERROR_*`.
pub mod suberror {
    crate::named::named! {
        u32;
        EMULATION = 1, "The emulator met an instruction that it cannot do: [`super::EmulationFailure`].";
        SIMUL_EX = 2, "Simultaneous exceptions.";
        DELIVERY_EV = 3, "An exit while an event was delivered: `data` is the event, the reason, its \
                          qualification, the guest physical address and the host CPU.";
        UNEXPECTED_EXIT_REASON = 4, "An exit code without a handler: `data[0]` is the code, `data[1]` the host CPU.";
    }
}

/// `KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES`: the instruction is there.
pub const EMULATION_FLAG_INSTRUCTION_BYTES: u64 = 1 << 0;

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

/// `kvm_run.emulation_failure`: the same bytes as [`InternalError`], when its suberror is `EMULATION`.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `emulation_failure`. `flags` is `data[0]` of [`InternalError`],
/// the instruction lies in `data[1]` and `data[2]`. Without the flag these two hold the first exit information words
/// of the vendor, which otherwise begin at `data[3]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EmulationFailure {
    /// [`suberror::EMULATION`].
    pub suberror: u32,
    /// How many quadwords from `flags` on are valid.
    pub ndata: u32,
    /// [`EMULATION_FLAG_INSTRUCTION_BYTES`] or 0.
    pub flags: u64,
    /// Bytes of the instruction, at most 15.
    pub insn_size: u8,
    /// The instruction, filled up with 0x90.
    pub insn_bytes: [u8; 15],
}
const _: () = assert!(size_of::<EmulationFailure>() == 32 && offset_of!(EmulationFailure, ndata) == 4);
const _: () =
    assert!(offset_of!(EmulationFailure, flags) == 8 && offset_of!(EmulationFailure, insn_size) == 16);
const _: () = assert!(offset_of!(EmulationFailure, insn_bytes) == 17);
impl Payload for EmulationFailure {}
