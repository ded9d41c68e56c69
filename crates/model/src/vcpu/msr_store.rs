//! The model-specific registers that KVM keeps for a guest on an AMD host, and which values it takes.
//!
//! Each is stored and has no other effect, except for those of the local APIC and of `XSAVE`. One that is not here is
//! unknown to KVM.

use super::cpuid::Cpuid;
use super::xstate;
use exeunt_abi::msr_index as msr;
use std::collections::BTreeMap;

/// Why KVM itself does not do an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MsrRefusal {
    /// The register is known and the access is not allowed.
    Invalid,
    /// `KVM_MSR_RET_UNSUPPORTED`.
    Unknown,
    /// `KVM_MSR_RET_FILTERED`.
    Filtered,
}

/// What a register takes.
enum Rule {
    /// Any value.
    Any,
    /// Any value; the other bits are dropped.
    Keeps(u64),
    /// Values without other bits.
    Only(u64),
    /// Canonical addresses.
    Canonical,
    /// Memory types, one in each byte.
    Types(&'static [u8]),
    /// Reads as this; writes are refused.
    ReadOnly(u64),
    /// Reads as this; writes do nothing.
    Ignored(u64),
    /// Writes do nothing; reads are refused.
    WriteOnly,
    /// As CPUID says.
    Efer,
    /// As CPUID says.
    TscAux,
    /// As CPUID says.
    Xss,
}

/// The memory types of a range: uncached, write-combining, write-through, write-protected, write-back.
const MTRR_TYPES: &[u8] = &[0, 1, 4, 5, 6];
/// The same, and uncached that a range can make write-combining.
const PAT_TYPES: &[u8] = &[0, 1, 4, 5, 6, 7];
/// Bits of a counter's selector that KVM drops.
const EVNTSEL_RESERVED: u64 = 0xffff_fff0_0028_0000;
/// `MONITOR` from user mode, and the lock of the TSC's frequency.
const HWCR_KEPT: u64 = 1 << 18 | 1 << 24;
/// Bits of HWCR that KVM ignores: cache flush filter, #IGNNE, TLB cache, and the lock of SMM.
const HWCR_IGNORED: u64 = 1 << 6 | 1 << 8 | 1 << 3 | 1 << 0;

/// The rule of a register, and its value after a reset.
///
/// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_get_msr_common` and `kvm_set_msr_common`, `svm/svm.c`, `svm_get_msr`
/// and `svm_set_msr`, `svm/pmu.c`, `mtrr.c`.
const fn rule(index: u32) -> Option<(Rule, u64)> {
    Some(match index {
        msr::IA32_TSC
        | msr::IA32_TSC_ADJUST
        | msr::KVM_WALL_CLOCK
        | msr::KVM_SYSTEM_TIME
        | msr::KVM_WALL_CLOCK_NEW
        | msr::KVM_SYSTEM_TIME_NEW
        | msr::IA32_SYSENTER_CS
        | msr::IA32_MCG_STATUS
        | msr::STAR
        | msr::VM_HSAVE_PA
        | 0x200..=0x20f => (Rule::Any, 0),
        msr::IA32_SYSENTER_ESP
        | msr::IA32_SYSENTER_EIP
        | msr::LSTAR
        | msr::CSTAR
        | msr::FS_BASE
        | msr::GS_BASE
        | msr::KERNEL_GS_BASE => (Rule::Canonical, 0),
        // Bits 4 and 5 are reserved, and bits 1 to 5; the rest is an address.
        msr::KVM_ASYNC_PF_EN => (Rule::Only(!0x30), 0),
        msr::KVM_STEAL_TIME => (Rule::Only(!0x3e), 0),
        msr::KVM_PV_EOI_EN => (Rule::Only(!0x2), 0),
        msr::KVM_POLL_CONTROL => (Rule::Only(0x1), 1),
        msr::KVM_ASYNC_PF_INT => (Rule::Only(0xff), 0),
        msr::KVM_ASYNC_PF_ACK => (Rule::Ignored(0), 0),
        msr::SYSCALL_MASK => (Rule::Keeps(0xffff_ffff), 0),
        // PEBS and BTS are not available.
        msr::IA32_MISC_ENABLE => (Rule::Any, 1 << 12 | 1 << 11),
        msr::IA32_DEBUGCTLMSR => (Rule::Only(0x3), 0),
        msr::MTRRCAP => (Rule::ReadOnly(0x508), 0),
        msr::MTRR_FIX64K_00000 | msr::MTRR_FIX16K_80000 | 0x259 | msr::MTRR_FIX4K_C0000..=0x26f => {
            (Rule::Types(MTRR_TYPES), 0)
        }
        msr::MTRR_DEF_TYPE => (Rule::Only(0xcff), 0),
        msr::IA32_CR_PAT => (Rule::Types(PAT_TYPES), 0x0007_0406_0007_0406),
        msr::IA32_MCG_CAP => (Rule::ReadOnly(32), 0),
        msr::IA32_UCODE_REV => (Rule::Ignored(0x0100_0065), 0),
        msr::IA32_UCODE_WRITE | msr::AMD64_PATCH_LOADER => (Rule::WriteOnly, 0),
        msr::AMD64_NB_CFG | msr::AMD64_BU_CFG2 | msr::AMD64_DC_CFG | msr::AMD64_TW_CFG | msr::F15H_EX_CFG => {
            (Rule::Ignored(0), 0)
        }
        msr::AMD64_SYSCFG => (Rule::ReadOnly(0), 0),
        msr::FAM10H_MMIO_CONF_BASE => (Rule::Only(0), 0),
        msr::K7_HWCR => (Rule::Keeps(HWCR_KEPT), 0),
        msr::K7_EVNTSEL0..=0xc001_0003 => (Rule::Keeps(!EVNTSEL_RESERVED), 0),
        msr::K7_PERFCTR0..=0xc001_0007 => (Rule::Keeps(COUNTER_MASK), 0),
        msr::EFER => (Rule::Efer, 0),
        msr::TSC_AUX => (Rule::TscAux, 0),
        msr::IA32_XSS => (Rule::Xss, 0),
        _ => return None,
    })
}

/// Bits of a performance counter.
const COUNTER_MASK: u64 = (1 << 48) - 1;
/// Performance counters of a guest.
const COUNTERS: u32 = 4;

/// The registers of one vCPU that differ from their value after a reset.
#[derive(Clone, Debug, Default)]
pub(crate) struct MsrStore {
    values: BTreeMap<u32, u64>,
}

impl MsrStore {
    /// KVM has the register.
    pub(crate) const fn knows(index: u32) -> bool {
        rule(index).is_some()
    }

