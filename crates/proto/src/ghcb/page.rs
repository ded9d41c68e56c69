//! The GHCB page, as a guest filled it.

use core::fmt;
use exeunt_abi::Gpa;
use exeunt_abi::ghcb::page::{self as at, FIELDS, Field, GHCB_BYTES};

/// What a copy of the page says. A register is there only if the guest set its bit in the bitmap.
///
/// Source: AMD 56421 revision 2.04, table 3; Linux v7.2 `arch/x86/include/asm/svm.h`, `struct ghcb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GhcbPage {
    /// Privilege level of the code that asks.
    pub cpl: Option<u8>,
    /// `IA32_XSS`.
    pub xss: Option<u64>,
    /// DR7.
    pub dr7: Option<u64>,
    /// RIP.
    pub rip: Option<u64>,
    /// RSP.
    pub rsp: Option<u64>,
    /// RAX.
    pub rax: Option<u64>,
    /// RCX.
    pub rcx: Option<u64>,
    /// RDX.
    pub rdx: Option<u64>,
    /// RBX.
    pub rbx: Option<u64>,
    /// RBP.
    pub rbp: Option<u64>,
    /// RSI.
    pub rsi: Option<u64>,
    /// RDI.
    pub rdi: Option<u64>,
    /// R8 to R15.
    pub r8_to_r15: [Option<u64>; 8],
    /// `SW_EXITCODE`.
    pub exit_code: Option<u64>,
    /// `SW_EXITINFO1`.
    pub exit_info_1: Option<u64>,
    /// `SW_EXITINFO2`.
    pub exit_info_2: Option<u64>,
    /// `SW_SCRATCH`: the scratch area.
    pub scratch: Option<Gpa>,
    /// XCR0.
    pub xcr0: Option<u64>,
    /// The bitmap, bit n for the quadword n of the page.
    pub valid_bitmap: u128,
    /// Where the x87 state lies. It has no bit.
    pub x87_state_gpa: Gpa,
    /// The version of the protocol that the guest says it speaks.
    pub protocol_version: u16,
    /// 0 for a page of this form.
    pub usage: u32,
}

impl GhcbPage {
    /// Decodes a copy of the page. Every page has a decoding; whether its request makes sense is not decided here.
    #[must_use]
    pub fn decode(bytes: &[u8; GHCB_BYTES]) -> Self {
        let valid_bitmap = u128::from_le_bytes(array(bytes, at::VALID_BITMAP));
        let get = |field: Field| {
            let is_valid = valid_bitmap & field.mask() != 0;
            is_valid.then(|| u64::from_le_bytes(array(bytes, u64::from(field.offset))))
        };
        let [cpl] = array(bytes, u64::from(at::CPL.offset));
        Self {
            cpl: (valid_bitmap & at::CPL.mask() != 0).then_some(cpl),
            xss: get(at::XSS),
            dr7: get(at::DR7),
            rip: get(at::RIP),
            rsp: get(at::RSP),
            rax: get(at::RAX),
            rcx: get(at::RCX),
            rdx: get(at::RDX),
            rbx: get(at::RBX),
            rbp: get(at::RBP),
            rsi: get(at::RSI),
            rdi: get(at::RDI),
            r8_to_r15: [at::R8, at::R9, at::R10, at::R11, at::R12, at::R13, at::R14, at::R15].map(get),
            exit_code: get(at::SW_EXIT_CODE),
            exit_info_1: get(at::SW_EXIT_INFO_1),
            exit_info_2: get(at::SW_EXIT_INFO_2),
            scratch: get(at::SW_SCRATCH).map(Gpa),
            xcr0: get(at::XCR0),
            valid_bitmap,
            x87_state_gpa: Gpa(u64::from_le_bytes(array(bytes, at::X87_STATE_GPA))),
            protocol_version: u16::from_le_bytes(array(bytes, at::PROTOCOL_VERSION)),
            usage: u32::from_le_bytes(array(bytes, at::GHCB_USAGE)),
        }
    }

