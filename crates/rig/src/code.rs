//! The machine code of a script's guest, and the page tables that it runs on.
//!
//! Source: Intel SDM, volume 2, and AMD64 APM, volume 3, for the encodings; APM volume 2, section 5.3, for the tables.

use crate::script::{Act, LOG, TABLES};
use exeunt_abi::Gpa;

/// Present, writable.
const TABLE: u64 = 0b11;
/// A page of 2 MiB in a table of level 2.
const LARGE: u64 = 1 << 7;
/// `HV_X64_MSR_RESET`. Source: Hypervisor Top-Level Functional Specification v6.0b, section 4.
const HV_X64_MSR_RESET: u32 = 0x4000_0003;

/// The code of all acts, and a loop of `HLT` behind them.
#[must_use]
pub fn assemble(acts: &[Act]) -> Vec<u8> {
    let mut code = Code::default();
    for act in acts {
        code.act(act);
    }
    // hlt; jmp back to it
    code.bytes.extend([0xf4, 0xeb, 0xfd]);
    code.bytes
}

/// Page tables that map the first GiB to itself, in pages of 2 MiB: three pages, to be loaded at [`TABLES`].
#[must_use]
pub fn tables() -> Vec<u8> {
    let page = |index: u64| TABLES.0.wrapping_add(index.wrapping_mul(0x1000));
    let table = |entries: Vec<u64>| {
        let mut bytes: Vec<u8> = entries.into_iter().flat_map(u64::to_le_bytes).collect();
        bytes.resize(0x1000, 0);
        bytes
    };
    let large = (0..512u64).map(|index| index << 21 | LARGE | TABLE).collect();
    [table(vec![page(1) | TABLE]), table(vec![page(2) | TABLE]), table(large)].concat()
}

#[derive(Default)]
struct Code {
    bytes: Vec<u8>,
    logged: u64,
}

impl Code {
    fn act(&mut self, act: &Act) {
        match *act {
            Act::Out { port, size, value } => {
                self.mov_edx(port.into());
                self.mov_eax(value);
                self.sized([&[0xee], &[0x66, 0xef], &[0xef]], size);
            }
            Act::In { port, size } => {
                self.mov_edx(port.into());
                self.clear_rax();
                self.sized([&[0xec], &[0x66, 0xed], &[0xed]], size);
            }
            Act::Hlt => self.bytes.push(0xf4),
            Act::Hypercall { vmcall, nr, args } => {
                let [rbx, rcx, rdx, rsi] = args;
                self.mov([0x48, 0xb8], nr);
                self.mov([0x48, 0xbb], rbx);
                self.mov([0x48, 0xb9], rcx);
                self.mov([0x48, 0xba], rdx);
                self.mov([0x48, 0xbe], rsi);
                self.bytes.extend([0x0f, 0x01, if vmcall { 0xc1 } else { 0xd9 }]);
            }
            Act::Write { gpa, size, value } => {
                self.mov([0x48, 0xb8], value);
                self.mov_r14(Gpa(gpa));
                self.of_memory([&[0x41, 0x88], &[0x66, 0x41, 0x89], &[0x41, 0x89], &[0x49, 0x89]], size);
            }
            Act::Read { gpa, size } => {
                self.clear_rax();
                self.mov_r14(Gpa(gpa));
                self.of_memory([&[0x41, 0x8a], &[0x66, 0x41, 0x8b], &[0x41, 0x8b], &[0x49, 0x8b]], size);
            }
            Act::HypervReset => {
                self.mov_ecx(HV_X64_MSR_RESET);
                self.mov_eax(1);
                self.mov_edx(0);
                self.bytes.extend([0x0f, 0x30]);
            }
            // A division, because a KVM that emulates may report an undefined instruction as its own failure.
            Act::TripleFault => self.bytes.extend([0x31, 0xc9, 0xf7, 0xf1]),
        }
        if act.is_logged() {
            self.log();
        }
    }

    /// `mov [LOG + 8 * n], rax`, by way of R15.
    fn log(&mut self) {
        let at = LOG.0.wrapping_add(self.logged.wrapping_mul(8));
        self.logged = self.logged.wrapping_add(1);
        self.mov([0x49, 0xbf], at);
        self.bytes.extend([0x49, 0x89, 0x07]);
    }

    fn mov(&mut self, opcode: [u8; 2], value: u64) {
        self.bytes.extend(opcode);
        self.bytes.extend(value.to_le_bytes());
    }

    fn mov_r14(&mut self, gpa: Gpa) {
        self.mov([0x49, 0xbe], gpa.0);
    }

