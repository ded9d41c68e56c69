//! Machine checks that userspace reports to a vCPU.

use super::{Exception, Vector, request};
use crate::vcpu::Vcpu;
use exeunt_abi::Errno;
use exeunt_abi::msr_index as msr;

/// An error that userspace reports: `struct kvm_x86_mce`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineCheck {
    /// `IA32_MCi_STATUS`.
    pub status: u64,
    /// `IA32_MCi_ADDR`.
    pub addr: u64,
    /// `IA32_MCi_MISC`.
    pub misc: u64,
    /// `IA32_MCG_STATUS`.
    pub mcg_status: u64,
    /// The bank.
    pub bank: u8,
}

/// `IA32_MCG_CAP`, `IA32_MCG_STATUS` and `IA32_MCi_STATUS`, bit by bit.
///
/// Source: Linux v7.2 `arch/x86/include/asm/mce.h`; Intel "SDM volume 3", chapter 17 "Machine-Check Architecture".
mod bits {
    /// There is a control register for all banks.
    pub(super) const CAP_CTL_P: u64 = 1 << 8;
    /// Corrected errors can interrupt.
    pub(super) const CAP_CMCI_P: u64 = 1 << 10;
    /// Software can recover.
    pub(super) const CAP_SER_P: u64 = 1 << 24;
    /// An error can be reported to one processor.
    pub(super) const CAP_LMCE_P: u64 = 1 << 27;
    /// A machine check is being handled.
    pub(super) const MCG_STATUS_MCIP: u64 = 1 << 2;
    /// Software has to act.
    pub(super) const STATUS_AR: u64 = 1 << 55;
    /// Signalled as an exception.
    pub(super) const STATUS_S: u64 = 1 << 56;
    /// The processor's context is corrupt.
    pub(super) const STATUS_PCC: u64 = 1 << 57;
    /// The error was not corrected.
    pub(super) const STATUS_UC: u64 = 1 << 61;
    /// An earlier error was lost.
    pub(super) const STATUS_OVER: u64 = 1 << 62;
    /// The register holds an error.
    pub(super) const STATUS_VAL: u64 = 1 << 63;
}

/// `KVM_MAX_MCE_BANKS`.
const MAX_BANKS: usize = 32;
/// Bits of the capability register that hold the number of banks, and bits that KVM does not look at.
const BANK_COUNT: u64 = 0xff;
const NOT_CHECKED: u64 = 0xff_0000;
/// `MSR_IA32_MC0_CTL`, and the last register of the last bank.
const FIRST_BANK: u32 = 0x400;
const LAST_BANK: u32 = 0x47f;
/// The first two registers of a bank.
const CTL: usize = 0;
const STATUS: usize = 1;
/// `CR4.MCE`.
const CR4_MCE: u64 = 1 << 6;

/// The registers of machine checks.
#[derive(Clone, Debug)]
pub(crate) struct MachineChecks {
    /// `IA32_MCG_CAP`.
    cap: u64,
    /// `IA32_MCG_CTL`.
    ctl: u64,
    /// `IA32_MCG_STATUS`.
    status: u64,
    /// `IA32_MCi_CTL`, `STATUS`, `ADDR`, `MISC`.
    banks: [[u64; 4]; MAX_BANKS],
}

impl Default for MachineChecks {
    /// A vCPU that was just made. Its banks are off until `KVM_X86_SETUP_MCE`.
    fn default() -> Self {
        Self { cap: MAX_BANKS as u64, ctl: 0, status: 0, banks: [[0; 4]; MAX_BANKS] }
    }
}

impl MachineChecks {
    /// Whether a register is one of machine checks.
    pub(crate) const fn has(index: u32) -> bool {
        matches!(index, msr::IA32_MCG_CAP..=msr::IA32_MCG_CTL | FIRST_BANK..=LAST_BANK)
    }

    /// A register of machine checks. `None` for one of a bank that is not there, or a control register that is not.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `get_msr_mce`.
    pub(crate) fn read(&self, index: u32) -> Option<u64> {
        match index {
            msr::IA32_MCG_CAP => Some(self.cap),
            msr::IA32_MCG_STATUS => Some(self.status),
            msr::IA32_MCG_CTL => Some(self.ctl),
            _ => {
                let (bank, register) = Self::place(index);
                self.banks.get(..self.count())?.get(bank)?.get(register).copied()
            }
        }
    }