    /// Bits of the bitmap that no field has.
    #[must_use]
    pub fn unnamed_bits(&self) -> u128 {
        FIELDS.iter().fold(self.valid_bitmap, |left, field| left & !field.mask())
    }
}

/// Bytes at a place that every page has; zeroes outside of it.
fn array<const N: usize>(bytes: &[u8; GHCB_BYTES], offset: u64) -> [u8; N] {
    let at = usize::try_from(offset).unwrap_or(GHCB_BYTES);
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

impl fmt::Display for GhcbPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            ("exit code", self.exit_code),
            ("info 1", self.exit_info_1),
            ("info 2", self.exit_info_2),
            ("scratch", self.scratch.map(|gpa| gpa.0)),
            ("rax", self.rax),
            ("rbx", self.rbx),
            ("rcx", self.rcx),
            ("rdx", self.rdx),
            ("rsi", self.rsi),
            ("cpl", self.cpl.map(u64::from)),
            ("xcr0", self.xcr0),
            ("xss", self.xss),
        ];
        write!(f, "GHCB version {} usage {:#x}", self.protocol_version, self.usage)?;
        for (name, value) in named {
            if let Some(value) = value {
                write!(f, ", {name} {value:#x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    /// A page whose every byte is different from its neighbours, without a bitmap.
    fn page(bitmap: u128) -> [u8; GHCB_BYTES] {
        let mut bytes = [0; GHCB_BYTES];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(index % 251).unwrap();
        }
        bytes[0x3f0..0x400].copy_from_slice(&bitmap.to_le_bytes());
        bytes
    }

    fn registers(page: &GhcbPage) -> Vec<Option<u64>> {
        let mut all = std::vec![
            page.cpl.map(u64::from),
            page.xss,
            page.dr7,
            page.rip,
            page.rsp,
            page.rax,
            page.rcx,
            page.rdx,
            page.rbx,
            page.rbp,
            page.rsi,
            page.rdi,
        ];
        all.extend(page.r8_to_r15);
        all.extend([page.exit_code, page.exit_info_1, page.exit_info_2, page.scratch.map(|gpa| gpa.0)]);
        all.push(page.xcr0);
        all
    }

    #[test]
    fn each_bit_of_the_bitmap_brings_its_register_and_no_other() {
        for bit in 0..128 {
            let bytes = page(1 << bit);
            let decoded = GhcbPage::decode(&bytes);
            let got: Vec<_> = registers(&decoded).into_iter().flatten().collect();
            match Field::from_bit(bit) {
                Some(at::CPL) => assert_eq!(got, [u64::from(bytes[0xcb])]),
                Some(field) => {
                    let start = usize::from(field.offset);
                    assert_eq!(got, [u64::from_le_bytes(bytes[start..start + 8].try_into().unwrap())]);
                }
                None => {
                    assert_eq!(got, []);
                    assert_eq!(decoded.unnamed_bits(), 1 << bit);
                }
            }
        }
    }

    #[test]
    fn the_registers_are_in_the_order_of_the_page() {
        let bytes = page(u128::MAX);
        let got = registers(&GhcbPage::decode(&bytes));
        assert_eq!(got.len(), FIELDS.len());
        for (field, value) in FIELDS.iter().zip(got) {
            let first = u64::from(bytes[usize::from(field.offset)]);
            assert_eq!(value.map(|value| value & 0xff), Some(first), "{:?}", field.name());
        }
    }

    #[test]
    fn the_tail_of_the_page_is_read_whatever_the_bitmap_says() {
        let mut bytes = page(0);
        bytes[0x400..0x408].copy_from_slice(&0x1234_5000_u64.to_le_bytes());
        bytes[0xffa..].copy_from_slice(&[2, 0, 1, 0, 0, 0x80]);
        let decoded = GhcbPage::decode(&bytes);
        assert_eq!(decoded.x87_state_gpa, Gpa(0x1234_5000));
        assert_eq!((decoded.protocol_version, decoded.usage), (2, 0x8000_0001));
        assert_eq!(decoded.to_string(), "GHCB version 2 usage 0x80000001");
    }
}
