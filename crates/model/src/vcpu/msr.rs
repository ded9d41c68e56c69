//! `RDMSR` and `WRMSR`: the filter, the registers of the model, and userspace for what is left.

use super::cpuid::low;
use super::msr_store::MsrRefusal;
use super::xstate;
use crate::events::MachineChecks;
use crate::guest::GuestFault;
use crate::guest::mailbox::Outcome;
use crate::tdx;
use crate::vcpu::{Completion, OnEntry, Step, Vcpu};
use crate::vm::Vm;
use exeunt_abi::Errno;
use exeunt_abi::ghcb::page::{event_injection, exit_info_1};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{X86Msr, msr_exit_reason};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::msr_index as msr;
use exeunt_proto::exit::{Exit, Rdmsr, Wrmsr};

/// The vector of `#GP`.
const GP: u64 = 13;
/// `SW_EXITINFO2` of a refused access: `VALID`, `TYPE_EXCEPTION` and the vector as an `int`, which grows signed.
const INJECT_GP: u64 = 0xffff_ffff_0000_0000 | event_injection::VALID | event_injection::TYPE_EXCEPTION | GP;

/// `KVM_MSR_FILTER_READ`.
const FILTER_READ: u32 = 1;
/// `KVM_MSR_FILTER_WRITE`.
const FILTER_WRITE: u32 = 2;
/// Ranges of a filter.
const FILTER_RANGES: usize = 16;
/// `KVM_MSR_FILTER_MAX_BITMAP_SIZE` in bytes.
const FILTER_BITMAP_BYTES: u32 = 0x600;

/// One range of a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MsrFilterRange {
    /// `KVM_MSR_FILTER_READ` (1) and `KVM_MSR_FILTER_WRITE` (2).
    pub flags: u32,
    /// The first register.
    pub base: u32,
    /// How many registers, 0 for a range that does not count.
    pub nmsrs: u32,
    /// A bit for each register, set if it is allowed. Bits that are not there are clear.
    pub bitmap: Vec<u8>,
}

/// Which registers the guest may touch: `KVM_X86_SET_MSR_FILTER`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MsrFilter {
    /// `KVM_MSR_FILTER_DEFAULT_DENY` (1).
    pub flags: u32,
    /// At most 16 ranges; the first that holds a register decides.
    pub ranges: Vec<MsrFilterRange>,
}

impl MsrFilterRange {
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_add_msr_filter`.
    fn is_valid(&self) -> bool {
        let is_known = self.flags != 0 && self.flags & !(FILTER_READ | FILTER_WRITE) == 0;
        let bytes = self.nmsrs.div_ceil(64).saturating_mul(8);
        self.nmsrs == 0 || is_known && bytes <= FILTER_BITMAP_BYTES
    }

    /// What the range says of a register, if it says something.
    fn allows(&self, index: u32, access: u32) -> Option<bool> {
        let bit = index.checked_sub(self.base).filter(|bit| *bit < self.nmsrs)?;
        let byte = self.bitmap.get(usize::try_from(bit >> 3).ok()?).copied().unwrap_or(0);
        (self.flags & access != 0).then_some(byte >> (bit & 7) & 1 == 1)
    }
}

impl MsrFilter {
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_msr_allowed`.
    fn allows(&self, index: u32, access: u32) -> bool {
        let said = self.ranges.iter().find_map(|range| range.allows(index, access));
        said.unwrap_or(self.flags == 0)
    }
}

impl Vm {
    /// `KVM_X86_SET_MSR_FILTER`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vm_ioctl_set_msr_filter`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an unknown flag, a filter that denies everything by having no range, and a range without or with
    /// unknown flags or with more than 12288 registers.
    pub fn set_msr_filter(&self, filter: MsrFilter) -> Result<(), Errno> {
        let is_empty = filter.ranges.iter().all(|range| range.nmsrs == 0);
        if filter.flags & !1 != 0 || filter.ranges.len() > FILTER_RANGES || is_empty && filter.flags != 0 {
            return Err(Errno::EINVAL);
        }
        if !filter.ranges.iter().all(MsrFilterRange::is_valid) {
            return Err(Errno::EINVAL);
        }
        self.lock().msr_filter = Some(filter);
        Ok(())
    }