    /// Controls are all or nothing; of a bank's, two bits may be clear all the same, as old guests clear them.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `set_msr_mce`.
    pub(crate) fn write(&mut self, index: u32, value: u64, by_guest: bool) -> Option<()> {
        match index {
            msr::IA32_MCG_CAP => return None,
            msr::IA32_MCG_STATUS => self.status = value,
            msr::IA32_MCG_CTL if !matches!(value, 0 | u64::MAX) => return None,
            msr::IA32_MCG_CTL if self.cap & bits::CAP_CTL_P == 0 && (by_guest || value != 0) => return None,
            msr::IA32_MCG_CTL => self.ctl = value,
            _ => {
                let (bank, register) = Self::place(index);
                let refused = match register {
                    CTL => value != 0 && value | 1 << 10 | 1 != u64::MAX,
                    STATUS => by_guest && value != 0,
                    _ => false,
                };
                let count = self.count();
                let to = self.banks.get_mut(..count)?.get_mut(bank)?.get_mut(register)?;
                if refused {
                    return None;
                }
                *to = value;
            }
        }
        Some(())
    }

    fn count(&self) -> usize {
        usize::try_from(self.cap & BANK_COUNT).unwrap_or(0)
    }

    /// The bank of a register, and which of its four it is.
    fn place(index: u32) -> (usize, usize) {
        let offset = usize::try_from(index.saturating_sub(FIRST_BANK)).unwrap_or(usize::MAX);
        (offset / 4, offset % 4)
    }
}

impl Vcpu {
    /// `KVM_X86_SETUP_MCE`: turns the banks on.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_x86_setup_mce`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for no bank, more than 32, or a capability that the host does not have.
    pub fn setup_mce(&mut self, cap: u64) -> Result<(), Errno> {
        let count = usize::try_from(cap & BANK_COUNT).unwrap_or(usize::MAX);
        let supported = bits::CAP_CTL_P | bits::CAP_SER_P;
        let supported =
            if self.is_intel() { supported | bits::CAP_LMCE_P | bits::CAP_CMCI_P } else { supported };
        if count == 0 || count > MAX_BANKS || cap & !(supported | BANK_COUNT | NOT_CHECKED) != 0 {
            return Err(Errno::EINVAL);
        }
        let checks = &mut self.machine_checks;
        checks.cap = cap;
        if cap & bits::CAP_CTL_P != 0 {
            checks.ctl = u64::MAX;
        }
        for [ctl, ..] in checks.banks.iter_mut().take(count) {
            *ctl = u64::MAX;
        }
        Ok(())
    }

    /// `KVM_X86_SET_MCE`: an uncorrected error is an exception of the guest, or a triple fault where it cannot be one.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_x86_set_mce`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a bank that is not there, or a status that is not valid.
    pub fn set_mce(&mut self, mce: &MachineCheck) -> Result<(), Errno> {
        let checks = &mut self.machine_checks;
        let count = usize::try_from(checks.cap & BANK_COUNT).unwrap_or(0);
        let bank = checks.banks.get_mut(..count).and_then(|banks| banks.get_mut(usize::from(mce.bank)));
        let [ctl, status, addr, misc] = bank.ok_or(Errno::EINVAL)?;
        if mce.status & bits::STATUS_VAL == 0 {
            return Err(Errno::EINVAL);
        }
        let is_uncorrected = mce.status & bits::STATUS_UC != 0;
        let needs_action = mce.status & (bits::STATUS_PCC | bits::STATUS_S | bits::STATUS_AR) != 0;
        if is_uncorrected && mce.mcg_status == 0 && !needs_action {
            // Nothing is to be done about it, so it is no exception.
            (*status, *addr, *misc) = (mce.status, mce.addr, mce.misc);
            checks.status = 0;
            return Ok(());
        }
        let is_off = checks.cap & bits::CAP_CTL_P != 0 && checks.ctl != u64::MAX || *ctl != u64::MAX;
        if is_uncorrected && is_off {
            return Ok(());
        }
        let was_valid = *status & bits::STATUS_VAL != 0;
        let overflow = if was_valid { bits::STATUS_OVER } else { 0 };
        if is_uncorrected {
            if checks.status & bits::MCG_STATUS_MCIP != 0 || self.cr4 & CR4_MCE == 0 {
                self.events.request(request::TRIPLE_FAULT);
                return Ok(());
            }
            (*status, *addr, *misc) = (mce.status | overflow, mce.addr, mce.misc);
            checks.status = mce.mcg_status;
            self.queue_exception(Exception { nr: Vector::MC, ..Exception::default() });
        } else if was_valid && *status & bits::STATUS_UC != 0 {
            *status |= bits::STATUS_OVER;
        } else {
            (*status, *addr, *misc) = (mce.status | overflow, mce.addr, mce.misc);
        }
        Ok(())
    }
}
