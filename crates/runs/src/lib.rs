//! A map from page numbers to values that stores runs.
//!
//! The kernel half in software keeps attributes, backing and the reverse map in it, the VMM half what it knows of its
//! pages. Neither depends on the other.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

/// What the pages of a run hold. The first page's value decides the others.
pub trait Linear: Copy + PartialEq {
    /// The value of the page that lies so many pages behind.
    #[must_use]
    fn advance(self, pages: u64) -> Self;
}

impl Linear for () {
    fn advance(self, _: u64) -> Self {}
}

/// Pages and their values, as maximal runs: two that touch and continue each other are one.
///
/// What an operation costs is decided by the runs that it meets and never by the pages they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMap<V> {
    /// The first page, the page behind the last, and the value of the first.
    runs: BTreeMap<u64, (u64, V)>,
}

/// One run: `pages` is not empty, and `first` is the value of its first page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run<V> {
    /// Its pages.
    pub pages: Range<u64>,
    /// The value of the first of them.
    pub first: V,
}

impl<V> Default for RunMap<V> {
    fn default() -> Self {
        Self { runs: BTreeMap::new() }
    }
}

impl<V: Linear> RunMap<V> {
    /// The value of a page.
    #[must_use]
    pub fn get(&self, page: u64) -> Option<V> {
        let (start, (end, first)) = self.runs.range(..=page).next_back()?;
        (*end > page).then(|| first.advance(page.wrapping_sub(*start)))
    }

    /// The rest of the run that holds a page, from that page on.
    #[must_use]
    pub fn run_from(&self, page: u64) -> Option<Run<V>> {
        let (start, (end, first)) = self.runs.range(..=page).next_back()?;
        (*end > page).then(|| Run { pages: page..*end, first: first.advance(page.wrapping_sub(*start)) })
    }

    /// The first run that reaches into a range, clipped to it.
    #[must_use]
    pub fn first_in(&self, pages: Range<u64>) -> Option<Run<V>> {
        if pages.start >= pages.end {
            return None;
        }
        let run = if let Some(run) = self.run_from(pages.start) {
            run
        } else {
            let (start, (end, first)) = self.runs.range(pages.clone()).next()?;
            Run { pages: *start..*end, first: *first }
        };
        let end = run.pages.end.min(pages.end);
        (run.pages.start < end).then_some(Run { pages: run.pages.start..end, first: run.first })
    }

