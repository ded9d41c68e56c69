//! `KVM_EXIT_SYSTEM_EVENT`: the form that shipped, the form before it, and the two proposals between them.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_SYSTEM_EVENT_*`. All 32 bits are the type.
pub mod event_type {
    crate::named::named! {
        u32;
        SHUTDOWN = 1, "The guest asked to be shut down.";
        RESET = 2, "The guest asked to be reset.";
        CRASH = 3, "The guest crashed.";
        WAKEUP = 4, "A suspended arm64 vCPU has a reason to wake up.";
        SUSPEND = 5, "An arm64 guest asked to be suspended.";
        SEV_TERM = 6, "An SEV-ES or SNP guest asked to be terminated; `data[0]` is the GHCB MSR.";
        TDX_FATAL = 7, "A TD reported a fatal error; `data` holds 16 registers.";
    }
}

/// Numbers of the proposal "KVM, SEV: Add `KVM_EXIT_SHUTDOWN` metadata for SEV-ES", version 4.1 (2022), which no
/// release speaks: the type that shipped is 6, and 4 is `WAKEUP` now.
pub mod sev_term_v4_1 {
    /// `KVM_SYSTEM_EVENT_SEV_TERM` as it was proposed.
    pub const SEV_TERM: u32 = 4;
    /// `KVM_SYSTEM_EVENT_NDATA_VALID`: a bit of the type, which says that `ndata` and `data` are filled.
    pub const NDATA_VALID: u32 = 1 << 31;
    /// The type of a termination as the proposals write it.
    pub const SEV_TERM_WITH_DATA: u32 = SEV_TERM | NDATA_VALID;
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

/// `kvm_run.system_event` of the proposal as it was posted: `ndata` counts only with bit 31 of the type.
///
/// Layout: proposal "KVM, SEV: Add `KVM_EXIT_SHUTDOWN` metadata for SEV-ES", version 4.1 (2022), never merged in this
/// form; the same on i386. The code that came with it wrote the GHCB MSR to `data[1]` and counted one element.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SystemEventV4_1 {
    /// `KVM_SYSTEM_EVENT_*`, with [`sev_term_v4_1::NDATA_VALID`] where the next fields are filled.
    pub event_type: u32,
    /// How many of `data` are valid.
    pub ndata: u32,
    /// What the type says about itself.
    pub data: [u64; 16],
}
const _: () = assert!(size_of::<SystemEventV4_1>() == 136 && offset_of!(SystemEventV4_1, ndata) == 4);
const _: () = assert!(offset_of!(SystemEventV4_1, data) == 8);
impl Payload for SystemEventV4_1 {}

/// `kvm_run.system_event` as it was queued and documented before Linux 5.18: `flags` beside `data`, not under it.
///
/// Layout: kvm/next of April 2022, `Documentation/virt/kvm/api.rst`, replaced before Linux 5.18; the same on i386. The
/// header beside it had no `flags`, so a VMM that was compiled with it found nothing in its `data[0]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SystemEventQueued {
    /// `KVM_SYSTEM_EVENT_*`, with [`sev_term_v4_1::NDATA_VALID`] where `ndata` and `data` are filled.
    pub event_type: u32,
    /// How many of `data` are valid.
    pub ndata: u32,
    /// Architecture specific flags.
    pub flags: u64,
    /// What the type says about itself.
    pub data: [u64; 16],
}
const _: () = assert!(size_of::<SystemEventQueued>() == 144 && offset_of!(SystemEventQueued, ndata) == 4);
const _: () = assert!(offset_of!(SystemEventQueued, flags) == 8 && offset_of!(SystemEventQueued, data) == 16);
impl Payload for SystemEventQueued {}
