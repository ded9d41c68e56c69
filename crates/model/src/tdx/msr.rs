//! Model-specific registers of a TD: those that KVM emulates at all, and how an access ends.

use crate::vcpu::{MsrRefusal, Step, Vcpu};
use exeunt_abi::ghci::{Status, leaf};
use exeunt_abi::msr_index as msr;

/// `MSR_IA32_FEAT_CTL`: fixed features.
const FEAT_CTL: u32 = 0x3a;
/// `MSR_IA32_APICBASE`.
const APIC_BASE: u32 = 0x1b;
/// `FEAT_CTL_LOCKED`. Local machine checks are not offered.
const FEAT_CTL_LOCKED: u64 = 1;
/// What KVM takes EFER to be from a vCPU's creation on: `SCE`, `LME`, `LMA`, `NX`.
const EFER: u64 = 0xd01;
/// `MSR_IA32_MCG_EXT_CTL`: who gets machine checks.
const MCG_EXT_CTL: u32 = 0x4d0;
/// Banks of machine checks.
const MCE_BANKS: u32 = 32;

impl Vcpu {
    /// R12 is the register; the value goes to R11.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_handle_exit`.
    pub(super) fn td_rdmsr(&mut self) -> Step {
        self.regs.rcx = self.td.args.r12;
        self.emulate_rdmsr()
    }

    /// R12 is the register, R13 the value.
    pub(super) fn td_wrmsr(&mut self) -> Step {
        let value = self.td.args.r13;
        self.regs.rcx = self.td.args.r12;
        [self.regs.rax, self.regs.rdx] = [value & 0xffff_ffff, value >> 32];
        self.emulate_wrmsr()
    }

    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_complete_emulated_msr`.
    pub(crate) fn complete_td_msr(&mut self, is_refused: bool) {
        if is_refused {
            self.set_return_code(Status::INVALID_OPERAND);
        } else if self.td.args.r11 == leaf::RDMSR {
            self.td.args.r11 = self.regs.rdx << 32 | self.regs.rax & 0xffff_ffff;
        }
    }
}

/// What KVM answers to a read by itself, for a TD. `None` leaves it to what is common to all guests.
///
/// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_get_msr`.
pub(crate) fn read_msr(index: u32) -> Option<Result<u64, MsrRefusal>> {
    match index {
        FEAT_CTL => Some(Ok(FEAT_CTL_LOCKED)),
        msr::EFER => Some(Ok(EFER)),
        MCG_EXT_CTL => Some(Err(MsrRefusal::Invalid)),
        _ => (!is_emulated(index)).then_some(Err(MsrRefusal::Invalid)),
    }
}

/// Whether a TD can write a register at all.
///
/// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_set_msr`.
pub(crate) fn is_writable(index: u32) -> bool {
    let is_read_only = matches!(index, APIC_BASE | msr::EFER | FEAT_CTL);
    index != MCG_EXT_CTL && !is_read_only && is_emulated(index)
}

/// The other registers are the TDX module's.
///
/// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_has_emulated_msr`.
const fn is_emulated(index: u32) -> bool {
    const MC0_CTL: u32 = 0x400;
    const MC0_CTL2: u32 = 0x280;
    const MC_END: u32 = MC0_CTL + 4 * MCE_BANKS;
    const MC_CTL2_END: u32 = MC0_CTL2 + MCE_BANKS;
    match index {
        msr::IA32_UCODE_REV
        // IA32_ARCH_CAPABILITIES, IA32_POWER_CTL, IA32_TSC_DEADLINE, MSR_PLATFORM_INFO, MSR_MISC_FEATURES_ENABLES
        | 0x10a
        | 0x1fc
        | 0x6e0
        | 0xce
        | 0x140
        | msr::IA32_CR_PAT
        | msr::MTRRCAP
        | 0x200..=0x26f
        | msr::MTRR_DEF_TYPE
        | msr::IA32_MISC_ENABLE
        | APIC_BASE
        | msr::EFER
        | FEAT_CTL
        | msr::IA32_MCG_CAP
        | msr::IA32_MCG_STATUS
        // IA32_MCG_CTL
        | 0x17b
        | MCG_EXT_CTL
        // MSR_KVM_POLL_CONTROL
        | 0x4b56_4d05
        | MC0_CTL..MC_END
        | MC0_CTL2..MC_CTL2_END => true,
        0x800..=0x8ff => !is_virtualized_apic(index),
        _ => false,
    }
}

/// Registers of the local APIC that the processor virtualises: TPR, PPR, EOI, ISR, TMR and IRR.
const fn is_virtualized_apic(index: u32) -> bool {
    matches!(index, 0x808 | 0x80a | 0x80b | 0x810..=0x827)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registers_that_kvm_emulates_are_those_of_the_kernels_list() {
        let emulated = |from: u32, to: u32| (from..to).filter(|index| is_emulated(*index)).count();
        // Each by itself: 8b, 10a, 1fc, 277 (in the MTRRs), fe, 6e0, 1a0, ce, 140, 1b, 3a, 179, 17a, 17b, 4d0, 2ff.
        assert_eq!(emulated(0, 0x200), 12);
        assert_eq!(emulated(0x200, 0x280), 0x70 + 1);
        assert_eq!(emulated(0x280, 0x300), 32 + 1);
        assert_eq!(emulated(0x300, 0x800), 4 * 32 + 2);
        assert_eq!(emulated(0x800, 0x900), 0x100 - 3 - 24);
        assert!(is_emulated(0xc000_0080) && is_emulated(0x4b56_4d05));
        assert!(!is_emulated(0xc000_0081) && !is_emulated(0x10));
    }
}