    /// The runs that reach into a range, clipped to it, in order.
    pub fn runs(&self, pages: Range<u64>) -> impl Iterator<Item = Run<V>> + '_ {
        let head = self
            .run_from(pages.start)
            .filter(|_| pages.start < pages.end)
            .map(|run| Run { pages: run.pages.start..run.pages.end.min(pages.end), first: run.first });
        // The head is found by the page before, so the others start behind the first page.
        let after = if head.is_some() { pages.start.saturating_add(1) } else { pages.start };
        let tail = after..pages.end.max(after);
        head.into_iter().chain(
            self.runs.range(tail).map(move |(start, (end, first))| Run {
                pages: *start..(*end).min(pages.end),
                first: *first,
            }),
        )
    }

    /// Whether every page of a range holds a value.
    #[must_use]
    pub fn covers(&self, pages: Range<u64>) -> bool {
        let mut next = pages.start;
        while next < pages.end {
            match self.runs.range(..=next).next_back() {
                Some((_, (end, _))) if *end > next => next = *end,
                _ => return false,
            }
        }
        true
    }

    /// Whether no page of a range holds a value.
    #[must_use]
    pub fn is_free(&self, pages: Range<u64>) -> bool {
        pages.start >= pages.end || self.last_before(pages.end).is_none_or(|end| end <= pages.start)
    }

    /// Where the last run ends that begins before a page.
    fn last_before(&self, page: u64) -> Option<u64> {
        self.runs.range(..page).next_back().map(|(_, (end, _))| *end)
    }

    /// How many pages hold a value.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.runs.iter().fold(0, |sum: u64, (start, (end, _))| sum.saturating_add(end.wrapping_sub(*start)))
    }

    /// How many runs there are.
    #[must_use]
    pub fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// Gives the first page of a range a value, and the others those that follow from it.
    pub fn put(&mut self, pages: Range<u64>, first: V) {
        if pages.start >= pages.end || self.replace(&pages, first) {
            return;
        }
        self.clear(pages.clone());
        let mut end = pages.end;
        if let Entry::Occupied(run) = self.runs.entry(end) {
            let (right_end, right) = *run.get();
            if right == first.advance(end.wrapping_sub(pages.start)) {
                run.remove();
                end = right_end;
            }
        }
        if let Some((start, (left_end, left))) = self.runs.range_mut(..pages.start).next_back() {
            if *left_end == pages.start && left.advance(pages.start.wrapping_sub(*start)) == first {
                *left_end = end;
                return;
            }
        }
        self.runs.insert(pages.start, (end, first));
    }

    /// Gives a run that is exactly this range another value, in place, unless it becomes one with a neighbour. Whether it
    /// did.
    fn replace(&mut self, pages: &Range<u64>, first: V) -> bool {
        if !matches!(self.runs.get(&pages.start), Some((end, _)) if *end == pages.end) {
            return false;
        }
        let behind = first.advance(pages.end.wrapping_sub(pages.start));
        if matches!(self.runs.get(&pages.end), Some((_, right)) if *right == behind) {
            return false;
        }
        if let Some((start, (end, left))) = self.runs.range(..pages.start).next_back() {
            if *end == pages.start && left.advance(end.wrapping_sub(*start)) == first {
                return false;
            }
        }
        self.runs.get_mut(&pages.start).is_some_and(|(_, value)| {
            *value = first;
            true
        })
    }

    /// Takes the values of a range away.
    pub fn clear(&mut self, pages: Range<u64>) {
        if pages.start >= pages.end {
            return;
        }
        // From behind: each run that begins inside goes, and the one that begins before ends at the range.
        let mut behind = None;
        while let Some((&start, (end, first))) = self.runs.range_mut(..pages.end).next_back() {
            if *end <= pages.start {
                break;
            }
            if *end > pages.end {
                behind = Some((*end, first.advance(pages.end.wrapping_sub(start))));
            }
            if start < pages.start {
                *end = pages.start;
                break;
            }
            self.runs.remove(&start);
        }
        if let Some(run) = behind {
            self.runs.insert(pages.end, run);
        }
    }

    /// Replaces the values of a range by what `change` makes of them. Pages without a value stay so. `change` is given
    /// the first page of each run and must treat the others alike.
    pub fn update(&mut self, pages: Range<u64>, mut change: impl FnMut(V) -> V) {
        let mut next = pages.start;
        while let Some(run) = self.first_in(next..pages.end) {
            next = run.pages.end;
            let changed = change(run.first);
            if changed != run.first {
                self.put(run.pages, changed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::Config;

    /// A page's number in another numbering, and a mark.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct At(u64, bool);

    impl Linear for At {
        fn advance(self, pages: u64) -> Self {
            Self(self.0.wrapping_add(pages), self.1)
        }
    }

    #[derive(Clone, Debug)]
    enum Change {
        Put(Range<u64>, At),
        Clear(Range<u64>),
        Mark(Range<u64>, bool),
    }

    const PAGES: u64 = 48;

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let range = || (0..PAGES, 0..12u64).prop_map(|(start, pages)| start..start + pages);
        let change = prop_oneof![
            // Few offsets, so that runs continue each other often.
            3 => (range(), 0..2u64, any::<bool>())
                .prop_map(|(pages, offset, mark)| Change::Put(pages.clone(), At(pages.start + 100 * offset, mark))),
            2 => range().prop_map(Change::Clear),
            2 => (range(), any::<bool>()).prop_map(|(pages, mark)| Change::Mark(pages, mark)),
        ];
        vec(change, 1..60)
    }

    fn check(runs: &RunMap<At>, table: &BTreeMap<u64, At>) -> Result<(), TestCaseError> {
        for page in 0..PAGES + 16 {
            prop_assert_eq!(runs.get(page), table.get(&page).copied(), "page {}", page);
        }
        prop_assert_eq!(runs.pages(), table.len() as u64);
        let all: Vec<_> = runs.runs(0..u64::MAX).collect();
        prop_assert_eq!(all.len(), runs.run_count());
        for pair in all.windows(2) {
            let [left, right] = pair else { continue };
            prop_assert!(left.pages.end <= right.pages.start && left.pages.start < left.pages.end);
            let next = left.first.advance(left.pages.end - left.pages.start);
            prop_assert!(left.pages.end < right.pages.start || next != right.first, "two runs are one");
        }
        for start in (0..PAGES).step_by(5) {
            for end in (start..PAGES + 8).step_by(3) {
                let seen: Vec<_> = runs
                    .runs(start..end)
                    .flat_map(|run| run.pages.map(|page| (page, runs.get(page))))
                    .collect();
                let expected: Vec<_> = table.range(start..end).map(|(page, at)| (*page, Some(*at))).collect();
                prop_assert_eq!(runs.covers(start..end), expected.len() as u64 == end - start);
                prop_assert_eq!(runs.is_free(start..end), expected.is_empty());
                prop_assert_eq!(seen, expected, "{}..{}", start, end);
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(Config { cases: 300, failure_persistence: None, ..Config::default() })]

        #[test]
        fn runs_behave_like_a_table_of_pages_and_are_maximal(changes in changes()) {
            let mut runs = RunMap::default();
            let mut table = BTreeMap::new();
            for change in changes {
                match change {
                    Change::Put(pages, first) => {
                        runs.put(pages.clone(), first);
                        table.extend(pages.clone().map(|page| (page, first.advance(page - pages.start))));
                    }
                    Change::Clear(pages) => {
                        runs.clear(pages.clone());
                        table.retain(|page, _| !pages.contains(page));
                    }
                    Change::Mark(pages, mark) => {
                        runs.update(pages.clone(), |At(page, _)| At(page, mark));
                        table.range_mut(pages).for_each(|(_, at)| at.1 = mark);
                    }
                }
            }
            check(&runs, &table)?;
        }
    }

    #[test]
    fn the_borders_of_the_numbers_are_pages_like_others() {
        let mut runs = RunMap::default();
        runs.put(0..u64::MAX, ());
        assert_eq!(runs.get(u64::MAX - 1), Some(()));
        assert_eq!(runs.get(u64::MAX), None);
        runs.clear(1..u64::MAX - 1);
        assert_eq!((runs.pages(), runs.run_count()), (2, 2));
        runs.put(1..u64::MAX - 1, ());
        assert_eq!(runs.run_count(), 1);
        assert!(runs.covers(0..u64::MAX) && runs.is_free(u64::MAX..u64::MAX));
    }
}
