//! Memory attributes: which frames are private, kept as runs.

use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_runs::RunMap;
use std::ops::Range;

/// The private frames of a VM. Everything else is shared, which is what a new VM starts with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    private: RunMap<()>,
}

impl Attributes {
    /// The state of one frame.
    pub(crate) fn get(&self, gfn: u64) -> PageState {
        if self.private.get(gfn).is_some() { PageState::Private } else { PageState::Shared }
    }

    /// Whether every frame of a run has one state already, so that there is nothing to do.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_range_has_memory_attributes`.
    pub(crate) fn are(&self, range: PageRange, state: PageState) -> bool {
        match state {
            PageState::Private => self.private.covers(frames(range)),
            PageState::Shared => self.private.is_free(frames(range)),
        }
    }

    /// Gives every frame of a run one state.
    pub(crate) fn set(&mut self, range: PageRange, to: PageState) {
        match to {
            PageState::Private => self.private.put(frames(range), ()),
            PageState::Shared => self.private.clear(frames(range)),
        }
    }

    /// The state of a frame, and where the frames of that state that follow it end, at most at `end`.
    pub(crate) fn state_until(&self, gfn: u64, end: u64) -> (PageState, u64) {
        match self.private.first_in(gfn..end) {
            Some(run) if run.pages.start == gfn => (PageState::Private, run.pages.end),
            Some(run) => (PageState::Shared, run.pages.start),
            None => (PageState::Shared, end),
        }
    }

    /// How many runs of private frames there are.
    pub(crate) fn run_count(&self) -> usize {
        self.private.run_count()
    }
}

/// The frames of a run.
pub(crate) fn frames(range: PageRange) -> Range<u64> {
    range.gfn().0..range.end().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_abi::Gfn;

    fn range(gfn: u64, pages: u64) -> PageRange {
        PageRange::new(Gfn(gfn), pages).unwrap()
    }

    #[test]
    fn a_change_that_changes_nothing_is_seen_as_such() {
        let mut attributes = Attributes::default();
        assert!(attributes.are(range(0, 1 << 40), PageState::Shared));
        attributes.set(range(2, 4), PageState::Private);
        for (gfn, pages, state, expected) in [
            (2, 4, PageState::Private, true),
            (3, 2, PageState::Private, true),
            (1, 2, PageState::Private, false),
            (5, 2, PageState::Private, false),
            (0, 2, PageState::Shared, true),
            (6, 100, PageState::Shared, true),
            (0, 3, PageState::Shared, false),
            (5, 2, PageState::Shared, false),
        ] {
            assert_eq!(attributes.are(range(gfn, pages), state), expected, "{gfn} {pages} {state}");
        }
        assert_eq!(attributes.state_until(0, 9), (PageState::Shared, 2));
        assert_eq!(attributes.state_until(3, 9), (PageState::Private, 6));
        assert_eq!(attributes.state_until(6, 9), (PageState::Shared, 9));
    }
}
