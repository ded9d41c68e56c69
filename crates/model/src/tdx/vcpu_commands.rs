//! `KVM_MEMORY_ENCRYPT_OP` on a vCPU of a TD.

use super::commands::copy_cpuid;
use super::cpuid::read_all;
use super::user::{copy_in, copy_out};
use super::{Td, TdPhase};
use crate::faults::Point;
use crate::memory::UserMemory;
use crate::state::{PAGE, VmState};
use crate::vcpu::{MpState, Vcpu};
use exeunt_abi::kvm::cpuid::CpuidEntry2;
use exeunt_abi::kvm::tdx::{InitMemRegion, MEASURE_MEMORY_REGION, TdxCmd, id};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gpa, PAGE_SIZE};

/// `MSR_IA32_APICBASE`: where it is by default, in x2APIC mode.
const APIC_BASE_X2APIC: u64 = 0xfee0_0000 | 1 << 11 | 1 << 10;
/// `MSR_IA32_APICBASE_BSP`: the processor that the others are started by.
const APIC_BASE_BSP: u64 = 1 << 8;

impl Vcpu {
    /// `KVM_MEMORY_ENCRYPT_OP` on a vCPU of a TD. Unlike on the VM, the command is not copied back.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_vcpu_unlocked_ioctl` and `tdx_vcpu_ioctl`.
    ///
    /// # Errors
    ///
    /// `EIO` for a VM that is dead, `EFAULT` for addresses of no memory, `EINVAL` for a vCPU of another VM, a command that is
    /// not there or that sets `hw_error`, and after `KVM_TDX_FINALIZE_VM`; otherwise as the command.
    pub fn tdx_command(&mut self, argp: u64, memory: &dyn UserMemory) -> Result<(), Errno> {
        if self.vm.is_dead() {
            return Err(Errno::EIO);
        }
        if self.vm_type != VmType::Tdx {
            return Err(Errno::EINVAL);
        }
        let cmd: TdxCmd = copy_in(memory, argp)?;
        if cmd.hw_error != 0 || self.vm.lock().td.phase != TdPhase::Initialized {
            return Err(Errno::EINVAL);
        }
        match cmd.id {
            id::INIT_VCPU if cmd.flags == 0 => self.tdx_init_vcpu(cmd.data),
            id::INIT_MEM_REGION => self.copy_mem_region(&cmd, memory),
            id::GET_CPUID => copy_cpuid(&self.tdx_get_cpuid()?, cmd.data, memory),
            _ => Err(Errno::EINVAL),
        }
    }

    /// `KVM_TDX_INIT_VCPU`. The guest finds `rcx` in RCX.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_vcpu_init`.
    ///
    /// # Errors
    ///
    /// `EINVAL` outside of the time between `KVM_TDX_INIT_VM` and `KVM_TDX_FINALIZE_VM`, a second time, and before
    /// `KVM_SET_CPUID2` gave the vCPU an x2APIC; `EIO` for a VM that is dead.
    pub fn tdx_init_vcpu(&mut self, rcx: u64) -> Result<(), Errno> {
        let vm = self.vm.clone();
        let mut state = self.initializing(&vm)?;
        if self.td.is_initialized {
            return Err(Errno::EINVAL);
        }
        let base = APIC_BASE_X2APIC | if self.is_bsp() { APIC_BASE_BSP } else { 0 };
        self.write_apic_base(base, false).map_err(|_| Errno::EINVAL)?;
        self.td.is_initialized = true;
        self.td.index = state.td.vcpus;
        self.td.initial_rcx = rcx;
        state.td.vcpus = state.td.vcpus.saturating_add(1);
        self.peer.set_mp_state(MpState::Runnable);
        Ok(())
    }

    fn copy_mem_region(&mut self, cmd: &TdxCmd, memory: &dyn UserMemory) -> Result<(), Errno> {
        if !self.td.is_initialized || cmd.flags & !MEASURE_MEMORY_REGION != 0 {
            return Err(Errno::EINVAL);
        }
        let before: InitMemRegion = copy_in(memory, cmd.data)?;
        let mut region = before;
        let measure = cmd.flags & MEASURE_MEMORY_REGION != 0;
        if check_region(&region, &self.vm.lock().td).is_err() {
            // Only what was begun is copied back.
            return Err(Errno::EINVAL);
        }
        let result = self.tdx_init_mem_region(&mut region, measure, memory);
        copy_out(memory, cmd.data, &region)?;
        result
    }

