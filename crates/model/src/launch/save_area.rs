//! The save area of a vCPU: the registers that its VMSA is made from.

use exeunt_abi::vmsa::{self, Field, VMSA_BYTES};
use std::fmt;

/// A VMSA before it is encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct SaveArea(Box<[u8; VMSA_BYTES]>);

impl fmt::Debug for SaveArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |field: &&Field| {
            self.0.iter().skip(field.offset.into()).take(field.bytes.into()).any(|b| *b != 0)
        };
        f.debug_list().entries(vmsa::FIELDS.iter().filter(set).map(|field| field.name)).finish()
    }
}

impl Default for SaveArea {
    /// A vCPU after its reset as a VMM leaves it, in the boot loader's first instruction.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/svm.c`, `init_vmcb`, and `x86.c`, `kvm_vcpu_reset`; CR0, MXCSR and the x87
    /// control word are those that KVM and QEMU bring about.
    fn default() -> Self {
        let mut area = Self(Box::new([0; VMSA_BYTES]));
        let data = Segment { selector: 0, attributes: 0x93, limit: 0xffff, base: 0 };
        for field in [vmsa::ES, vmsa::SS, vmsa::DS, vmsa::FS, vmsa::GS] {
            area.set_segment(field, data);
        }
        area.set_segment(vmsa::CS, Segment { selector: 0xf000, attributes: 0x9b, base: 0xffff_0000, ..data });
        for (field, attributes) in [(vmsa::GDTR, 0), (vmsa::IDTR, 0), (vmsa::LDTR, 0x82), (vmsa::TR, 0x8b)] {
            area.set_segment(field, Segment { attributes, ..data });
        }
        let values = [
            (vmsa::EFER, 0x1000),
            (vmsa::CR4, 0x40),
            (vmsa::CR0, 0x10),
            (vmsa::DR7, 0x400),
            (vmsa::DR6, 0xffff_0ff0),
            (vmsa::RFLAGS, 2),
            (vmsa::RIP, 0xfff0),
            (vmsa::G_PAT, 0x0007_0406_0007_0406),
            (vmsa::XCR0, 1),
            (vmsa::MXCSR, 0x1f80),
            (vmsa::X87_FCW, 0x37f),
        ];
        for (field, value) in values {
            area.set(field, value);
        }
        area
    }
}

/// A segment as the save area holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// Type, S, DPL, P in the low byte; AVL, L, D, G in bits 11:8.
    pub attributes: u16,
    /// The limit in bytes.
    pub limit: u32,
    /// The base.
    pub base: u64,
}

impl SaveArea {
    /// The page.
    #[must_use]
    pub fn bytes(&self) -> &[u8; VMSA_BYTES] {
        &self.0
    }

    /// Sets a register: the low bytes of `value`, as many as the field has, at most 8.
    pub fn set(&mut self, field: Field, value: u64) {
        self.put(field, &value.to_le_bytes());
    }

    /// What a register holds, of which it has at most 8 bytes.
    #[must_use]
    pub fn get(&self, field: Field) -> u64 {
        let mut value = [0; 8];
        let bytes = self.0.iter().skip(field.offset.into()).take(field.bytes.into());
        value.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(value)
    }

    /// Sets a segment.
    pub fn set_segment(&mut self, field: Field, segment: Segment) {
        let Segment { selector, attributes, limit, base } = segment;
        let low = u64::from(selector) | u64::from(attributes) << 16 | u64::from(limit) << 32;
        self.put(field, &[low.to_le_bytes(), base.to_le_bytes()].concat());
    }

    /// Sets a field from its bytes.
    pub fn set_bytes(&mut self, field: Field, from: &[u8]) {
        self.put(field, from);
    }

    fn put(&mut self, field: Field, from: &[u8]) {
        let to = self.0.iter_mut().skip(field.offset.into()).take(field.bytes.into());
        to.zip(from).for_each(|(to, from)| *to = *from);
    }
}
