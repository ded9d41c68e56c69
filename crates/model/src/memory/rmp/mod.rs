//! The reverse map table: which guest each host frame belongs to, where the guest has it, and what it may do there.

mod entry;
mod instructions;

pub use entry::RmpEntry;
pub(crate) use instructions::{Adjust, Target, Validate, Violation};

use exeunt_abi::rmp::{Fields, instruction};
use exeunt_abi::{Errno, PAGES_PER_2M};
use exeunt_runs::RunMap;
use std::ops::Range;

/// The table. A frame without an entry is the hypervisor's.
///
/// Entries that continue each other are one run, so a guest's memory costs by its fragments and not by its pages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rmp {
    entries: RunMap<RmpEntry>,
}

/// The 2 MiB of frames that hold one.
pub(crate) const fn around_2m(pfn: u64) -> Range<u64> {
    let start = pfn & !(PAGES_PER_2M - 1);
    start..start.saturating_add(PAGES_PER_2M)
}

/// Whether a frame is the first of its 2 MiB.
pub(crate) const fn is_2m_aligned(pfn: u64) -> bool {
    pfn & (PAGES_PER_2M - 1) == 0
}

impl Rmp {
    /// The entry of a frame.
    pub(crate) fn get(&self, pfn: u64) -> RmpEntry {
        self.entries.get(pfn).unwrap_or_default()
    }

    /// Whether a frame is assigned, and whether the entry that covers it covers 2 MiB. "Assigned" is said by the
    /// frame's own entry and the size by that of the first frame of its 2 MiB.
    ///
    /// Source: Linux v7.2 `arch/x86/virt/svm/sev.c`, `snp_lookup_rmpentry`.
    pub(crate) fn lookup(&self, pfn: u64) -> (bool, bool) {
        (self.get(pfn).fields().assigned, self.get(around_2m(pfn).start).fields().is_2m)
    }

    /// `RMPUPDATE`: makes the entry what `to` says, not validated and no VMSA. Returns the instruction's code.
    ///
    /// Source: AMD 24594 "APM volume 3", `RMPUPDATE`.
    pub(crate) fn rmpupdate(&mut self, pfn: u64, to: Fields) -> u32 {
        let pages = if to.is_2m { around_2m(pfn) } else { pfn..pfn.saturating_add(1) };
        if to.is_2m && !is_2m_aligned(pfn) {
            return instruction::FAIL_INPUT;
        }
        let (_, covered_by_2m) = self.lookup(pfn);
        let has_small = || self.entries.runs(pages.clone()).any(|run| run.first.fields().assigned);
        if to.is_2m != covered_by_2m && (covered_by_2m || has_small()) {
            return instruction::FAIL_OVERLAP;
        }
        if self.entries.runs(pages.clone()).any(|run| run.first.fields().immutable) {
            return instruction::FAIL_PERMISSION;
        }
        if to.assigned {
            self.entries.put(pages, RmpEntry::updated(to));
        } else {
            self.entries.clear(pages);
        }
        instruction::SUCCESS
    }

    /// `PSMASH`: makes the entry of 2 MiB 512 entries of 4 KiB, which are otherwise the same. Returns the instruction's
    /// code.
    pub(crate) fn psmash(&mut self, pfn: u64) -> u32 {
        if !is_2m_aligned(pfn) || !self.get(pfn).fields().is_2m {
            return instruction::FAIL_INPUT;
        }
        self.entries.update(around_2m(pfn), RmpEntry::as_4k);
        instruction::SUCCESS
    }

    /// Makes frames private that are not assigned yet, at the guest frames from `gfn` on.
    ///
    /// KVM does this by the page; where the kernel repeats `RMPUPDATE` for as long as entries overlap, there is none
    /// here that does, because only frames without an assigned entry are changed.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_gmem_prepare`.
    pub(crate) fn prepare(&mut self, pfns: Range<u64>, gfn: u64, asid: u16) {
        let mut next = pfns.start;
        while next < pfns.end {
            let gap_end = match self.entries.first_in(next..pfns.end) {
                Some(run) if run.pages.start == next => {
                    next = run.pages.end;
                    continue;
                }
                Some(run) => run.pages.start,
                None => pfns.end,
            };
            let gfn = gfn.saturating_add(next.saturating_sub(pfns.start));
            let fields = Fields { assigned: true, is_2m: false, immutable: false, gfn, asid };
            self.entries.put(next..gap_end, RmpEntry::updated(fields));
            next = gap_end;
        }
    }

    /// As [`Rmp::prepare`] for the whole 2 MiB around a frame, if no part of it is assigned.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `is_large_rmp_possible`.
    pub(crate) fn prepare_2m(&mut self, pfn: u64, gfn: u64, asid: u16) -> bool {
        if !self.entries.is_free(around_2m(pfn)) {
            return false;
        }
        let gfn = gfn & !(PAGES_PER_2M - 1);
        let fields = Fields { assigned: true, is_2m: true, immutable: false, gfn, asid };
        self.rmpupdate(around_2m(pfn).start, fields) == instruction::SUCCESS
    }

    /// Gives frames back to the hypervisor. An entry of 2 MiB of which a part stays is split first.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_gmem_invalidate`.
    pub(crate) fn make_shared(&mut self, pfns: Range<u64>) {
        for border in [pfns.start, pfns.end] {
            if !is_2m_aligned(border) && self.lookup(border).1 {
                self.psmash(around_2m(border).start);
            }
        }
        self.entries.clear(pfns);
    }

    /// Changes the entry of one frame, for the firmware, which may change all of it.
    pub(crate) fn set(&mut self, pfn: u64, entry: RmpEntry) {
        if entry == RmpEntry::default() {
            self.entries.clear(pfn..pfn.saturating_add(1));
        } else {
            self.entries.put(pfn..pfn.saturating_add(1), entry);
        }
    }

    /// The entries that are not the hypervisor's, as runs: the frames, and the entry of the first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (Range<u64>, RmpEntry)> + '_ {
        self.entries.runs(0..u64::MAX).map(|run| (run.pages, run.first))
    }

    /// Runs that the table is kept in.
    pub(crate) fn run_count(&self) -> usize {
        self.entries.run_count()
    }
}

/// What KVM makes of the code of `RMPUPDATE`.
///
/// Source: Linux v7.2 `arch/x86/virt/svm/sev.c`, `rmpupdate`.
pub(crate) const fn rmpupdate_result(code: u32) -> Result<(), Errno> {
    if code == instruction::SUCCESS { Ok(()) } else { Err(Errno::EFAULT) }
}

#[cfg(test)]
mod tests;
