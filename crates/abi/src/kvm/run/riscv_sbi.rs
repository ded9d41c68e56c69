//! `KVM_EXIT_RISCV_SBI`.

use super::Payload;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `kvm_run.riscv_sbi`: a call of the supervisor binary interface that userspace answers.
///
/// The members are `unsigned long`, so a 32-bit process and kernel lay them out in 40 bytes; this is the 64-bit form.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `KVM_EXIT_RISCV_SBI` (35), riscv64.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RiscvSbi {
    /// The extension, from `a7`.
    pub extension_id: u64,
    /// The function of the extension, from `a6`.
    pub function_id: u64,
    /// The arguments, from `a0` to `a5`.
    pub args: [u64; 6],
    /// Userspace's answer: the error for `a0` and the value for `a1`. The kernel presets "not supported" and 0.
    pub ret: [u64; 2],
}
const _: () = assert!(size_of::<RiscvSbi>() == 80 && offset_of!(RiscvSbi, function_id) == 8);
const _: () = assert!(offset_of!(RiscvSbi, args) == 16 && offset_of!(RiscvSbi, ret) == 64);
impl Payload for RiscvSbi {}
