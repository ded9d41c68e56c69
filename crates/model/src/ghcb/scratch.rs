//! The scratch area of a request: in the GHCB's shared buffer, or, in protocol version 1, anywhere in memory.

use super::GhcbState;
use crate::faults::Point;
use crate::memory::Memory;
use crate::vcpu::{Step, Vcpu};
use exeunt_abi::ghcb::page::{self, malformed};
use exeunt_abi::{Errno, Gpa, PAGE_SIZE};

/// Bytes of the largest scratch area outside of the GHCB.
const LIMIT: u64 = 16 * PAGE_SIZE;

/// KVM's copy of a scratch area outside of the GHCB.
#[derive(Clone, Debug)]
pub(crate) struct Bounce {
    bytes: Vec<u8>,
    /// It is written back when the page is unmapped.
    sync: bool,
}

impl GhcbState {
    /// Whether the scratch area begins in the GHCB page.
    fn scratch_is_inside(&self) -> bool {
        self.mapped.is_some_and(|ghcb| ghcb.gfn() == self.scratch.gfn())
    }

    /// Checks a scratch area in the GHCB for `bytes` bytes and returns how many are usable from its start to the end
    /// of the shared buffer.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `setup_vmgexit_scratch`.
    pub(crate) fn scratch_bytes(&self, bytes: u64) -> Option<u64> {
        let ghcb = self.mapped?;
        if self.scratch.0 == 0 || !self.scratch_is_inside() {
            return None;
        }
        let end = ghcb.0.checked_add(page::SHARED_BUFFER_END)?;
        if self.scratch.offset_in_page() < page::SHARED_BUFFER || self.scratch.0.checked_add(bytes)? > end {
            return None;
        }
        end.checked_sub(self.scratch.0)
    }

    /// Reads from the scratch area, which has been set up for as much.
    pub(crate) fn read_scratch(&self, memory: &Memory, at: u64, to: &mut [u8]) -> Result<(), Errno> {
        let Some(bounce) = &self.bounce else {
            return memory.read_shared(Gpa(self.scratch.0.wrapping_add(at)), to);
        };
        let from = usize::try_from(at).ok().and_then(|at| bounce.bytes.get(at..)).unwrap_or_default();
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    /// Writes to the scratch area, which has been set up for as much.
    pub(crate) fn write_scratch(&mut self, memory: &mut Memory, at: u64, from: &[u8]) -> Result<(), Errno> {
        let Some(bounce) = &mut self.bounce else {
            return memory.write_shared(Gpa(self.scratch.0.wrapping_add(at)), from);
        };
        let to = usize::try_from(at).ok().and_then(|at| bounce.bytes.get_mut(at..)).unwrap_or_default();
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    /// Bytes of the copy, and whether it is written back.
    #[cfg(test)]
    pub(crate) fn scratch_copy(&self) -> Option<(u64, bool)> {
        self.bounce.as_ref().map(|bounce| (bounce.bytes.len() as u64, bounce.sync))
    }

    /// Writes the copy back, if it is to be, and frees it. Memory that went away in the meantime is the guest's loss.
    pub(super) fn free_scratch(&mut self, memory: &mut Memory) {
        if let Some(Bounce { bytes, sync: true }) = self.bounce.take() {
            let _ = memory.write_shared(self.scratch, &bytes);
        }
    }
}

impl Vcpu {
    /// Sets the scratch area up for a request that needs `bytes` of it, and writes a copy back later if `sync` says so.
    /// If it cannot be used, what happens instead comes back: the guest is told, or `KVM_RUN` fails.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `setup_vmgexit_scratch`.
    pub(crate) fn set_up_scratch(&mut self, bytes: u64, sync: bool) -> Result<(), Step> {
        let vm = self.vm.clone();
        let mut state = vm.lock();
        let ends = self.scratch_ends(bytes);
        if ends && self.ghcb.scratch_bytes(bytes).is_some() {
            return Ok(());
        }
        let may_be_outside = state.ghcb_version < 2 && bytes <= LIMIT;
        if !ends || self.ghcb.scratch_is_inside() || !may_be_outside {
            self.ghcb.refuse(&mut state.memory, malformed::INVALID_SCRATCH_AREA);
            return Err(Step::Resume);
        }
        let fails = |errno| Step::Exit(Err(errno));
        vm.faults.fail_at(Point::ScratchBuffer).map_err(fails)?;
        let mut copy = vec![0; usize::try_from(bytes).map_err(|_| fails(Errno::ENOMEM))?];
        state.memory.read_shared(self.ghcb.scratch, &mut copy).map_err(|_| fails(Errno::EFAULT))?;
        self.ghcb.bounce = Some(Bounce { bytes: copy, sync });
        Ok(())
    }

    /// There is a scratch area, of some length, and its end does not wrap. A length of 0 is a mistake of KVM's, which
    /// it has a `WARN` for.
    fn scratch_ends(&mut self, bytes: u64) -> bool {
        if bytes == 0 {
            self.warnings = self.warnings.saturating_add(1);
        }
        let scratch = self.ghcb.scratch.0;
        bytes != 0 && scratch != 0 && scratch.checked_add(bytes).is_some()
    }
}
