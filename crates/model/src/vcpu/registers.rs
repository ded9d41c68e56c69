//! The registers of an x86 vCPU as KVM holds them, and what their ioctls check.
//!
//! Guests written as programs use few of them; they are here for the VMM, which sets, saves and restores them.

use crate::events::{Interrupt, request};
use crate::vcpu::xstate::HOST_XCR0;
use crate::vcpu::{MpState, Vcpu};
use exeunt_abi::Errno;
use exeunt_abi::kvm::regs::{
    DebugRegs, Dtable, Regs, SREGS2_FLAGS_PDPTRS_VALID, Segment, Sregs, Sregs2, SregsHead, XSAVE_BYTES,
};
use exeunt_abi::msr_index::EFER;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
/// CR0 after a reset: caches off, and the bit that reads as one.
const CR0_RESET: u64 = 0x6000_0010;
const CR4_PAE: u64 = 1 << 5;
/// The bits of CR4 that processors have.
const CR4_KNOWN: u64 = 0x03ff_7fff;
/// Bits of CR4 that need a feature: the bit, the leaf, the register of its answer counted from EAX, the feature's bit.
const CR4_FEATURES: [(u64, u32, usize, u32); 9] = [
    (1 << 11, 7, 2, 2),
    (1 << 12, 7, 2, 16),
    (1 << 13, 1, 2, 5),
    (1 << 16, 7, 1, 0),
    (1 << 17, 1, 2, 17),
    (1 << 18, 1, 2, 26),
    (1 << 20, 7, 1, 7),
    (1 << 21, 7, 1, 20),
    (1 << 22, 7, 2, 3),
];
/// The bits of CR8.
const CR8: u64 = 0xf;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NX: u64 = 1 << 11;
const EFER_SVME: u64 = 1 << 12;
const EFER_FFXSR: u64 = 1 << 14;
/// The bits of EFER that processors have.
const EFER_KNOWN: u64 = 1 | EFER_LME | EFER_LMA | EFER_NX | EFER_SVME | EFER_FFXSR;
/// Where a processor starts, relative to its code segment.
const RESET_RIP: u64 = 0xfff0;
/// `X86_EFLAGS_FIXED`.
pub(crate) const RFLAGS_FIXED: u64 = 1 << 1;
/// `X86_EFLAGS_IF`.
pub(crate) const RFLAGS_IF: u64 = 1 << 9;
/// What the ioctls of registers read and write.
#[derive(Clone, Debug)]
pub(crate) struct Registers {
    /// The processor that starts.
    pub(crate) is_bsp: bool,
    /// RAX, RBX, RCX, RDX, RSI and RIP are elsewhere: KVM hands them across the boundary, or a reset sets them.
    pub(crate) regs: Regs,
    pub(crate) sregs: SregsHead,
    pub(crate) debug: DebugRegs,
    pub(crate) xsave: Box<[u8; XSAVE_BYTES]>,
    pub(crate) pdptrs: [u64; 4],
    /// `KVM_GUESTDBG_*`.
    pub(crate) guest_debug: u32,
}

impl Registers {
    /// The state after a reset. `is_bsp` marks the processor that starts.
    ///
    /// Source: Intel "SDM volume 3", table 11-1 "IA-32 and Intel 64 Processor States Following Power-up, Reset, or
    /// INIT"; Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_reset`.
    pub(crate) fn after_reset(is_bsp: bool) -> Self {
        let data = Segment { limit: 0xffff, segment_type: 3, present: 1, s: 1, ..Segment::default() };
        let code = Segment { selector: 0xf000, base: 0xffff_0000, segment_type: 0xb, ..data };
        let table = Dtable { limit: 0xffff, ..Dtable::default() };
        let system = |segment_type| Segment { s: 0, segment_type, ..data };
        let sregs = SregsHead {
            cs: code,
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            tr: system(0xb),
            ldt: system(2),
            gdt: table,
            idt: table,
            cr0: CR0_RESET,
            ..SregsHead::default()
        };
        let regs = Regs { rflags: RFLAGS_FIXED, ..Regs::default() };
        let debug = DebugRegs { dr6: 0xffff_0ff0, dr7: 0x400, ..DebugRegs::default() };
        let mut xsave = Box::new([0; XSAVE_BYTES]);
        // The control word of the x87, MXCSR and its mask, and what software finds of the components.
        for (at, word) in [(0, 0x037f), (24, 0x1f80), (28, 0xffff), (464, HOST_XCR0)] {
            xsave.iter_mut().skip(at).zip(word.to_le_bytes()).take(4).for_each(|(to, from)| *to = from);
        }
        Self { is_bsp, regs, sregs, debug, xsave, pdptrs: [0; 4], guest_debug: 0 }
    }
}

