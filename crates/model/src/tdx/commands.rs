//! `KVM_MEMORY_ENCRYPT_OP` on a TD.

use super::cpuid::{CpuidError, configurable, is_wide, virtualize};
use super::user::{behind, copy_in, copy_in_array, copy_out};
use super::{Td, TdPhase, TdxPlatform};
use crate::caps::HOST_CPUS;
use crate::memory::UserMemory;
use crate::state::VmState;
use crate::vm::Vm;
use exeunt_abi::Errno;
use exeunt_abi::kvm::cpuid::{Cpuid2, CpuidEntry2, MAX_ENTRIES};
use exeunt_abi::kvm::tdx::{Capabilities, InitVm, TDVMCALLINFO_SETUP_EVENT_NOTIFY_INTERRUPT, TdxCmd, id};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::tdx::{CompletionStatus, attributes, operand};
use std::mem::offset_of;

/// `ATTRIBUTES` that KVM lets a TD have.
const SUPPORTED_ATTRIBUTES: u64 = attributes::SEPT_VE_DISABLE;

/// `XFAM` bits that the host and KVM support: x87, SSE, AVX, AVX-512, PKRU, CET, AMX.
const SUPPORTED_XFAM: u64 = 0x6_1ae7;
/// `XFAM` bits that are always on: x87 and SSE.
const XFAM_FIXED1: u64 = 0x3;
/// Bits of `XFAM` that go together, or not at all: AVX-512, CET, AMX.
const XFAM_GROUPS: [u64; 3] = [0xe0, 0x1800, 0x6_0000];
/// AVX, which AVX-512 needs.
const XFAM_AVX: u64 = 0x4;

/// Why a command on a TD failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdxFailure {
    /// What the ioctl fails with.
    pub errno: Errno,
    /// What the module said: [`TdxCmd::hw_error`]. `SUCCESS` if it was not asked.
    pub hw_error: CompletionStatus,
}

impl From<Errno> for TdxFailure {
    fn from(errno: Errno) -> Self {
        Self { errno, hw_error: CompletionStatus::SUCCESS }
    }
}

impl Vm {
    /// `KVM_MEMORY_ENCRYPT_OP` on a TD: copies the command from the VMM's memory, does it, and copies back what it says.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_vm_ioctl`.
    ///
    /// # Errors
    ///
    /// `ENOTTY` for a VM that is no TD, `EIO` for one that is dead, `EFAULT` for addresses of no memory, `EINVAL` for a command that is not there or
    /// that sets `hw_error`; otherwise as the command.
    pub fn tdx_command(&self, argp: u64, memory: &dyn UserMemory) -> Result<(), Errno> {
        if self.lock().vm_type != VmType::Tdx {
            return Err(Errno::ENOTTY);
        }
        if self.is_dead() {
            return Err(Errno::EIO);
        }
        let mut cmd: TdxCmd = copy_in(memory, argp)?;
        if cmd.hw_error != 0 {
            return Err(Errno::EINVAL);
        }
        let result = match cmd.id {
            id::CAPABILITIES => self.copy_capabilities(&cmd, memory).map_err(TdxFailure::from),
            id::INIT_VM => self.copy_init_vm(&cmd, memory),
            id::FINALIZE_VM => self.tdx_finalize_vm(),
            _ => return Err(Errno::EINVAL),
        };
        // Copied back after a failure, too.
        cmd.hw_error = result.err().map_or(0, |failure| failure.hw_error.0);
        copy_out(memory, argp, &cmd)?;
        result.map_err(|failure| failure.errno)
    }