    fn mov_eax(&mut self, value: u32) {
        self.bytes.push(0xb8);
        self.bytes.extend(value.to_le_bytes());
    }

    fn mov_ecx(&mut self, value: u32) {
        self.bytes.push(0xb9);
        self.bytes.extend(value.to_le_bytes());
    }

    fn mov_edx(&mut self, value: u32) {
        self.bytes.push(0xba);
        self.bytes.extend(value.to_le_bytes());
    }

    fn clear_rax(&mut self) {
        self.bytes.extend([0x31, 0xc0]);
    }

    /// The form for 1, 2 or 4 bytes.
    fn sized(&mut self, forms: [&[u8]; 3], size: u8) {
        let [byte, word, long] = forms;
        self.bytes.extend(match size {
            1 => byte,
            2 => word,
            _ => long,
        });
    }

    /// The form for 1, 2, 4 or 8 bytes, with `[r14]` and RAX as operands.
    fn of_memory(&mut self, forms: [&[u8]; 4], size: u8) {
        let [byte, word, long, quad] = forms;
        self.bytes.extend(match size {
            1 => byte,
            2 => word,
            4 => long,
            _ => quad,
        });
        self.bytes.push(0x06);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_act_is_the_instructions_that_the_manual_gives_it() {
        let without_halt = |act| {
            let mut code = assemble(&[act]);
            assert_eq!(code.split_off(code.len() - 3), [0xf4, 0xeb, 0xfd]);
            code
        };
        let log = [0x49, 0xbf, 0, 0x50, 0, 0, 0, 0, 0, 0, 0x49, 0x89, 0x07];
        assert_eq!(without_halt(Act::Hlt), [0xf4]);
        assert_eq!(
            without_halt(Act::Out { port: 0x3f8, size: 1, value: 0x41 }),
            [0xba, 0xf8, 3, 0, 0, 0xb8, 0x41, 0, 0, 0, 0xee]
        );
        assert_eq!(
            without_halt(Act::In { port: 0x60, size: 2 }),
            [&[0xba, 0x60, 0, 0, 0, 0x31, 0xc0, 0x66, 0xed][..], &log].concat()
        );
        assert_eq!(
            without_halt(Act::Write { gpa: 0x10_0000, size: 4, value: 7 }),
            [
                0x48, 0xb8, 7, 0, 0, 0, 0, 0, 0, 0, // mov rax, 7
                0x49, 0xbe, 0, 0, 0x10, 0, 0, 0, 0, 0, // mov r14, 0x100000
                0x41, 0x89, 0x06, // mov [r14], eax
            ]
        );
        assert_eq!(
            without_halt(Act::Read { gpa: 8, size: 8 }),
            [&[0x31, 0xc0, 0x49, 0xbe, 8, 0, 0, 0, 0, 0, 0, 0, 0x49, 0x8b, 0x06][..], &log].concat()
        );
        let call = |vmcall| without_halt(Act::Hypercall { vmcall, nr: 12, args: [1, 2, 3, 4] });
        assert_eq!(call(false)[50..53], [0x0f, 0x01, 0xd9]);
        assert_eq!(call(true)[50..53], [0x0f, 0x01, 0xc1]);
        assert_eq!(without_halt(Act::TripleFault), [0x31, 0xc9, 0xf7, 0xf1]);
        assert_eq!(without_halt(Act::HypervReset)[..5], [0xb9, 3, 0, 0, 0x40]);
    }

    #[test]
    fn the_longest_guest_fits_into_its_page() {
        let longest = Act::Hypercall { vmcall: true, nr: u64::MAX, args: [u64::MAX; 4] };
        assert!(assemble(&[longest; crate::script::MAX_ACTS]).len() <= 0x1000);
    }

    #[test]
    fn the_tables_map_each_address_of_the_first_gib_to_itself() {
        let bytes = tables();
        let entry = |table: u64, index: u64| {
            let at = usize::try_from((table & !0xfff) - TABLES.0 + index * 8).unwrap();
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        };
        for address in (0u64..1 << 30).step_by(0x10_1000) {
            let level3 = entry(TABLES.0, address >> 39 & 511);
            let level2 = entry(level3, address >> 30 & 511);
            let page = entry(level2, address >> 21 & 511);
            assert_eq!((level3 & 3, level2 & 3, page & 0x83), (3, 3, 0x83), "{address:#x}");
            assert_eq!((page & !0x1f_ffff) | address & 0x1f_ffff, address);
        }
    }
}
