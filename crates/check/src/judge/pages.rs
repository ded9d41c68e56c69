//! What the pages of a VM are, as the changes of attributes left them.

use super::transcript::Effect;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Gfn, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_scenes::Situation;

/// Runs of private pages, apart and in order. What is in none is shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pages {
    private: Vec<(u64, u64)>,
}

impl Pages {
    /// After the launch: memory of guests with a reverse map and of TDs is private.
    pub(super) fn launched(situation: &Situation) -> Self {
        let mut pages = Self::default();
        if matches!(situation.vm_type, VmType::Snp | VmType::Tdx) {
            for part in situation.memory.iter().filter(|part| part.has_private) {
                if let Some(range) = PageRange::new(Gpa(part.gpa).gfn(), part.bytes / PAGE_SIZE) {
                    pages.set(range, PageState::Private);
                }
            }
        }
        pages
    }

    /// After a change.
    pub(super) fn note(&mut self, effect: &Effect, succeeded: bool) {
        if let (Effect::Attributes { range, to }, true) = (effect, succeeded) {
            self.set(*range, *to);
        }
    }

    pub(super) fn set(&mut self, range: PageRange, to: PageState) {
        let (start, end) = (range.gfn().0, range.end().0);
        let outside = |(from, until): (u64, u64)| [(from, until.min(start)), (from.max(end), until)];
        let mut private: Vec<_> =
            self.private.iter().copied().flat_map(outside).filter(|(from, until)| from < until).collect();
        if to == PageState::Private {
            private.push((start, end));
        }
        private.sort_unstable();
        self.private = private;
    }

    /// How many pages of a range have a state.
    pub(super) fn count(&self, range: PageRange, state: PageState) -> u64 {
        let inside = |(from, until): &(u64, u64)| {
            (*until).min(range.end().0).saturating_sub((*from).max(range.gfn().0))
        };
        let private: u64 = self.private.iter().map(inside).sum();
        match state {
            PageState::Private => private,
            PageState::Shared => range.pages().saturating_sub(private),
        }
    }

    /// The runs of pages of a range that have a state.
    pub(super) fn runs(&self, range: PageRange, state: PageState) -> Vec<PageRange> {
        let (start, end) = (range.gfn().0, range.end().0);
        let clip = |(from, until): (u64, u64)| {
            let from = from.max(start);
            PageRange::new(Gfn(from), until.min(end).saturating_sub(from))
        };
        if state == PageState::Private {
            return self.private.iter().copied().filter_map(clip).collect();
        }
        let ends = self.private.iter().map(|(_, until)| *until);
        let starts = self.private.iter().map(|(from, _)| *from);
        let gaps = std::iter::once(0).chain(ends).zip(starts.chain([u64::MAX]));
        gaps.filter_map(clip).collect()
    }

    /// How many pages of a range have a state both here and there.
    pub(super) fn count_both(&self, other: &Self, range: PageRange, state: PageState) -> u64 {
        // Run by run, since a slot may have more pages than anyone waits for.
        self.runs(range, state).into_iter().map(|run| other.count(run, state)).sum()
    }

    /// Whether all pages of a range have a state.
    pub(super) fn are(&self, range: PageRange, state: PageState) -> bool {
        self.count(range, state) == range.pages()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_alike_in_two_are_counted_in_any_size_at_once() {
        let with = |ranges: &[(u64, u64)]| {
            let mut pages = Pages::default();
            let ranges = ranges.iter().filter_map(|(gfn, count)| PageRange::new(Gfn(*gfn), *count));
            ranges.for_each(|range| pages.set(range, PageState::Private));
            pages
        };
        let (one, other) =
            (with(&[(2, 4), (8, 2), (1 << 30, 1 << 38)]), with(&[(0, 3), (5, 4), (1 << 31, 1 << 38)]));
        let small = PageRange::new(Gfn(1), 8).unwrap();
        assert_eq!(one.count_both(&other, small, PageState::Private), 3, "2, 5 and 8");
        assert_eq!(one.count_both(&other, small, PageState::Shared), 0);
        assert_eq!(one.count_both(&with(&[]), small, PageState::Shared), 3, "1, 6 and 7");
        let all = PageRange::new(Gfn(0), 1 << 40).unwrap();
        assert_eq!(one.count_both(&other, all, PageState::Private), (1 << 38) - (1 << 30) + 3);
    }

    #[test]
    fn every_pair_of_changes_in_a_small_space_leaves_what_the_last_of_each_page_says() {
        let ranges = || (0..5).flat_map(|gfn| (1..=5 - gfn).map(move |pages| (gfn, pages)));
        let states = [PageState::Private, PageState::Shared];
        for (first, second) in ranges().flat_map(|first| ranges().map(move |second| (first, second))) {
            for to in [[states[0], states[0]], [states[0], states[1]], [states[1], states[0]]] {
                let mut pages = Pages::default();
                let mut each = [PageState::Shared; 5];
                for ((gfn, count), to) in [first, second].into_iter().zip(to) {
                    pages.set(PageRange::new(Gfn(gfn), count).unwrap(), to);
                    (gfn..gfn + count).for_each(|gfn| each[usize::try_from(gfn).unwrap()] = to);
                }
                for (gfn, state) in (0..).zip(each) {
                    let page = PageRange::new(Gfn(gfn), 1).unwrap();
                    assert!(pages.are(page, state), "{first:?} {second:?} {to:?}: {gfn}");
                }
                let all = PageRange::new(Gfn(0), 5).unwrap();
                let private = each.iter().filter(|state| **state == PageState::Private).count();
                assert_eq!(pages.count(all, PageState::Private), private as u64);
                for state in states {
                    let runs = pages.runs(all, state).into_iter();
                    let inside: Vec<_> = runs.flat_map(|run| run.gfn().0..run.end().0).collect();
                    let expected: Vec<_> =
                        (0..).zip(each).filter(|(_, is)| *is == state).map(|(gfn, _)| gfn).collect();
                    assert_eq!(inside, expected, "{state}");
                }
            }
        }
    }
}