impl Registers {
    /// A startup interrupt: the code segment is at the page that its vector names.
    pub(crate) fn start_at(&mut self, vector: u8) {
        self.sregs.cs.selector = u16::from(vector) << 8;
        self.sregs.cs.base = u64::from(vector) << 12;
    }

    /// After an INIT, which leaves the caches and the extended state as they are.
    pub(crate) fn init(&mut self) {
        let cr0 = self.sregs.cr0 & (CR0_CD | CR0_NW) | CR0_ET;
        let reset = Self::after_reset(self.is_bsp);
        self.sregs = SregsHead { cr0, ..reset.sregs };
        self.regs = reset.regs;
        self.debug = reset.debug;
    }
}

impl crate::vcpu::Regs {
    /// A processor of which CPUID says nothing: its signature is in RDX.
    pub(crate) const AFTER_RESET: Self =
        Self { rax: 0, rbx: 0, rcx: 0, rdx: 0x600, rsi: 0, rip: RESET_RIP, cpl: 0 };
}

/// What a vCPU's CPUID allows.
impl Vcpu {
    fn has_feature(&self, function: u32, register: usize, bit: u32) -> bool {
        self.cpuid.register(function, 0, register) >> bit & 1 == 1
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_valid_efer`.
    pub(crate) fn is_valid_efer(&self, efer: u64) -> bool {
        let needs = [(EFER_FFXSR, 3, 25), (EFER_SVME, 2, 2), (EFER_LME | EFER_LMA, 3, 29), (EFER_NX, 3, 20)];
        efer & !EFER_KNOWN == 0
            && needs
                .into_iter()
                .all(|(bits, register, bit)| efer & bits == 0 || self.has_feature(0x8000_0001, register, bit))
    }

    fn is_valid_cr4(&self, cr4: u64) -> bool {
        let allows = |(bit, leaf, register, feature): (u64, u32, usize, u32)| {
            // The features are looked at once the VMM has given a table.
            cr4 & bit == 0 || self.cpuid.find(0, 0).is_none() || self.has_feature(leaf, register, feature)
        };
        cr4 & !CR4_KNOWN == 0 && CR4_FEATURES.into_iter().all(allows)
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_is_valid_sregs`.
    fn check_sregs(&self, sregs: &SregsHead) -> Result<(), Errno> {
        let is_long = sregs.efer & EFER_LME != 0 && sregs.cr0 & CR0_PG != 0;
        let mode_fits = if is_long {
            sregs.cr4 & CR4_PAE != 0
                && sregs.efer & EFER_LMA != 0
                && sregs.cr3 & self.cpuid.reserved_address_bits() == 0
        } else {
            sregs.efer & EFER_LMA == 0 && sregs.cs.l == 0
        };
        let cr0_fits = sregs.cr0 >> 32 == 0
            && (sregs.cr0 & CR0_NW == 0 || sregs.cr0 & CR0_CD != 0)
            && (sregs.cr0 & CR0_PG == 0 || sregs.cr0 & CR0_PE != 0);
        if !mode_fits || !self.is_valid_cr4(sregs.cr4) || !cr0_fits || !self.is_valid_efer(sregs.efer) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
}

/// PAE paging without long mode, which has page directory pointers of its own.
const fn is_pae_paging(sregs: &SregsHead) -> bool {
    sregs.cr0 & CR0_PG != 0 && sregs.cr4 & CR4_PAE != 0 && sregs.efer & EFER_LMA == 0
}

impl Vcpu {
    /// The general registers, with those that KVM hands across the boundary.
    pub(crate) fn general_registers(&self) -> Regs {
        let crate::vcpu::Regs { rax, rbx, rcx, rdx, rsi, rip, .. } = self.regs;
        Regs { rax, rbx, rcx, rdx, rsi, rip, ..self.registers.regs }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/regs.c`, `__set_regs`.
    pub(crate) fn set_general_registers(&mut self, regs: &Regs) {
        self.registers.regs = Regs { rflags: regs.rflags | RFLAGS_FIXED, ..*regs };
        self.regs = crate::vcpu::Regs {
            rax: regs.rax,
            rbx: regs.rbx,
            rcx: regs.rcx,
            rdx: regs.rdx,
            rsi: regs.rsi,
            rip: regs.rip,
            ..self.regs
        };
        self.events.exception.pending = false;
        self.events.exiting.pending = false;
        self.events.request(request::EVENT);
    }

    /// CR8: the task priority of the local APIC, wherever that is.
    pub(crate) fn cr8(&self) -> u64 {
        if self.has_apic() { u64::from(self.apic.task_priority() >> 4) } else { self.registers.sregs.cr8 }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/regs.c`, `kvm_set_cr8`.
    pub(crate) fn set_cr8(&mut self, cr8: u64) -> Result<(), Errno> {
        if cr8 & !CR8 != 0 {
            return Err(Errno::EINVAL);
        }
        self.registers.sregs.cr8 = cr8;
        if self.has_apic() {
            self.apic.set_task_priority(u32::try_from(cr8 << 4).unwrap_or(0));
        }
        Ok(())
    }

    /// The part of `KVM_SET_SREGS` and `KVM_SET_SREGS2` that is the same. A CR8 that is no CR8 is dropped.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/regs.c`, `__set_sregs_common`.
    pub(crate) fn set_special_registers(&mut self, sregs: &SregsHead) -> Result<(), Errno> {
        self.check_sregs(sregs)?;
        self.write_apic_base(sregs.apic_base, false).map_err(|_| Errno::EINVAL)?;
        if self.is_stale() {
            return Ok(());
        }
        let before = self.cr8();
        self.registers.sregs = SregsHead { cr8: before, ..*sregs };
        // One that is no CR8 is dropped.
        let _ = self.set_cr8(sregs.cr8);
        // The guest reads it as a register of its own; it has been judged.
        let _ = self.msrs.set(EFER, sregs.efer, &self.cpuid);
        self.events.cr2 = sregs.cr2;
        self.cr4 = sregs.cr4;
        let at_reset_vector = sregs.cs.selector == 0xf000 && sregs.cs.base == 0xffff_0000;
        let is_bsp = self.registers.is_bsp;
        if is_bsp && self.regs.rip == RESET_RIP && at_reset_vector && sregs.cr0 & CR0_PE == 0 {
            // Older userspace does not say so itself.
            self.peer.set_mp_state(MpState::Runnable);
        }
        Ok(())
    }

    /// `KVM_SET_SREGS`: the lowest bit of the bitmap is an interrupt to inject.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/regs.c`, `__set_sregs`.
    pub(crate) fn set_sregs(&mut self, sregs: &Sregs) -> Result<(), Errno> {
        self.set_special_registers(&sregs.head)?;
        let words = sregs.interrupt_bitmap.iter().zip([0u8, 64, 128, 192]);
        let lowest = words.map(|(word, base)| (word.trailing_zeros(), base)).find(|(bit, _)| *bit < 64);
        if let Some((bit, base)) = lowest {
            let nr = base.saturating_add(u8::try_from(bit).unwrap_or(0));
            self.events.interrupt = Interrupt { injected: true, soft: false, nr };
            self.events.request(request::EVENT);
        }
        Ok(())
    }

    /// `KVM_GET_SREGS`.
    pub(crate) fn sregs(&self) -> Sregs {
        let (cr2, cr8, apic_base) = (self.events.cr2, self.cr8(), self.apic.base);
        let head = SregsHead { cr2, cr4: self.cr4, cr8, apic_base, ..self.registers.sregs };
        let mut interrupt_bitmap = [0; 4];
        let Interrupt { injected, soft, nr } = self.events.interrupt;
        if injected && !soft {
            if let Some(word) = interrupt_bitmap.get_mut(usize::from(nr) / 64) {
                *word = 1 << (nr % 64);
            }
        }
        Sregs { head, interrupt_bitmap }
    }

    /// `KVM_GET_SREGS2`.
    pub(crate) fn sregs2(&self) -> Sregs2 {
        let head = self.sregs().head;
        if !is_pae_paging(&head) {
            return Sregs2 { head, ..Sregs2::default() };
        }
        Sregs2 { head, flags: SREGS2_FLAGS_PDPTRS_VALID, pdptrs: self.registers.pdptrs }
    }

    /// `KVM_SET_SREGS2`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/regs.c`, `kvm_vcpu_ioctl_x86_set_sregs2`.
    pub(crate) fn set_sregs2(&mut self, sregs: &Sregs2) -> Result<(), Errno> {
        let has_pdptrs = sregs.flags & SREGS2_FLAGS_PDPTRS_VALID != 0;
        if sregs.flags & !SREGS2_FLAGS_PDPTRS_VALID != 0
            || (has_pdptrs && (!is_pae_paging(&sregs.head) || self.is_stale()))
        {
            return Err(Errno::EINVAL);
        }
        self.set_special_registers(&sregs.head)?;
        if has_pdptrs {
            self.registers.pdptrs = sregs.pdptrs;
        }
        Ok(())
    }
}