    /// `KVM_TDX_CAPABILITIES`: what a TD can be, with the CPUID bits that can be configured.
    #[must_use]
    pub fn tdx_capabilities(&self) -> (Capabilities, Vec<CpuidEntry2>) {
        let entries = configurable();
        let capabilities = Capabilities {
            supported_attrs: SUPPORTED_ATTRIBUTES,
            supported_xfam: SUPPORTED_XFAM,
            kernel_tdvmcallinfo_1_r11: 0,
            user_tdvmcallinfo_1_r11: TDVMCALLINFO_SETUP_EVENT_NOTIFY_INTERRUPT,
            kernel_tdvmcallinfo_1_r12: 0,
            user_tdvmcallinfo_1_r12: 0,
            reserved: [0; 250],
            cpuid_nent: u32::try_from(entries.len()).unwrap_or(MAX_ENTRIES),
            cpuid_padding: 0,
        };
        (capabilities, entries)
    }

    fn copy_capabilities(&self, cmd: &TdxCmd, memory: &dyn UserMemory) -> Result<(), Errno> {
        if cmd.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let (capabilities, entries) = self.tdx_capabilities();
        let nent_at = field(cmd.data, offset_of!(Capabilities, cpuid_nent))?;
        let room: u32 = copy_in(memory, nent_at)?;
        if room < capabilities.cpuid_nent {
            copy_out(memory, nent_at, &capabilities.cpuid_nent)?;
            return Err(Errno::E2BIG);
        }
        copy_out(memory, cmd.data, &capabilities)?;
        copy_out(memory, behind::<Capabilities>(cmd.data)?, entries.as_slice())
    }

    fn copy_init_vm(&self, cmd: &TdxCmd, memory: &dyn UserMemory) -> Result<(), TdxFailure> {
        if self.lock().td.phase != TdPhase::Uninitialized || cmd.flags != 0 {
            return Err(Errno::EINVAL.into());
        }
        let count: u32 = copy_in(memory, field(cmd.data, offset_of!(InitVm, cpuid_nent))?)?;
        if count > MAX_ENTRIES {
            return Err(Errno::E2BIG.into());
        }
        let init: InitVm = copy_in(memory, cmd.data)?;
        let entries = copy_in_array(memory, behind::<InitVm>(cmd.data)?, count)?;
        // The process may have changed it between the two reads.
        if init.cpuid_nent != count {
            return Err(Errno::EINVAL.into());
        }
        self.tdx_init_vm(&init, &entries)
    }

    /// `KVM_TDX_INIT_VM`: makes the TD. `init.cpuid_nent` is not looked at.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_td_init`.
    ///
    /// # Errors
    ///
    /// `EINVAL` a second time; for `reserved` or `cpuid_padding` that is not 0, attributes or features that are not offered,
    /// an address width other than 48 and 52, CPUID entries without a place; with `hw_error` for what the module refuses.
    /// `E2BIG` for more than 256 entries.
    pub fn tdx_init_vm(&self, init: &InitVm, cpuid: &[CpuidEntry2]) -> Result<(), TdxFailure> {
        let mut state = self.lock();
        if state.vm_type != VmType::Tdx {
            return Err(Errno::ENOTTY.into());
        }
        if state.td.phase != TdPhase::Uninitialized {
            return Err(Errno::EINVAL.into());
        }
        if cpuid.len() > MAX_ENTRIES as usize {
            return Err(Errno::E2BIG.into());
        }
        if init.reserved != [0; 12] || init.cpuid_padding != 0 {
            return Err(Errno::EINVAL.into());
        }
        if state.vcpus > 0 {
            return Err(Errno::EBUSY.into());
        }
        if init.attributes & !SUPPORTED_ATTRIBUTES != 0 || init.xfam & !SUPPORTED_XFAM != 0 {
            return Err(Errno::EINVAL.into());
        }
        let wide = is_wide(cpuid)?;
        let xfam = init.xfam | XFAM_FIXED1;
        let virtualized = virtualize(cpuid);
        // KVM's own complaints come first, the module sees the parameters after that.
        if virtualized != Err(CpuidError::Kvm) && !is_consistent(xfam) {
            return Err(refused(operand::XFAM));
        }
        state.td = Td {
            phase: TdPhase::Initialized,
            attributes: init.attributes,
            xfam,
            mrconfigid: Td::digest_of(&init.mrconfigid),
            mrowner: Td::digest_of(&init.mrowner),
            mrownerconfig: Td::digest_of(&init.mrownerconfig),
            wide,
            cpuid: virtualized?,
            max_vcpus: HOST_CPUS,
            platform: state.td.platform.clone(),
            ..Td::default()
        };
        let is_ve_disabled = init.attributes & attributes::SEPT_VE_DISABLE != 0;
        let shared_bit = state.td.shared_bit();
        state.memory.sept.configure(shared_bit, is_ve_disabled);
        state.initialised = true;
        Ok(())
    }