    pub(crate) fn get(&self, index: u32, cpuid: &Cpuid) -> Result<u64, MsrRefusal> {
        let (rule, reset) = rule(index).ok_or(MsrRefusal::Unknown)?;
        match rule {
            Rule::ReadOnly(value) | Rule::Ignored(value) => Ok(value),
            Rule::WriteOnly => Err(MsrRefusal::Unknown),
            Rule::TscAux if !has_tsc_aux(cpuid) => Err(MsrRefusal::Invalid),
            Rule::Xss if !has_xsaves(cpuid) => Err(MsrRefusal::Invalid),
            _ => Ok(self.values.get(&index).copied().unwrap_or(reset)),
        }
    }

    pub(crate) fn set(&mut self, index: u32, value: u64, cpuid: &Cpuid) -> Result<(), MsrRefusal> {
        let (rule, _) = rule(index).ok_or(MsrRefusal::Unknown)?;
        let (kept, is_valid) = match rule {
            Rule::Any => (value, true),
            Rule::Keeps(mask) if index == msr::K7_HWCR => (value & mask, value & !(mask | HWCR_IGNORED) == 0),
            Rule::Keeps(mask) => (value & mask, true),
            Rule::Only(mask) => (value, value & !mask == 0),
            Rule::Canonical => (value, is_canonical(value)),
            Rule::Types(types) => (value, value.to_le_bytes().iter().all(|byte| types.contains(byte))),
            Rule::ReadOnly(_) => (value, false),
            Rule::Ignored(_) | Rule::WriteOnly => return Ok(()),
            Rule::Efer => (value, value & !efer_bits(cpuid) == 0),
            Rule::TscAux => (value & 0xffff_ffff, has_tsc_aux(cpuid)),
            Rule::Xss => (value, has_xsaves(cpuid) && value & !supported_xss(cpuid) == 0),
        };
        if !is_valid {
            return Err(MsrRefusal::Invalid);
        }
        self.values.insert(index, kept);
        Ok(())
    }

