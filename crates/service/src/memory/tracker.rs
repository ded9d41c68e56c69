//! What is known of the pages of a VM: their state, and which of their two memories may hold something.
//!
//! Plain data without a lock. Pages are known in runs, so that a VM that has converted little costs little.

use exeunt_abi::Gfn;
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::host::Backing;
use exeunt_runs::{Linear, Run, RunMap};
use std::ops::Range;

/// What is known of a page that has a private half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageInfo {
    /// What its attributes say.
    pub state: PageState,
    /// Whether that is sure. It is not after a change of attributes that failed, until the next one.
    pub is_certain: bool,
    /// The shared memory may hold something: it was in use and has not been given back since.
    pub has_shared: bool,
    /// The private memory may hold something, likewise.
    pub has_private: bool,
}

impl PageInfo {
    /// A page of which only the memory in use may hold something.
    #[must_use]
    pub const fn fresh(state: PageState) -> Self {
        let is_private = matches!(state, PageState::Private);
        Self { state, is_certain: true, has_shared: !is_private, has_private: is_private }
    }

    /// The page when its attributes are not sure any more: either state may be so, and either memory may have been used.
    pub(crate) const fn doubted(self) -> Self {
        Self { state: self.state, is_certain: false, has_shared: true, has_private: true }
    }

    /// Whether it is sure which memory the page does not use, and that may hold something.
    const fn has_idle(self) -> bool {
        let has_other = match self.state {
            PageState::Shared => self.has_private,
            PageState::Private => self.has_shared,
        };
        self.is_certain && has_other
    }

    const fn is(self, state: PageState) -> bool {
        self.is_certain && matches!((self.state, state), PRIVATE | SHARED)
    }
}

const PRIVATE: (PageState, PageState) = (PageState::Private, PageState::Private);
const SHARED: (PageState, PageState) = (PageState::Shared, PageState::Shared);

impl Linear for PageInfo {
    fn advance(self, _: u64) -> Self {
        self
    }
}

/// The memory that a page in this state does not use.
pub(crate) const fn idle_backing(state: PageState) -> Backing {
    match state {
        PageState::Private => Backing::Shared,
        PageState::Shared => Backing::Private,
    }
}

/// What is left to do for a run of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Change its attributes.
    Change(PageRange),
    /// Give its idle memory back.
    Reclaim(PageRange),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Change,
    Reclaim,
}

/// Every page with a private half, in runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tracker {
    pages: RunMap<PageInfo>,
    /// Pages whose state is sure and whose idle memory may hold something.
    idle_pages: u64,
}

impl Tracker {
    /// Sets what is known of pages.
    pub(crate) fn set(&mut self, range: PageRange, info: PageInfo) {
        self.forget(range);
        self.pages.put(frames(range), info);
        if info.has_idle() {
            self.idle_pages = self.idle_pages.saturating_add(range.pages());
        }
    }

    /// Knows nothing of pages any more.
    pub(crate) fn forget(&mut self, range: PageRange) {
        self.idle_pages = self.idle_pages.saturating_sub(self.idle_in(frames(range)));
        self.pages.clear(frames(range));
    }

    /// Changes what is known of pages that are known.
    pub(crate) fn update(&mut self, range: PageRange, mut change: impl FnMut(PageInfo) -> PageInfo) {
        let Range { start: mut next, end } = frames(range);
        while let Some(Run { pages, first }) = self.pages.first_in(next..end) {
            next = pages.end;
            let changed = change(first);
            if changed == first {
                continue;
            }
            let count = pages.end.saturating_sub(pages.start);
            match (first.has_idle(), changed.has_idle()) {
                (true, false) => self.idle_pages = self.idle_pages.saturating_sub(count),
                (false, true) => self.idle_pages = self.idle_pages.saturating_add(count),
                _ => {}
            }
            self.pages.put(pages, changed);
        }
    }