    fn filter_allows(&self, index: u32, access: u32) -> bool {
        // Those of the local APIC in x2APIC mode are not filtered.
        let is_apic = (0x800..=0x8ff).contains(&index);
        is_apic || self.lock().msr_filter.as_ref().is_none_or(|filter| filter.allows(index, access))
    }
}

impl Vcpu {
    /// A guest outside of SEV-ES executes `RDMSR` in ring 0. The GHCB MSR is the only one that others read this way.
    pub(crate) fn rdmsr_op(&mut self, index: u32) -> Step {
        if let Some(step) = self.ghcb_msr_op(index, None) {
            return step;
        }
        self.did(|| format!("RDMSR {index:#x}"));
        self.regs.rcx = u64::from(index);
        self.on_entry = Some(OnEntry::EdxEax);
        self.emulate_rdmsr()
    }

    /// The same for `WRMSR`.
    pub(crate) fn wrmsr_op(&mut self, index: u32, value: u64) -> Step {
        if let Some(step) = self.ghcb_msr_op(index, Some(value)) {
            return step;
        }
        self.did(|| format!("WRMSR {index:#x} := {value:#x}"));
        [self.regs.rcx, self.regs.rax, self.regs.rdx] = [u64::from(index), value & 0xffff_ffff, value >> 32];
        self.on_entry = Some(OnEntry::Nothing);
        self.emulate_wrmsr()
    }