    /// `RDPMC`: a counter. `None` where there is none. Nothing counts in the model, so it is what the guest wrote.
    pub(crate) fn counter(&self, number: u32) -> Option<u64> {
        let index = (number < COUNTERS).then(|| msr::K7_PERFCTR0.checked_add(number)).flatten()?;
        Some(self.values.get(&index).copied().unwrap_or(0))
    }
}

/// Whether bits 63:47 are all the same.
const fn is_canonical(address: u64) -> bool {
    let high = address >> 47;
    high == 0 || high == u64::MAX >> 47
}

/// `SCE` always; `LME` and `LMA`, `NX` and `FFXSR` if CPUID shows them.
fn efer_bits(cpuid: &Cpuid) -> u64 {
    let features = cpuid.register(0x8000_0001, 0, 3);
    let if_shown = |bit: u32, efer: u64| if features >> bit & 1 == 1 { efer } else { 0 };
    1 << 0 | if_shown(29, 1 << 8 | 1 << 10) | if_shown(20, 1 << 11) | if_shown(25, 1 << 14)
}

/// CPUID shows `RDTSCP` or `RDPID`.
fn has_tsc_aux(cpuid: &Cpuid) -> bool {
    cpuid.register(0x8000_0001, 0, 3) >> 27 & 1 == 1 || cpuid.register(7, 0, 2) >> 22 & 1 == 1
}

/// CPUID shows `XSAVES`.
fn has_xsaves(cpuid: &Cpuid) -> bool {
    cpuid.register(0xd, 1, 0) & xstate::CPUID_XSAVES != 0
}

/// Supervisor state that CPUID shows and the host has.
fn supported_xss(cpuid: &Cpuid) -> u64 {
    let [low, high] = [2, 3].map(|register| u64::from(cpuid.register(0xd, 1, register)));
    (high << 32 | low) & xstate::HOST_XSS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that a register may be given: each bit alone, and some others.
    fn values() -> impl Iterator<Item = u64> {
        (0..64).map(|bit| 1 << bit).chain([0, 0x0606_0606_0606_0606, 0x0707_0707_0707_0707, u64::MAX])
    }

    #[test]
    fn what_a_register_took_is_read_again_and_what_it_refused_changes_nothing() {
        let cpuid = Cpuid::default();
        for index in (0..0x1000).chain(0x4b56_4d00..0x4b56_4d10).chain(0xc000_0000..0xc001_2000) {
            let mut store = MsrStore::default();
            for value in values() {
                let before = store.get(index, &cpuid);
                match store.set(index, value, &cpuid) {
                    Ok(()) => {
                        let after = store.get(index, &cpuid);
                        assert!(after == before || after.is_ok_and(|now| now & !value == 0), "{index:#x}");
                    }
                    Err(_) => assert_eq!(store.get(index, &cpuid), before, "{index:#x}"),
                }
            }
        }
    }

    #[test]
    fn a_register_refuses_the_values_that_kvm_refuses() {
        let mut store = MsrStore::default();
        let cpuid = Cpuid::default();
        let refused: [(u32, u64); 10] = [
            (msr::MTRRCAP, 0x508),
            (msr::IA32_CR_PAT, 2),
            (msr::MTRR_FIX64K_00000, 7),
            (msr::MTRR_DEF_TYPE, 0x100),
            (msr::IA32_DEBUGCTLMSR, 4),
            (msr::LSTAR, 1 << 47),
            (msr::EFER, 1 << 11),
            (msr::TSC_AUX, 0),
            (msr::K7_HWCR, 1 << 1),
            (msr::FAM10H_MMIO_CONF_BASE, 1),
        ];
        for (index, value) in refused {
            assert_eq!(store.set(index, value, &cpuid), Err(MsrRefusal::Invalid), "{index:#x} := {value:#x}");
        }
        assert_eq!(store.set(0x1234, 0, &cpuid), Err(MsrRefusal::Unknown));
        assert_eq!(store.get(msr::IA32_UCODE_WRITE, &cpuid), Err(MsrRefusal::Unknown));
        assert_eq!(store.set(msr::IA32_UCODE_WRITE, 5, &cpuid), Ok(()));
        assert_eq!(store.set(msr::LSTAR, 0xffff_8000_0000_0000, &cpuid), Ok(()));
    }
}