    /// What is known of one page.
    pub(crate) fn get(&self, gfn: Gfn) -> Option<PageInfo> {
        self.pages.get(gfn.0)
    }

    /// How many pages, of those whose state is sure, have idle memory that may hold something.
    pub(crate) const fn idle_pages(&self) -> u64 {
        self.idle_pages
    }

    /// How many runs it takes to know all this.
    pub(crate) fn run_count(&self) -> usize {
        self.pages.run_count()
    }

    /// All that is known, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (PageRange, PageInfo)> + '_ {
        self.pages.runs(0..u64::MAX).filter_map(|run| Some((page_range(run.pages.clone())?, run.first)))
    }

    /// The state that all pages of a range certainly have; `None` if they differ, or one is not known.
    pub(crate) fn state_of(&self, range: PageRange) -> Option<PageState> {
        let first = self.get(range.gfn())?.state;
        let is_so =
            self.pages.covers(frames(range)) && self.pages.runs(frames(range)).all(|run| run.first.is(first));
        is_so.then_some(first)
    }

    /// Whether the private half of no page of a range is in use, for all that is known.
    pub(crate) fn is_shared(&self, range: PageRange) -> bool {
        self.pages.runs(frames(range)).all(|run| run.first.is(PageState::Shared))
    }

    /// The first run of pages in a range that are not certainly in a state, or that are and whose idle memory may hold
    /// something, if that counts.
    pub(crate) fn first_work(&self, to: PageState, range: Range<u64>, reclaims: bool) -> Option<Work> {
        let work_of = |info: PageInfo| match info.is(to) {
            false => Some(Kind::Change),
            true if reclaims && info.has_idle() => Some(Kind::Reclaim),
            true => None,
        };
        let (pages, kind) = self.first_where(range, work_of)?;
        Some(match kind {
            Kind::Change => Work::Change(pages),
            Kind::Reclaim => Work::Reclaim(pages),
        })
    }

    /// The first run of pages in a range whose state is sure and whose idle memory may hold something, and that state.
    pub(crate) fn first_idle(&self, range: Range<u64>) -> Option<(PageRange, PageState)> {
        self.first_where(range, |info| info.has_idle().then_some(info.state))
    }

    /// The first maximal run of pages of which a question has the same answer. Its cost is the runs up to its end.
    fn first_where<K: Copy + PartialEq>(
        &self,
        range: Range<u64>,
        ask: impl Fn(PageInfo) -> Option<K>,
    ) -> Option<(PageRange, K)> {
        // Most ranges lie within one run, and then nothing has to be joined.
        if let Some(run) = self.pages.run_from(range.start).filter(|run| run.pages.end >= range.end) {
            return Some((page_range(range)?, ask(run.first)?));
        }
        let mut found: Option<(Range<u64>, K)> = None;
        for Run { pages, first } in self.pages.runs(range) {
            match (&mut found, ask(first)) {
                (Some((run, kind)), Some(same)) if *kind == same && run.end == pages.start => {
                    run.end = pages.end;
                }
                (Some(_), _) => break,
                (None, Some(kind)) => found = Some((pages, kind)),
                (None, None) => {}
            }
        }
        let (run, kind) = found?;
        Some((page_range(run)?, kind))
    }

    fn idle_in(&self, range: Range<u64>) -> u64 {
        let idle = self.pages.runs(range).filter(|run| run.first.has_idle());
        idle.fold(0, |sum: u64, run| sum.saturating_add(run.pages.end.saturating_sub(run.pages.start)))
    }
}

/// The frames of a range.
pub(crate) fn frames(range: PageRange) -> Range<u64> {
    range.gfn().0..range.end().0
}

/// A range of frames; `None` for none.
pub(crate) fn page_range(frames: Range<u64>) -> Option<PageRange> {
    PageRange::new(Gfn(frames.start), frames.end.checked_sub(frames.start)?)
}

#[cfg(test)]
mod tests;
