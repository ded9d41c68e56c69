//! Memory-mapped I/O of a guest that KVM cannot look into: the data goes through the scratch area of its GHCB.

use crate::vcpu::Completion;
use crate::vcpu::Step;
use crate::vcpu::Vcpu;
use exeunt_abi::Gpa;
use exeunt_abi::ghcb::page::malformed;
use exeunt_abi::kvm::run;
use exeunt_proto::exit::{Exit, Mmio};

/// Bytes that one exit carries.
const PIECE_BYTES: u8 = 8;
/// Bytes that a guest of protocol version 2 may ask for; version 1 has no bound but the scratch area.
const V2_BYTES: u64 = 8;

/// What is left of a request, the piece under way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pieces {
    is_write: bool,
    gpa: Gpa,
    /// Where the data is in the scratch area.
    at: u64,
    bytes: u64,
}

impl Pieces {
    /// Bytes of the piece under way.
    fn now(self) -> u8 {
        u8::try_from(self.bytes).unwrap_or(PIECE_BYTES).min(PIECE_BYTES)
    }
}

impl Vcpu {
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_handle_vmgexit`.
    pub(crate) fn begin_mmio(&mut self, is_write: bool) -> Step {
        let [gpa, bytes] = self.ghcb.info;
        if bytes == 0 {
            return Step::Resume;
        }
        {
            let mut state = self.vm.lock();
            if state.ghcb_version >= 2 && bytes > V2_BYTES {
                self.ghcb.refuse(&mut state.memory, malformed::INVALID_INPUT);
                return Step::Resume;
            }
        }
        match self.set_up_scratch(bytes, !is_write) {
            Ok(()) => self.next_mmio(Pieces { is_write, gpa: Gpa(gpa), at: 0, bytes }),
            Err(step) => step,
        }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `complete_sev_es_emulated_mmio`.
    pub(crate) fn complete_mmio(&mut self, done: Pieces) -> Step {
        let now = done.now();
        if !done.is_write {
            let wire: run::Mmio = self.page.payload();
            let data = wire.data.get(..usize::from(now)).unwrap_or(&wire.data);
            // It lies in the mapped GHCB, or is a copy.
            let _ = self.ghcb.write_scratch(&mut self.vm.lock().memory, done.at, data);
        }
        let left = Pieces {
            is_write: done.is_write,
            gpa: Gpa(done.gpa.0.wrapping_add(u64::from(now))),
            at: done.at.saturating_add(u64::from(now)),
            bytes: done.bytes.saturating_sub(u64::from(now)),
        };
        if left.bytes == 0 { Step::Resume } else { self.next_mmio(left) }
    }

    fn next_mmio(&mut self, pieces: Pieces) -> Step {
        // What the page holds already: a read leaves it for userspace to overwrite.
        let mut data = self.page.payload::<run::Mmio>().data;
        let now = pieces.now();
        if pieces.is_write {
            // Bytes behind the piece stay stale, as in the kernel.
            let to = data.get_mut(..usize::from(now)).unwrap_or_default();
            // It lies in the mapped GHCB, or is a copy.
            let _ = self.ghcb.read_scratch(&self.vm.lock().memory, pieces.at, to);
        }
        self.completion = Some(Completion::Mmio(pieces));
        let mmio = Mmio { gpa: pieces.gpa, data, len: now, is_write: pieces.is_write };
        Step::Exit(self.exit(&Exit::Mmio(mmio)))
    }
}