    /// What no exit comes from: an SEV-ES guest's own GHCB MSR, and the exception of all its other accesses.
    fn ghcb_msr_op(&mut self, index: u32, value: Option<u64>) -> Option<Step> {
        if self.is_plain_x86() {
            return None;
        }
        let is_ghcb = self.is_es && index == msr::AMD64_SEV_ES_GHCB;
        Some(Step::Guest(match value {
            _ if !is_ghcb => Outcome::Fault(self.not_emulated()),
            None => Outcome::Value(self.ghcb.msr),
            Some(value) => {
                self.ghcb.msr = value;
                Outcome::Done
            }
        }))
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_emulate_rdmsr`.
    pub(crate) fn emulate_rdmsr(&mut self) -> Step {
        let index = low(self.regs.rcx);
        match self.read_msr(index, true) {
            Ok(value) => {
                [self.regs.rax, self.regs.rdx] = [value & 0xffff_ffff, value >> 32];
                self.complete_msr(false)
            }
            Err(refusal) => match self.exiting_reason(refusal) {
                Some(reason) => {
                    self.completion = Some(Completion::Rdmsr);
                    Step::Exit(self.exit(&Exit::Rdmsr(Rdmsr { index, reason })))
                }
                None => self.complete_msr(true),
            },
        }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_emulate_wrmsr`.
    pub(crate) fn emulate_wrmsr(&mut self) -> Step {
        let index = low(self.regs.rcx);
        let value = self.regs.rdx << 32 | self.regs.rax & 0xffff_ffff;
        match self.write_msr(index, value, true) {
            Ok(()) => {
                self.nested_efer(index, value);
                self.complete_msr(false)
            }
            Err(refusal) => match self.exiting_reason(refusal) {
                Some(reason) => {
                    self.completion = Some(Completion::Wrmsr);
                    Step::Exit(self.exit(&Exit::Wrmsr(Wrmsr { index, reason, value })))
                }
                None => self.complete_msr(true),
            },
        }
    }

    /// The reason that userspace is asked with, if it wants to be.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_msr_user_space`.
    fn exiting_reason(&self, refusal: MsrRefusal) -> Option<u32> {
        let reason = match refusal {
            MsrRefusal::Invalid => msr_exit_reason::INVAL,
            MsrRefusal::Unknown => msr_exit_reason::UNKNOWN,
            MsrRefusal::Filtered => msr_exit_reason::FILTER,
        };
        let wanted = self.vm.lock().cap(Cap::X86_USER_SPACE_MSR);
        (wanted & u64::from(reason) != 0).then_some(reason)
    }

    /// Userspace answered an access.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `complete_fast_rdmsr` and `complete_fast_msr_access`.
    pub(crate) fn complete_msr_exit(&mut self, is_read: bool) -> Step {
        let answer: X86Msr = self.page.payload();
        if is_read && answer.error == 0 {
            [self.regs.rax, self.regs.rdx] = [answer.data & 0xffff_ffff, answer.data >> 32];
        }
        self.complete_msr(answer.error != 0)
    }

    /// A refused access is a `#GP`, which an SEV-ES guest is asked to raise itself.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/svm.c`, `svm_complete_emulated_msr`.
    fn complete_msr(&mut self, is_refused: bool) -> Step {
        if self.vm_type == VmType::Tdx {
            self.complete_td_msr(is_refused);
        } else if is_refused && self.ghcb.mapped.is_some() {
            let memory = &mut self.vm.lock().memory;
            self.ghcb.answer(memory, exit_info_1::ISSUE_EXCEPTION, INJECT_GP);
        } else if is_refused {
            self.raise(GuestFault::GeneralProtection);
        }
        Step::Resume
    }

    /// `RDPMC` with ECX of the vCPU's registers.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_emulate_rdpmc`; `svm/pmu.c`, `amd_rdpmc_ecx_to_pmc`.
    pub(crate) fn emulate_rdpmc(&mut self) {
        match self.msrs.counter(low(self.regs.rcx)) {
            // A guest whose CR4 is not known has not let its user code read counters.
            Some(value) if self.regs.cpl == 0 => {
                [self.regs.rax, self.regs.rdx] = [value & 0xffff_ffff, value >> 32];
            }
            _ => self.raise(GuestFault::GeneralProtection),
        }
    }

    /// `KVM_GET_MSRS` of one register. The filter is for the guest alone.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a register that KVM does not have or that this guest may not read; the ioctl stops before it.
    pub fn msr(&mut self, index: u32) -> Result<u64, Errno> {
        self.read_msr(index, false).map_err(|_| Errno::EINVAL)
    }

    /// `KVM_SET_MSRS` of one register.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a register that KVM does not have, and for a value that it does not take; the ioctl stops before
    /// it.
    pub fn set_msr(&mut self, index: u32, value: u64) -> Result<(), Errno> {
        self.write_msr(index, value, false).map_err(|_| Errno::EINVAL)
    }

    fn read_msr(&mut self, index: u32, by_guest: bool) -> Result<u64, MsrRefusal> {
        if by_guest && !self.vm.filter_allows(index, FILTER_READ) {
            return Err(MsrRefusal::Filtered);
        }
        if let (VmType::Tdx, Some(answer)) = (self.vm_type, tdx::read_msr(index)) {
            return answer;
        }
        match Self::x2apic_number(index) {
            Some(number) => self.read_x2apic(number),
            None if index == msr::IA32_APICBASE => Ok(self.apic.base),
            None if MachineChecks::has(index) => self.machine_checks.read(index).ok_or(MsrRefusal::Invalid),
            None => self.msrs.get(index, &self.cpuid),
        }
    }

    fn write_msr(&mut self, index: u32, value: u64, by_guest: bool) -> Result<(), MsrRefusal> {
        if by_guest && !self.vm.filter_allows(index, FILTER_WRITE) {
            return Err(MsrRefusal::Filtered);
        }
        if self.vm_type == VmType::Tdx && !tdx::is_writable(index) {
            return Err(MsrRefusal::Invalid);
        }
        if let Some(number) = Self::x2apic_number(index) {
            return self.write_x2apic(number, value);
        }
        if index == msr::IA32_APICBASE {
            return self.write_apic_base(value, by_guest);
        }
        if MachineChecks::has(index) {
            return self.machine_checks.write(index, value, by_guest).ok_or(MsrRefusal::Invalid);
        }
        self.msrs.set(index, value, &self.cpuid)?;
        if index == msr::IA32_XSS {
            self.xss = value;
        }
        Ok(())
    }

    /// Takes XCR0 and XSS over from a GHCB, if they are there and valid. What KVM refuses it ignores.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_es_sync_from_ghcb`.
    pub(crate) fn sync_xstate(&mut self, xcr0: Option<u64>, xss: Option<u64>) {
        if let Some(xcr0) = xcr0 {
            let [low, high] = [0, 3].map(|register| u64::from(self.cpuid.register(0xd, 0, register)));
            if xstate::xcr0_is_valid(xcr0, high << 32 | low) {
                self.xcr0 = xcr0;
            }
        }
        if let Some(xss) = xss {
            // Not an access of the guest's, so the filter is not asked.
            let _ = self.write_msr(msr::IA32_XSS, xss, false);
        }
    }
}
