//! `KVM_GET_MP_STATE` and `KVM_SET_MP_STATE`: what a vCPU waits for.
//!
//! The numbers are `KVM_MP_STATE_*`. One that is not here is carried and set again as it came.
//!
//! Source: Linux v7.2 `include/uapi/linux/kvm.h`.

use core::mem::size_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

crate::named::named! {
    u32;
    RUNNABLE = 0, "The vCPU runs.";
    UNINITIALIZED = 1, "x86: an application processor that had no INIT yet.";
    INIT_RECEIVED = 2, "x86: INIT came, the startup interrupt did not.";
    HALTED = 3, "The vCPU halted and waits for an interrupt.";
    SIPI_RECEIVED = 4, "x86: the startup interrupt came just now.";
    STOPPED = 5, "arm64, riscv64, s390: the vCPU is stopped.";
    CHECK_STOP = 6, "s390: an error stopped the vCPU.";
    OPERATING = 7, "s390: the vCPU runs or halted.";
    LOAD = 8, "s390: an initial program load is under way.";
    AP_RESET_HOLD = 9, "x86: an SEV-ES guest holds this processor in reset, see the GHCB's AP reset hold. \
                        Linux 5.11.";
    SUSPENDED = 10, "arm64: the guest is suspended and waits for a reason to wake up. Linux 5.19.";
}

/// The state as the ioctls carry it.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_mp_state`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MpState {
    /// `KVM_MP_STATE_*`.
    pub mp_state: u32,
}
const _: () = assert!(size_of::<MpState>() == 4);