    /// `KVM_TDX_INIT_MEM_REGION`: fills private pages, and measures their contents if asked to. `region` is advanced past
    /// what was done, after a failure too.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_vcpu_init_mem_region`.
    ///
    /// # Errors
    ///
    /// `EINVAL` outside of the time between `KVM_TDX_INIT_VM` and `KVM_TDX_FINALIZE_VM`, before `KVM_TDX_INIT_VCPU`, for a
    /// region that is unaligned, empty, wraps or is not private, and for a page without a `guest_memfd` or the attribute
    /// private; `EINTR` for a signal; `EFAULT` for a source that is not mapped, `EOPNOTSUPP` for a source of 0; `EIO` for a
    /// page that was added before, and for a VM that is dead.
    pub fn tdx_init_mem_region(
        &mut self,
        region: &mut InitMemRegion,
        measure: bool,
        memory: &dyn UserMemory,
    ) -> Result<(), Errno> {
        let vm = self.vm.clone();
        if !self.td.is_initialized {
            return Err(Errno::EINVAL);
        }
        check_region(region, &self.initializing(&vm)?.td)?;
        while region.nr_pages > 0 {
            vm.faults.signal_at(Point::LaunchPage)?;
            let mut state = self.initializing(&vm)?;
            add_page(&mut state, region, measure, memory)?;
            region.source_addr = region.source_addr.wrapping_add(PAGE_SIZE);
            region.gpa = region.gpa.wrapping_add(PAGE_SIZE);
            region.nr_pages = region.nr_pages.saturating_sub(1);
        }
        Ok(())
    }

    /// `KVM_TDX_GET_CPUID`: the CPUID that the TD sees.
    ///
    /// # Errors
    ///
    /// `EINVAL` outside of the time between `KVM_TDX_INIT_VM` and `KVM_TDX_FINALIZE_VM`; `EIO` for a VM that is dead.
    pub fn tdx_get_cpuid(&self) -> Result<Vec<CpuidEntry2>, Errno> {
        let state = self.initializing(&self.vm)?;
        Ok(read_all(&state.td.cpuid, state.td.gpa_width()))
    }

    /// The state of a TD that is being made.
    fn initializing<'a>(&self, vm: &'a crate::vm::Vm) -> Result<std::sync::MutexGuard<'a, VmState>, Errno> {
        if vm.is_dead() {
            return Err(Errno::EIO);
        }
        let state = vm.lock();
        if self.vm_type != VmType::Tdx || state.td.phase != TdPhase::Initialized {
            return Err(Errno::EINVAL);
        }
        Ok(state)
    }
}

fn check_region(region: &InitMemRegion, td: &Td) -> Result<(), Errno> {
    let is_aligned = (region.source_addr | region.gpa) & (PAGE_SIZE - 1) == 0;
    // The kernel shifts without a check, so a count may wrap to a small one.
    let end = region.gpa.wrapping_add(region.nr_pages.wrapping_shl(PAGE_SIZE.trailing_zeros()));
    let last = end.wrapping_sub(1);
    if !is_aligned
        || region.nr_pages == 0
        || end <= region.gpa
        || !td.is_private(region.gpa)
        || !td.is_private(last)
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// One page: `kvm_gmem_populate`, `TDH.MEM.PAGE.ADD`, `TDH.MR.EXTEND`.
///
/// Source: Linux v7.2 `virt/kvm/guest_memfd.c`, `kvm_gmem_populate`, and `arch/x86/kvm/vmx/tdx.c`,
/// `tdx_gmem_post_populate`.
fn add_page(
    state: &mut VmState,
    region: &InitMemRegion,
    measure: bool,
    memory: &dyn UserMemory,
) -> Result<(), Errno> {
    let gpa = Gpa(region.gpa);
    if state.memory.slot_of(gpa.gfn()).is_none_or(|slot| slot.guest_memfd.is_none()) {
        return Err(Errno::EINVAL);
    }
    let mut source = [0; PAGE];
    let has_source = region.source_addr != 0;
    if has_source {
        memory.read(region.source_addr, &mut source)?;
    }
    state.memory.sept_add(gpa.gfn(), has_source.then_some(&source))?;
    state.td.mrtd.page_add(gpa);
    if measure {
        state.td.mrtd.extend(gpa, &source);
    }
    Ok(())
}
