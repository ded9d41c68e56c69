//! `KVM_EXIT_TDX`: a TD made a `TDG.VP.VMCALL` that userspace answers.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `kvm_run.tdx`, with `unknown` as the member of its union.
///
/// Every member of the union begins with `ret`, which the kernel presets to a safe answer. So a call that the reader
/// does not know is answered by entering again, or through `ret`.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_TDX` (40) with `unknown`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Tdx {
    /// No flag exists: 0 in Linux 7.2.
    pub flags: u64,
    /// The leaf of the call, `TDVMCALL_*` as in [`crate::ghci::leaf`]. It says which member of the union holds.
    pub nr: u64,
    /// Userspace's answer: the status for the TD, as in [`crate::ghci::Status`].
    pub ret: u64,
    /// The arguments, by leaf.
    pub data: [u64; 5],
}
const _: () = assert!(size_of::<Tdx>() == 64 && offset_of!(Tdx, nr) == 8);
const _: () = assert!(offset_of!(Tdx, ret) == 16 && offset_of!(Tdx, data) == 24);
impl Payload for Tdx {}

/// `kvm_run.tdx` with `get_quote`: `TDVMCALL_GET_QUOTE`.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_TDX` (40) with `get_quote`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TdxGetQuote {
    /// As in [`Tdx`].
    pub flags: u64,
    /// As in [`Tdx`].
    pub nr: u64,
    /// The status for the TD; the kernel presets `TDVMCALL_STATUS_SUBFUNC_UNSUPPORTED`.
    pub ret: u64,
    /// The buffer: guest physical address in bytes, without the shared bit. Its alignment is unchecked.
    pub gpa: u64,
    /// The length of the buffer in bytes, unchecked.
    pub size: u64,
}
const _: () = assert!(size_of::<TdxGetQuote>() == 40 && offset_of!(TdxGetQuote, ret) == 16);
const _: () = assert!(offset_of!(TdxGetQuote, gpa) == 24 && offset_of!(TdxGetQuote, size) == 32);
impl Payload for TdxGetQuote {}

/// `kvm_run.tdx` with `get_tdvmcall_info`: `TDVMCALL_GET_TD_VM_CALL_INFO` with leaf 1.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_TDX` (40) with `get_tdvmcall_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TdxGetTdVmCallInfo {
    /// As in [`Tdx`].
    pub flags: u64,
    /// As in [`Tdx`].
    pub nr: u64,
    /// The status for the TD; the kernel presets `TDVMCALL_STATUS_SUCCESS`.
    pub ret: u64,
    /// What is asked for, from R12. KVM answers leaf 0 itself.
    pub leaf: u64,
    /// Answer for R11: bits of the calls beyond the base that userspace implements. Preset to 0, as the next three.
    pub r11: u64,
    /// Answer for R12.
    pub r12: u64,
    /// Answer for R13.
    pub r13: u64,
    /// Answer for R14.
    pub r14: u64,
}
const _: () = assert!(size_of::<TdxGetTdVmCallInfo>() == 64 && offset_of!(TdxGetTdVmCallInfo, ret) == 16);
const _: () = assert!(offset_of!(TdxGetTdVmCallInfo, leaf) == 24);
const _: () = assert!(offset_of!(TdxGetTdVmCallInfo, r11) == 32 && offset_of!(TdxGetTdVmCallInfo, r14) == 56);
impl Payload for TdxGetTdVmCallInfo {}

/// `kvm_run.tdx` with `setup_event_notify`: `TDVMCALL_SETUP_EVENT_NOTIFY_INTERRUPT`.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_TDX` (40) with `setup_event_notify`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TdxSetupEventNotify {
    /// As in [`Tdx`].
    pub flags: u64,
    /// As in [`Tdx`].
    pub nr: u64,
    /// The status for the TD; the kernel presets `TDVMCALL_STATUS_SUBFUNC_UNSUPPORTED`.
    pub ret: u64,
    /// The interrupt vector, which KVM found to be 32 to 255.
    pub vector: u64,
}
const _: () = assert!(size_of::<TdxSetupEventNotify>() == 32 && offset_of!(TdxSetupEventNotify, ret) == 16);
const _: () = assert!(offset_of!(TdxSetupEventNotify, vector) == 24);
impl Payload for TdxSetupEventNotify {}
