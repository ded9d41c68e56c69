//! Dirty logs: which pages of a slot the guest or KVM wrote.

use crate::memory::{Memory, Slot};
use exeunt_abi::kvm::memory::MEM_LOG_DIRTY_PAGES;
use exeunt_abi::{Errno, Gfn};
use exeunt_proto::conversion::PageRange;
use exeunt_runs::RunMap;

/// Pages that a word of a bitmap speaks for.
const PAGES_PER_WORD: u64 = 64;

/// A dirty bitmap as `KVM_GET_DIRTY_LOG` copies it out: one bit for each page of the slot, in words of 64.
#[derive(Clone, Debug)]
pub struct DirtyLog {
    dirty: RunMap<()>,
    pages: u64,
}

impl DirtyLog {
    /// Bytes of the bitmap, in whole words.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.pages.div_ceil(PAGES_PER_WORD).saturating_mul(8)
    }

    /// The words of the bitmap in order.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.pages.div_ceil(PAGES_PER_WORD)).map(|word| {
            let first = word.saturating_mul(PAGES_PER_WORD);
            let runs = self.dirty.runs(first..first.saturating_add(PAGES_PER_WORD));
            runs.fold(0, |bits, run| {
                let pages = run.pages.end.saturating_sub(run.pages.start).min(PAGES_PER_WORD);
                let ones = u64::MAX.checked_shr(u32::try_from(64 - pages).unwrap_or(0)).unwrap_or(0);
                bits | ones << (run.pages.start.saturating_sub(first) & 63)
            })
        })
    }

    /// How many pages are dirty.
    #[must_use]
    pub fn dirty_pages(&self) -> u64 {
        self.dirty.pages()
    }
}

impl Memory {
    /// Begins or goes on with the log of a slot.
    pub(crate) fn start_dirty_log(&mut self, slot: &Slot) {
        let all_set = self.dirty_log.initially_set;
        self.dirty.entry(slot.slot).or_insert_with(|| {
            let mut log = RunMap::default();
            if all_set {
                log.put(0..slot.range.pages(), ());
            }
            log
        });
    }

    /// `mark_page_dirty_in_slot`: a vCPU or KVM itself wrote a frame of a slot.
    pub(crate) fn mark_dirty(&mut self, gfn: Gfn) {
        if self.dirty.is_empty() {
            return;
        }
        let Some(slot) = self.slot_of(gfn).copied().filter(|slot| slot.has(MEM_LOG_DIRTY_PAGES)) else {
            return;
        };
        let page = gfn.0.saturating_sub(slot.range.gfn().0);
        if let Some(log) = self.dirty.get_mut(&slot.slot) {
            log.put(page..page.saturating_add(1), ());
        }
    }

    /// The log of a slot and its length in pages.
    fn logged_range(&self, slot: u32) -> Result<PageRange, Errno> {
        let found = self.space(slot).and_then(|slots| slots.numbered(slot)).ok_or(Errno::ENOENT)?;
        if self.dirty.contains_key(&slot) { Ok(found.range) } else { Err(Errno::ENOENT) }
    }

    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_get_dirty_log_protect`.
    pub(crate) fn get_dirty_log(&mut self, slot: u32) -> Result<DirtyLog, Errno> {
        if !self.is_user_slot(slot) {
            return Err(Errno::EINVAL);
        }
        let pages = self.logged_range(slot)?.pages();
        let keeps = self.dirty_log.manual_protect;
        let log = self.dirty.get_mut(&slot).ok_or(Errno::ENOENT)?;
        let dirty = if keeps { log.clone() } else { std::mem::take(log) };
        Ok(DirtyLog { dirty, pages })
    }

    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_clear_dirty_log_protect`.
    pub(crate) fn clear_dirty_log(
        &mut self,
        slot: u32,
        first_page: u64,
        num_pages: u32,
        words: impl IntoIterator<Item = u64>,
    ) -> Result<(), Errno> {
        if !self.is_user_slot(slot) || first_page % PAGES_PER_WORD != 0 {
            return Err(Errno::EINVAL);
        }
        let pages = self.logged_range(slot)?.pages();
        let num_pages = u64::from(num_pages);
        let left = pages.checked_sub(first_page).ok_or(Errno::EINVAL)?;
        if num_pages > left || (num_pages < left && num_pages % PAGES_PER_WORD != 0) {
            return Err(Errno::EINVAL);
        }
        let log = self.dirty.get_mut(&slot).ok_or(Errno::ENOENT)?;
        let firsts = (first_page..first_page.saturating_add(num_pages)).step_by(64);
        for (first, word) in firsts.zip(words) {
            if word == u64::MAX {
                log.clear(first..first.saturating_add(PAGES_PER_WORD));
                continue;
            }
            for page in (0..PAGES_PER_WORD).filter(|bit| word >> bit & 1 != 0) {
                let page = first.saturating_add(page);
                log.clear(page..page.saturating_add(1));
            }
        }
        Ok(())
    }
}

/// How dirty logs work in a VM: `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DirtyLogMode {
    /// `KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE`: reading a log does not clear it.
    pub(crate) manual_protect: bool,
    /// `KVM_DIRTY_LOG_INITIALLY_SET`: every page of a new log is dirty.
    pub(crate) initially_set: bool,
}
