//! The registers of the local APIC, as the guest reaches them in x2APIC mode.

use super::Ipi;
use crate::vcpu::Vcpu;
use crate::vcpu::msr_store::MsrRefusal;
use std::collections::BTreeMap;

/// `APIC_DEFAULT_PHYS_BASE`.
const DEFAULT_BASE: u64 = 0xfee0_0000;
/// `MSR_IA32_APICBASE_BSP`.
const BASE_BSP: u64 = 1 << 8;
/// `X2APIC_ENABLE`.
const BASE_X2APIC: u64 = 1 << 10;
/// `MSR_IA32_APICBASE_ENABLE`.
const BASE_ENABLE: u64 = 1 << 11;
/// Bits that are reserved below the address.
const BASE_RESERVED: u64 = 0x2ff;
/// Reserved bits of the interrupt command register: `X2APIC_ICR_RESERVED_BITS`.
const ICR_RESERVED: u64 = 0xfff0_0000 | 0x3 << 16 | 1 << 13;
/// `APIC_ICR_BUSY`, which x2APIC mode does not have.
const ICR_BUSY: u64 = 1 << 12;
/// The software enable of the spurious interrupt vector register.
const SPIV_ENABLED: u32 = 1 << 8;

/// Vector, software enable and focus check of the same register.
const SPIV_BITS: u32 = 0x3ff;

/// Numbers of the registers: their address in the page divided by 16.
mod number {
    pub(super) const ID: u32 = 0x02;
    pub(super) const VERSION: u32 = 0x03;
    pub(super) const TASK_PRIORITY: u32 = 0x08;
    pub(super) const PROCESSOR_PRIORITY: u32 = 0x0a;
    pub(super) const EOI: u32 = 0x0b;
    pub(super) const LOGICAL_ID: u32 = 0x0d;
    pub(super) const SPURIOUS: u32 = 0x0f;
    pub(super) const IN_SERVICE: u32 = 0x10;
    pub(super) const REQUESTED: u32 = 0x20;
    pub(super) const ERROR_STATUS: u32 = 0x28;
    pub(super) const INTERRUPT_COMMAND: u32 = 0x30;
    pub(super) const LVT_TIMER: u32 = 0x32;
    pub(super) const LVT_ERROR: u32 = 0x37;
    pub(super) const TIMER_INITIAL: u32 = 0x38;
    pub(super) const TIMER_CURRENT: u32 = 0x39;
    pub(super) const TIMER_DIVIDE: u32 = 0x3e;
    pub(super) const SELF_IPI: u32 = 0x3f;
}

/// The number of the command register's upper half, which x2APIC mode does not have.
const INTERRUPT_COMMAND_HIGH: u32 = 0x31;

/// The masked bit of a local vector, as after a reset.
const LVT_MASKED: u32 = 1 << 16;
/// The version that KVM shows: 0x14, with 6 local vectors.
const VERSION: u32 = 0x14 | 5 << 16;

/// The registers of one local APIC.
#[derive(Clone, Debug, Default)]
pub(crate) struct ApicRegisters {
    /// `MSR_IA32_APICBASE`.
    pub(crate) base: u64,
    interrupt_command: u64,
    spurious: u32,
    /// What is stored and has no effect in the model.
    others: BTreeMap<u32, u32>,
    /// Interrupts that came and were not delivered: a bit for each vector.
    pub(super) requested: [u64; 4],
    /// `pv_unhalted`.
    pub(super) unhalted: bool,
}

impl ApicRegisters {
    /// After a reset of the processor.
    pub(crate) fn after_reset(is_bsp: bool) -> Self {
        let base = DEFAULT_BASE | BASE_ENABLE | if is_bsp { BASE_BSP } else { 0 };
        Self { base, spurious: 0xff, ..Self::default() }
    }

    /// After an INIT, which leaves the mode alone.
    pub(super) fn init(&mut self) {
        *self = Self { base: self.base, ..Self::after_reset(false) };
    }

    pub(crate) const fn is_unhalted(&self) -> bool {
        self.unhalted
    }

