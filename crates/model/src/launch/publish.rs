//! What the launch sees of a vCPU's registers, which only the vCPU's thread holds.

use super::{SaveArea, Segment};
use crate::vcpu::Vcpu;
use exeunt_abi::kvm::regs::{self, Dtable, SregsHead};
use exeunt_abi::vmsa::{self, Field};

/// `EFER.SVME`, which every guest of SVM has.
const EFER_SVME: u64 = 1 << 12;
/// `CR0.NW` and `CR0.CD`, which KVM clears for guests.
const CR0_NW_CD: u64 = 3 << 29;
/// `CR4.MCE`, which guests of SVM have as their host has it.
const CR4_MCE: u64 = 1 << 6;
/// DR7 without a breakpoint.
const DR7_FIXED: u64 = 0x400;
/// Offsets in the XSAVE area.
const FCW: usize = 0;
const MXCSR: usize = 24;
const XMM: usize = 160;

impl Vcpu {
    /// After an ioctl has written registers: the VMSA will be made from these.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_es_sync_vmsa`.
    pub(crate) fn publish_registers(&self) {
        if !self.is_es {
            return;
        }
        let debugged = self.registers.guest_debug != 0 || self.registers.debug.dr7 & !DR7_FIXED != 0;
        let area = self.save_area();
        self.vm.lock().sev.publish(self.id(), area, debugged);
    }

    fn save_area(&self) -> SaveArea {
        let mut area = SaveArea::default();
        set_segments(&mut area, &self.registers.sregs);
        let (regs, sregs) = (self.general_registers(), &self.registers.sregs);
        let values = [
            (vmsa::CR0, sregs.cr0 & !CR0_NW_CD),
            (vmsa::CR2, sregs.cr2),
            (vmsa::CR3, sregs.cr3),
            (vmsa::CR4, sregs.cr4 | CR4_MCE),
            (vmsa::EFER, sregs.efer | EFER_SVME),
            (vmsa::DR6, self.events.dr6),
            (vmsa::DR7, self.registers.debug.dr7),
            (vmsa::RFLAGS, regs.rflags),
            (vmsa::RIP, regs.rip),
            (vmsa::RSP, regs.rsp),
            (vmsa::RAX, regs.rax),
            (vmsa::RBX, regs.rbx),
            (vmsa::RCX, regs.rcx),
            (vmsa::RDX, regs.rdx),
            (vmsa::RBP, regs.rbp),
            (vmsa::RSI, regs.rsi),
            (vmsa::RDI, regs.rdi),
            (vmsa::XCR0, self.xcr0),
            (vmsa::XSS, self.xss),
            (vmsa::X87_FCW, self.xsave_word(FCW)),
            (vmsa::MXCSR, self.xsave_word(MXCSR)),
        ];
        let high = [vmsa::R8, vmsa::R9, vmsa::R10, vmsa::R11, vmsa::R12, vmsa::R13, vmsa::R14, vmsa::R15];
        for (field, value) in values.into_iter().chain(high.into_iter().zip(regs.r8_to_r15)) {
            area.set(field, value);
        }
        let xmm = self.registers.xsave.get(XMM..).unwrap_or_default();
        area.set_bytes(vmsa::FPREG_XMM, xmm);
        area
    }

    fn xsave_word(&self, at: usize) -> u64 {
        let bytes = self.registers.xsave.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes).into())
    }
}

fn set_segments(area: &mut SaveArea, sregs: &SregsHead) {
    let segments = [
        (vmsa::ES, &sregs.es),
        (vmsa::CS, &sregs.cs),
        (vmsa::SS, &sregs.ss),
        (vmsa::DS, &sregs.ds),
        (vmsa::FS, &sregs.fs),
        (vmsa::GS, &sregs.gs),
        (vmsa::LDTR, &sregs.ldt),
        (vmsa::TR, &sregs.tr),
    ];
    for (field, segment) in segments {
        area.set_segment(field, in_save_area(segment));
    }
    let table = |area: &mut SaveArea, field: Field, table: Dtable| {
        let segment = Segment { selector: 0, attributes: 0, limit: table.limit.into(), base: table.base };
        area.set_segment(field, segment);
    };
    table(area, vmsa::GDTR, sregs.gdt);
    table(area, vmsa::IDTR, sregs.idt);
}

/// Source: Linux v7.2 `arch/x86/kvm/svm/svm.c`, `svm_set_segment`.
fn in_save_area(segment: &regs::Segment) -> Segment {
    let bit = |value: u8, at: u16| u16::from(value & 1) << at;
    let present = segment.present & 1 == 1 && segment.unusable == 0;
    let attributes = u16::from(segment.segment_type & 0xf)
        | bit(segment.s, 4)
        | u16::from(segment.dpl & 3) << 5
        | bit(present.into(), 7)
        | bit(segment.avl, 8)
        | bit(segment.l, 9)
        | bit(segment.db, 10)
        | bit(segment.g, 11);
    Segment { selector: segment.selector, attributes, limit: segment.limit, base: segment.base }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kvm, Vm};
    use exeunt_abi::kvm::regs::Regs;
    use exeunt_abi::kvm::vm_type::VmType;

    fn vcpu() -> (Vm, Vcpu) {
        let vm = Kvm::default().create_vm(VmType::Snp).unwrap();
        vm.sev_init2(0).unwrap();
        let vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        (vm, vcpu)
    }

    #[test]
    fn registers_after_a_reset_make_the_save_area_of_a_vcpu_that_nobody_touched() {
        let (_, vcpu) = vcpu();
        let expected = SaveArea::default();
        let mut got = vcpu.save_area();
        // Linux after a reset has 0x600 or the processor's signature in RDX.
        got.set(vmsa::RDX, 0);
        for field in vmsa::FIELDS.iter().filter(|field| field.bytes <= 8) {
            assert_eq!(got.get(*field), expected.get(*field), "{}", field.name);
        }
    }

    #[test]
    fn what_an_ioctl_writes_is_measured_until_the_registers_are_encrypted() {
        let (vm, mut vcpu) = vcpu();
        let regs = Regs { rdx: 0xa0_0f11, rip: 0x1234, rsp: 0x5678, ..Regs::default() };
        vcpu.set_general_registers(&regs);
        vcpu.publish_registers();
        let area = vm.lock().sev.vcpus[&0].area.clone();
        assert_eq!(
            (area.get(vmsa::RDX), area.get(vmsa::RIP), area.get(vmsa::RSP)),
            (0xa0_0f11, 0x1234, 0x5678)
        );
        vcpu.registers.guest_debug = 1;
        vcpu.publish_registers();
        assert!(vm.lock().sev.sync_vmsa(0).is_err(), "a debugged vCPU cannot be launched");
        vcpu.registers.guest_debug = 0;
        vcpu.publish_registers();
        vm.launch().unwrap();
        vcpu.set_general_registers(&Regs::default());
        vcpu.publish_registers();
        assert_eq!(vm.lock().sev.vcpus[&0].area, area);
    }
}
