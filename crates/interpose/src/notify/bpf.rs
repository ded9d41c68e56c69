//! An assembler for classic BPF, as far as seccomp filters need it.
//!
//! Source: Linux v7.2 `include/uapi/linux/bpf_common.h` and `include/uapi/linux/filter.h`.

/// One instruction, as the kernel takes it.
pub(super) type Instruction = libc::sock_filter;

const LD_W_ABS: u16 = 0x20;
const JMP_JEQ_K: u16 = 0x15;
const ALU_AND_K: u16 = 0x54;
const RET_K: u16 = 0x06;

/// A place in a program that is jumped to before it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label(usize);

/// A program in the making. Jumps go forward and 255 instructions far at most.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    code: Vec<(Instruction, Option<Label>)>,
    places: Vec<Option<usize>>,
}

impl Assembler {
    pub(super) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The label is here.
    pub(super) fn place(&mut self, label: Label) {
        let here = self.code.len();
        if let Some(place) = self.places.get_mut(label.0) {
            *place = Some(here);
        }
    }

    /// Loads a word of `struct seccomp_data` by its offset in bytes.
    pub(super) fn load(&mut self, offset: u32) {
        self.push(LD_W_ABS, offset, None);
    }

    pub(super) fn and(&mut self, mask: u32) {
        self.push(ALU_AND_K, mask, None);
    }

    /// Jumps if the word that was loaded is this one.
    pub(super) fn if_equal(&mut self, value: u32, to: Label) {
        self.push(JMP_JEQ_K, value, Some(to));
    }

    pub(super) fn end_with(&mut self, action: u32) {
        self.push(RET_K, action, None);
    }

    fn push(&mut self, code: u16, k: u32, to: Option<Label>) {
        self.code.push((Instruction { code, jt: 0, jf: 0, k }, to));
    }

    /// The program. `None` if a label has no place, or one that is too far away or behind.
    pub(super) fn finish(self) -> Option<Vec<Instruction>> {
        let Self { code, places } = self;
        let resolve = |(at, (instruction, to)): (usize, (Instruction, Option<Label>))| {
            let Some(Label(label)) = to else { return Some(instruction) };
            let place = (*places.get(label)?)?;
            let jt = u8::try_from(place.checked_sub(at + 1)?).ok()?;
            Some(Instruction { jt, ..instruction })
        };
        code.into_iter().enumerate().map(resolve).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What the kernel's interpreter does, as far as the assembler writes it.
    pub(in super::super) fn interpret(program: &[Instruction], data: &[u8; 64]) -> u32 {
        let mut a = 0;
        let mut pc = 0;
        loop {
            let Instruction { code, jt, jf, k } = program[pc];
            pc += 1;
            match code {
                LD_W_ABS => a = u32::from_ne_bytes(data[k as usize..][..4].try_into().unwrap()),
                ALU_AND_K => a &= k,
                JMP_JEQ_K => pc += usize::from(if a == k { jt } else { jf }),
                RET_K => return k,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn jumps_land_on_their_labels() {
        let mut asm = Assembler::default();
        let (one, two) = (asm.label(), asm.label());
        asm.load(0);
        asm.if_equal(1, one);
        asm.if_equal(2, two);
        asm.end_with(0);
        asm.place(one);
        asm.end_with(10);
        asm.place(two);
        asm.and(0);
        asm.end_with(20);
        let program = asm.finish().unwrap();
        for (word, action) in [(0_u32, 0), (1, 10), (2, 20), (3, 0)] {
            let mut data = [0; 64];
            data[..4].copy_from_slice(&word.to_ne_bytes());
            assert_eq!(interpret(&program, &data), action, "{word}");
        }
    }

    #[test]
    fn a_label_that_cannot_be_reached_is_no_program() {
        let mut nowhere = Assembler::default();
        let label = nowhere.label();
        nowhere.if_equal(0, label);
        assert!(nowhere.finish().is_none());

        let mut behind = Assembler::default();
        let label = behind.label();
        behind.place(label);
        behind.if_equal(0, label);
        assert!(behind.finish().is_none());

        for (between, reached) in [(255, true), (256, false)] {
            let mut far = Assembler::default();
            let label = far.label();
            far.if_equal(0, label);
            (0..between).for_each(|_| far.and(0));
            far.place(label);
            far.end_with(0);
            assert_eq!(far.finish().is_some(), reached, "{between}");
        }
    }
}