    /// `KVM_TDX_FINALIZE_VM`: the measurement is done, the TD may run.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_td_finalize`.
    ///
    /// # Errors
    ///
    /// `EINVAL` before `KVM_TDX_INIT_VM`, and a second time.
    pub fn tdx_finalize_vm(&self) -> Result<(), TdxFailure> {
        let mut state = self.lock();
        if state.td.phase != TdPhase::Initialized {
            return Err(Errno::EINVAL.into());
        }
        state.td.phase = TdPhase::Runnable;
        state.launched = true;
        Ok(())
    }

    /// Puts the TD on another simulated CPU: its reports are signed with the key of that one.
    pub fn set_tdx_platform(&self, platform: TdxPlatform) {
        self.lock().td.platform = platform;
    }
}

/// Whether the module takes the features together.
fn is_consistent(xfam: u64) -> bool {
    let [avx512, ..] = XFAM_GROUPS;
    let whole = XFAM_GROUPS.iter().all(|group| xfam & group == 0 || xfam & group == *group);
    whole && (xfam & avx512 == 0 || xfam & XFAM_AVX != 0)
}

fn refused(operand: u32) -> TdxFailure {
    TdxFailure { errno: Errno::EINVAL, hw_error: CompletionStatus::OPERAND_INVALID.with(operand) }
}

impl From<CpuidError> for TdxFailure {
    fn from(error: CpuidError) -> Self {
        match error {
            CpuidError::Kvm => Errno::EINVAL.into(),
            CpuidError::Module => refused(operand::CPUID_CONFIG),
        }
    }
}

/// The address of a field, or `EFAULT` where there is none.
fn field(start: u64, offset: usize) -> Result<u64, Errno> {
    start.checked_add(offset as u64).ok_or(Errno::EFAULT)
}

/// The head of a table that `KVM_TDX_GET_CPUID` fills.
pub(super) fn copy_cpuid(found: &[CpuidEntry2], table: u64, memory: &dyn UserMemory) -> Result<(), Errno> {
    let head: Cpuid2 = copy_in(memory, table)?;
    let nent = u32::try_from(found.len()).unwrap_or(MAX_ENTRIES);
    copy_out(memory, table, &Cpuid2 { nent, ..head })?;
    if head.nent < nent {
        return Err(Errno::E2BIG);
    }
    copy_out(memory, behind::<Cpuid2>(table)?, found)
}

impl VmState {
    /// What `KVM_CREATE_VCPU` needs of a TD.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_vcpu_create`.
    pub(crate) fn check_td_vcpu(&self) -> Result<(), Errno> {
        if self.vm_type != VmType::Tdx {
            return Ok(());
        }
        if self.td.phase != TdPhase::Initialized {
            return Err(Errno::EIO);
        }
        // The module virtualises local APICs that are in the kernel, and no others.
        if self.platform.irqchip.has_lapic() { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// `kvm->max_vcpus`: a TD has no more than the host has processors.
    pub(crate) fn max_vcpus(&self) -> u64 {
        match self.vm_type {
            VmType::Tdx => u64::from(HOST_CPUS),
            _ => self.kernel.dialect.max_vcpus().0,
        }
    }
}