    /// The processor runs again.
    pub(crate) const fn halt_is_over(&mut self) {
        self.unhalted = false;
    }

    const fn is_x2apic(&self) -> bool {
        self.base & (BASE_ENABLE | BASE_X2APIC) == BASE_ENABLE | BASE_X2APIC
    }

    /// The task priority.
    pub(crate) fn task_priority(&self) -> u32 {
        self.others.get(&number::TASK_PRIORITY).copied().unwrap_or(0)
    }

    pub(crate) fn set_task_priority(&mut self, priority: u32) {
        self.others.insert(number::TASK_PRIORITY, priority & 0xff);
    }

    /// Writes the registers into the APIC's page; what the model does not keep stays as it is there.
    pub(crate) fn write_page(&self, page: &mut [u8]) {
        let [low, high] = halves(self.interrupt_command);
        let commands = [(number::INTERRUPT_COMMAND, low), (INTERRUPT_COMMAND_HIGH, high)];
        let requested = self.requested.iter().flat_map(|word| halves(*word));
        let fixed = [(number::SPURIOUS, self.spurious), (number::TASK_PRIORITY, self.task_priority())];
        let registers = fixed
            .into_iter()
            .chain(commands)
            .chain((number::REQUESTED..).zip(requested))
            .chain(self.others.iter().map(|(number, word)| (*number, *word)));
        for (number, word) in registers {
            let at = usize::try_from(number << 4).unwrap_or(usize::MAX);
            page.iter_mut().skip(at).zip(word.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
    }

    /// Takes the registers over from the APIC's page. Returns whether the APIC is enabled.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/lapic.c`, `kvm_apic_set_state`.
    pub(crate) fn read_page(&mut self, page: &[u8]) -> bool {
        let word = |number: u32| {
            let at = usize::try_from(number << 4).unwrap_or(usize::MAX);
            page.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
        };
        self.spurious = word(number::SPURIOUS) & SPIV_BITS;
        self.interrupt_command =
            u64::from(word(INTERRUPT_COMMAND_HIGH)) << 32 | u64::from(word(number::INTERRUPT_COMMAND));
        self.set_task_priority(word(number::TASK_PRIORITY));
        let kept =
            (number::LVT_TIMER..=number::LVT_ERROR).chain([number::TIMER_INITIAL, number::TIMER_DIVIDE]);
        self.others.extend(kept.map(|number| (number, word(number))));
        for (requested, first) in self.requested.iter_mut().zip((number::REQUESTED..).step_by(2)) {
            *requested = u64::from(word(first | 1)) << 32 | u64::from(word(first));
        }
        self.spurious & SPIV_ENABLED != 0
    }

    /// The interrupt with the highest priority, taken.
    pub(super) fn take_interrupt(&mut self) -> Option<u8> {
        let (index, word) = self.requested.iter_mut().enumerate().rev().find(|(_, word)| **word != 0)?;
        let bit = 63u32.saturating_sub(word.leading_zeros());
        *word &= !(1 << bit);
        u8::try_from(index.saturating_mul(64).saturating_add(bit as usize)).ok()
    }
}

/// The low and the high half of a word.
fn halves(word: u64) -> [u32; 2] {
    [word, word >> 32].map(crate::vcpu::low)
}

impl Vcpu {
    /// `RDMSR` of a register of the local APIC.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/lapic.c`, `kvm_x2apic_msr_read`.
    pub(crate) fn read_x2apic(&self, number: u32) -> Result<u64, MsrRefusal> {
        if !self.has_apic() || !self.apic.is_x2apic() {
            return Err(MsrRefusal::Invalid);
        }
        let id = self.id();
        let word = |first: u32| {
            let index = usize::try_from(number.wrapping_sub(first)).unwrap_or_default();
            let word = self.apic.requested.get(index >> 1).copied().unwrap_or(0);
            word >> (32 * (index & 1)) & 0xffff_ffff
        };
        Ok(match number {
            number::ID => id,
            number::VERSION => u64::from(VERSION),
            number::LOGICAL_ID => id >> 4 << 16 | 1 << (id & 15),
            number::SPURIOUS => u64::from(self.apic.spurious),
            number::INTERRUPT_COMMAND => self.apic.interrupt_command,
            number::REQUESTED..=0x27 => word(number::REQUESTED),
            // Interrupts are over as soon as they are delivered, and none is level-triggered. The timer stands.
            number::IN_SERVICE..number::REQUESTED
            | number::PROCESSOR_PRIORITY
            | number::ERROR_STATUS
            | number::TIMER_CURRENT => 0,
            number::LVT_TIMER..=number::LVT_ERROR => {
                u64::from(self.apic.others.get(&number).copied().unwrap_or(LVT_MASKED))
            }
            number::TASK_PRIORITY | number::TIMER_INITIAL | number::TIMER_DIVIDE => {
                u64::from(self.apic.others.get(&number).copied().unwrap_or(0))
            }
            _ => return Err(MsrRefusal::Invalid),
        })
    }

    /// `WRMSR` of a register of the local APIC.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/lapic.c`, `kvm_x2apic_msr_write` and `kvm_lapic_reg_write`.
    pub(crate) fn write_x2apic(&mut self, number: u32, value: u64) -> Result<(), MsrRefusal> {
        if !self.has_apic() || !self.apic.is_x2apic() {
            return Err(MsrRefusal::Invalid);
        }
        if number == number::INTERRUPT_COMMAND {
            if value & ICR_RESERVED != 0 {
                return Err(MsrRefusal::Invalid);
            }
            self.apic.interrupt_command = value & !ICR_BUSY;
            self.did(|| format!("sends an interrupt, ICR {value:#x}"));
            self.vm.deliver(&Ipi::from_icr(value), Some(self.id()));
            return Ok(());
        }
        let word = u32::try_from(value).map_err(|_| MsrRefusal::Invalid)?;
        match number {
            number::TASK_PRIORITY => self.store(number, word & 0xff),
            number::EOI | number::ERROR_STATUS if word == 0 => {}
            number::SPURIOUS => {
                self.apic.spurious = word & SPIV_BITS;
                self.peer.enable_apic(word & SPIV_ENABLED != 0);
            }
            number::LVT_TIMER..=number::LVT_ERROR | number::TIMER_INITIAL | number::TIMER_DIVIDE => {
                self.store(number, word);
            }
            number::SELF_IPI => {
                let vector = u8::try_from(word).map_err(|_| MsrRefusal::Invalid)?;
                self.vm.deliver(&Ipi::to_self(vector), Some(self.id()));
            }
            _ => return Err(MsrRefusal::Invalid),
        }
        Ok(())
    }

    fn store(&mut self, number: u32, word: u32) {
        self.apic.others.insert(number, word);
    }

    /// `WRMSR` of `MSR_IA32_APICBASE`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/lapic.c`, `kvm_apic_set_base`.
    pub(crate) fn write_apic_base(&mut self, value: u64, by_guest: bool) -> Result<(), MsrRefusal> {
        let shows_x2apic = self.cpuid.register(1, 0, 2) >> 21 & 1 == 1;
        let reserved =
            BASE_RESERVED | self.cpuid.reserved_address_bits() | if shows_x2apic { 0 } else { BASE_X2APIC };
        let enabled = |base: u64| base & (BASE_ENABLE | BASE_X2APIC);
        let (old, new) = (enabled(self.apic.base), enabled(value));
        if value & reserved != 0 || new == BASE_X2APIC {
            return Err(MsrRefusal::Invalid);
        }
        let both = BASE_ENABLE | BASE_X2APIC;
        if by_guest && (old == both && new == BASE_ENABLE || old == 0 && new == both) {
            return Err(MsrRefusal::Invalid);
        }
        self.apic.base = value;
        Ok(())
    }

    /// The number of an x2APIC register that a model-specific register is.
    pub(crate) const fn x2apic_number(index: u32) -> Option<u32> {
        match index {
            0x800..=0x8ff => Some(index & 0xff),
            _ => None,
        }
    }
}
