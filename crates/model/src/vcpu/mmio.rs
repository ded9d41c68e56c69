//! Accesses to addresses without memory, of guests that KVM can look into: its emulator does them piece by piece.

use crate::guest::mailbox::{Op, Outcome};
use crate::vcpu::{Completion, OnEntry, Step, Vcpu};
use exeunt_abi::Gpa;
use exeunt_abi::kvm::run;
use exeunt_proto::exit::{Exit, Mmio};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes that one exit carries.
const FRAGMENT_BYTES: usize = 8;

/// An access in the middle of its exits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Emulated {
    is_write: bool,
    /// What is written, or what has been read so far.
    data: Vec<u8>,
    /// What userspace has to do, the fragment under way first: its place in the data, and its address.
    fragments: VecDeque<(Range<usize>, Gpa)>,
}

impl Vcpu {
    /// Does the pages of an access that have memory, and asks userspace for the others.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `emulator_read_write`.
    pub(crate) fn begin_emulated(&mut self, op: &Op) -> Step {
        let (is_write, gpa, mut data) = match op {
            Op::Read { gpa, bytes, .. } => (false, *gpa, vec![0; *bytes]),
            Op::Write { gpa, bytes, .. } => (true, *gpa, bytes.clone()),
            _ => return Step::Guest(Outcome::Done),
        };
        let chunks = self.vm.clone().lock().memory.emulate(gpa, &mut data, is_write);
        let mut fragments = VecDeque::new();
        for chunk in chunks {
            for start in chunk.clone().step_by(FRAGMENT_BYTES) {
                let end = start.saturating_add(FRAGMENT_BYTES).min(chunk.end);
                fragments.push_back((start..end, Gpa(gpa.0.wrapping_add(start as u64))));
            }
        }
        self.did(|| {
            let verb = if is_write { "writes to" } else { "reads from" };
            format!("{verb} {:#x}, where no memory is", gpa.0)
        });
        self.next_fragment(Emulated { is_write, data, fragments })
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `complete_emulated_mmio`.
    pub(crate) fn complete_emulated(&mut self) -> Step {
        let Some(mut emulated) = self.emulated.take() else { return Step::Resume };
        if let Some((place, _)) = emulated.fragments.pop_front() {
            let answer = self.page.payload::<run::Mmio>().data;
            if !emulated.is_write {
                let to = emulated.data.get_mut(place).unwrap_or_default();
                to.iter_mut().zip(answer).for_each(|(to, from)| *to = from);
            }
        }
        self.next_fragment(emulated)
    }

    fn next_fragment(&mut self, emulated: Emulated) -> Step {
        let Some((place, gpa)) = emulated.fragments.front().cloned() else {
            self.emulated = Some(emulated);
            self.on_entry = Some(OnEntry::Emulated);
            return Step::Resume;
        };
        // What the page holds already: a read leaves it for userspace to overwrite, a short write overwrites a part.
        let mut data = self.page.payload::<run::Mmio>().data;
        let from = emulated.data.get(place).unwrap_or_default();
        if emulated.is_write {
            data.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        let len = u8::try_from(from.len()).unwrap_or_default();
        let mmio = Mmio { gpa, data, len, is_write: emulated.is_write };
        self.emulated = Some(emulated);
        self.completion = Some(Completion::Emulated);
        Step::Exit(self.exit(&Exit::Mmio(mmio)))
    }

    /// What the guest gets when the access is over.
    pub(crate) fn emulated_outcome(&mut self) -> Outcome {
        match self.emulated.take() {
            Some(emulated) if !emulated.is_write => Outcome::Bytes(emulated.data),
            _ => Outcome::Done,
        }
    }
}
