//! `KVM_EXIT_SYSTEM_EVENT`, in the form that shipped and in the form before it.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_SYSTEM_EVENT_*`. All 32 bits are the type.
pub mod event_type {
    /// The guest asked to be shut down.
    pub const SHUTDOWN: u32 = 1;
    /// The guest asked to be reset.
    pub const RESET: u32 = 2;
    /// The guest crashed.
    pub const CRASH: u32 = 3;
    /// A suspended arm64 vCPU has a reason to wake up.
    pub const WAKEUP: u32 = 4;
    /// An arm64 guest asked to be suspended.
    pub const SUSPEND: u32 = 5;
    /// An SEV-ES or SNP guest asked to be terminated; `data[0]` is the GHCB MSR.
    pub const SEV_TERM: u32 = 6;
    /// A TD reported a fatal error; `data` holds 16 registers.
    pub const TDX_FATAL: u32 = 7;
}

/// `KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2`, arm64: the guest called `SYSTEM_RESET2`.
pub const PSCI_RESET2: u64 = 1 << 0;

/// `KVM_SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2`, arm64: the guest called `SYSTEM_OFF2`.
pub const PSCI_OFF2: u64 = 1 << 0;

/// `kvm_run.system_event` from Linux 5.18 on.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_SYSTEM_EVENT`. `flags` is an alias of `data[0]`.
/// The offsets are the same for i386, x32 and 64-bit processes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SystemEvent {
    /// `KVM_SYSTEM_EVENT_*`.
    pub event_type: u32,
    /// How many of `data` are valid. Garbage where capability 215 is missing: these bytes were padding.
    pub ndata: u32,
    /// What the type says about itself; x86 leaves `data[ndata..]` stale.
    pub data: [u64; 16],
}
const _: () = assert!(size_of::<SystemEvent>() == 136 && offset_of!(SystemEvent, ndata) == 4);
const _: () = assert!(offset_of!(SystemEvent, data) == 8);
impl Payload for SystemEvent {}

/// `kvm_run.system_event` up to Linux 5.17, as a 64-bit process lays it out.
///
/// Layout: Linux v5.17 `include/uapi/linux/kvm.h`, `KVM_EXIT_SYSTEM_EVENT`, x86-64, x32, arm64 and riscv64.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SystemEventV5_17 {
    /// `KVM_SYSTEM_EVENT_*`.
    pub event_type: u32,
    /// Padding that the compiler put in and no kernel wrote on x86.
    pub pad: u32,
    /// Architecture specific flags.
    pub flags: u64,
}
const _: () = assert!(size_of::<SystemEventV5_17>() == 16 && offset_of!(SystemEventV5_17, pad) == 4);
const _: () = assert!(offset_of!(SystemEventV5_17, flags) == 8);
impl Payload for SystemEventV5_17 {}

/// `kvm_run.system_event` up to Linux 5.17, as an i386 process lays it out: no padding, `flags` moves by 4.
///
/// Layout: Linux v5.17 `include/uapi/linux/kvm.h`, `KVM_EXIT_SYSTEM_EVENT`, compiled for i386.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SystemEventV5_17Ilp32 {
    /// `KVM_SYSTEM_EVENT_*`.
    pub event_type: u32,
    /// Architecture specific flags, where a 64-bit kernel has padding and, later, `ndata`.
    pub flags: U64,
}
const _: () = assert!(size_of::<SystemEventV5_17Ilp32>() == 12);
const _: () = assert!(offset_of!(SystemEventV5_17Ilp32, flags) == 4);
impl Payload for SystemEventV5_17Ilp32 {}
