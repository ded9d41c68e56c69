//! Accesses to addresses without memory, of guests that KVM can look into: its emulator does them piece by piece.

use crate::guest::mailbox::{Op, Outcome};
use crate::memory::split_at_pages;
use crate::vcpu::{Completion, OnEntry, Step, Vcpu};
use exeunt_abi::kvm::memory::MEM_READONLY;
use exeunt_abi::kvm::run;
use exeunt_abi::{Errno, Gpa};
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
        let mut fragments = VecDeque::new();
        {
            let vm = self.vm.clone();
            let mut state = vm.lock();
            for (chunk, gfn, offset) in split_at_pages(gpa, data.len()) {
                let at = Gpa(gfn.gpa().0.saturating_add(offset as u64));
                let part = data.get_mut(chunk.clone()).unwrap_or_default();
                let is_read_only = state.memory.slot_of(gfn).is_some_and(|slot| slot.has(MEM_READONLY));
                let done = if is_write && is_read_only {
                    Err(Errno::EFAULT)
                } else if is_write {
                    state.memory.write_shared(at, part)
                } else {
                    state.memory.read_shared(at, part)
                };
                if done.is_ok() {
                    continue;
                }
                for start in chunk.clone().step_by(FRAGMENT_BYTES) {
                    let end = start.saturating_add(FRAGMENT_BYTES).min(chunk.end);
                    let gpa = Gpa(at.0.saturating_add(start.saturating_sub(chunk.start) as u64));
                    fragments.push_back((start..end, gpa));
                }
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
