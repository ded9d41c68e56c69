//! Trust domains: the TDX module in software, and what KVM makes of it.
//!
//! A TD is made by the commands of `KVM_MEMORY_ENCRYPT_OP` (`commands`, `vcpu_commands`). Its guest calls the module
//! by `TDCALL` (`tdcall`); `TDG.VP.VMCALL` leaves to KVM (`vp_enter`), which handles it (`tdvmcall`, `map_gpa`,
//! `instruction`) and completes it at the next `KVM_RUN` (`complete`).

mod commands;
mod complete;
mod cpuid;
mod instruction;
mod map_gpa;
mod measurement;
mod msr;
mod report;
mod tdcall;
mod tdvmcall;
mod user;
mod vcpu_commands;
mod vp_enter;

pub use commands::TdxFailure;
pub(crate) use complete::TdCompletion;
pub(crate) use map_gpa::MapGpa;
pub(crate) use msr::{is_writable, read_msr};
pub use report::TdxPlatform;

use crate::guest::tdx::TdRegs;
use exeunt_abi::Gpa;
use exeunt_abi::kvm::cpuid::CpuidEntry2;
use exeunt_abi::tdx::report::{DIGEST_BYTES, RTMRS};
use measurement::Mrtd;

/// A SHA-384 digest.
type Digest = [u8; DIGEST_BYTES];

/// How far a TD is made: `enum kvm_tdx_state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TdPhase {
    /// Before `KVM_TDX_INIT_VM`.
    #[default]
    Uninitialized,
    /// The module knows the TD; vCPUs and memory are added.
    Initialized,
    /// After `KVM_TDX_FINALIZE_VM`.
    Runnable,
}

/// What the module and KVM hold for a TD.
#[derive(Clone, Debug)]
pub(crate) struct Td {
    pub(crate) phase: TdPhase,
    pub(crate) attributes: u64,
    xfam: u64,
    mrconfigid: Digest,
    mrowner: Digest,
    mrownerconfig: Digest,
    /// Guest physical addresses have 52 bits, not 48.
    wide: bool,
    /// CPUID as the module virtualises it.
    cpuid: Vec<CpuidEntry2>,
    mrtd: Mrtd,
    rtmr: [Digest; RTMRS],
    /// vCPUs that `KVM_TDX_INIT_VCPU` was done for.
    vcpus: u32,
    max_vcpus: u32,
    /// The module has lost the TD.
    is_fatal: bool,
    platform: TdxPlatform,
}

impl Default for Td {
    fn default() -> Self {
        Self {
            phase: TdPhase::default(),
            attributes: 0,
            xfam: 0,
            mrconfigid: [0; DIGEST_BYTES],
            mrowner: [0; DIGEST_BYTES],
            mrownerconfig: [0; DIGEST_BYTES],
            wide: false,
            cpuid: Vec::new(),
            mrtd: Mrtd::default(),
            rtmr: [[0; DIGEST_BYTES]; RTMRS],
            vcpus: 0,
            max_vcpus: 0,
            is_fatal: false,
            platform: TdxPlatform::default(),
        }
    }
}

impl Td {
    /// The bits of an address: 48, or 52 where the VMM chose so.
    const fn gpa_width(&self) -> u32 {
        if self.wide { 52 } else { 48 }
    }

    /// The bit that makes an address shared: the highest one.
    pub(crate) const fn shared_bit(&self) -> u64 {
        if self.wide { 1 << 51 } else { 1 << 47 }
    }

    /// `vt_is_tdx_private_gpa`.
    pub(crate) const fn is_private(&self, gpa: u64) -> bool {
        gpa & self.shared_bit() == 0
    }

    /// Whether the module takes an address at all: its bits and no more, and none above.
    const fn is_legal(&self, gpa: u64) -> bool {
        gpa >> self.gpa_width() == 0
    }

    /// The address without the shared bit.
    pub(crate) const fn strip(&self, gpa: u64) -> Gpa {
        Gpa(gpa & !self.shared_bit())
    }
}

/// What the module and KVM hold for a vCPU of a TD.
#[derive(Clone, Debug, Default)]
pub(crate) struct TdVcpu {
    /// `KVM_TDX_INIT_VCPU` has been done.
    pub(crate) is_initialized: bool,
    /// The module has lost the vCPU.
    is_disabled: bool,
    /// In the order of `KVM_TDX_INIT_VCPU`.
    index: u32,
    /// What the VMM hands to the guest in RCX.
    pub(crate) initial_rcx: u64,
    /// The guest's registers while a `TDG.VP.VMCALL` is under way.
    guest: TdRegs,
    /// `vp_enter_args`: what KVM sees of them, and what it answers.
    args: TdRegs,
}
