//! `KVM_EXIT_NOTIFY`.

use super::Payload;
use core::mem::size_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_NOTIFY_CONTEXT_INVALID`: the VM context is corrupted and must not be entered again.
pub const NOTIFY_CONTEXT_INVALID: u32 = 1 << 0;

/// `kvm_run.notify`: no event window opened for the time that `KVM_CAP_X86_NOTIFY_VMEXIT` allows.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_NOTIFY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Notify {
    /// `KVM_NOTIFY_*`.
    pub flags: u32,
}
const _: () = assert!(size_of::<Notify>() == 4);
impl Payload for Notify {}
