//! Memory attributes: which frames are private, kept as runs.

use exeunt_proto::conversion::{PageRange, PageState};
use std::collections::BTreeMap;

/// The private frames of a VM, as non-adjacent runs from start to end (exclusive). Everything else is shared, which
/// is what a new VM starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    private: BTreeMap<u64, u64>,
}

impl Attributes {
    /// The state of one frame.
    pub(crate) fn get(&self, gfn: u64) -> PageState {
        match self.private.range(..=gfn).next_back() {
            Some((_, end)) if *end > gfn => PageState::Private,
            _ => PageState::Shared,
        }
    }

    /// Gives every frame of a run one state.
    pub(crate) fn set(&mut self, range: PageRange, to: PageState) {
        let (mut start, mut end) = (range.gfn().0, range.end().0);
        let keep = to == PageState::Private;
        // A run that touches the range from the left, when both become one, or reaches into it.
        if let Some((&left, &left_end)) = self.private.range(..start).next_back() {
            if left_end > end && !keep {
                self.private.insert(end, left_end);
            }
            if left_end > start || (keep && left_end == start) {
                if keep {
                    start = left;
                    end = end.max(left_end);
                } else {
                    self.private.insert(left, start);
                }
            }
        }
        while let Some((&run, &run_end)) = self.private.range(start..end.saturating_add(1)).next() {
            if run == end && !keep {
                break;
            }
            self.private.remove(&run);
            if run_end > end {
                if keep {
                    end = run_end;
                } else {
                    self.private.insert(end, run_end);
                    break;
                }
            }
        }
        if keep {
            self.private.insert(start, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;
    use exeunt_abi::Gfn;

    #[test]
    fn runs_behave_like_a_table_of_frames() {
        let mut rng = Rng::new(1);
        let mut runs = Attributes::default();
        let mut table = [PageState::Shared; 40];
        for step in 0..20_000 {
            let gfn = rng.below(32);
            let pages = 1 + rng.below(8);
            let to = if rng.below(2) == 0 { PageState::Private } else { PageState::Shared };
            runs.set(PageRange::new(Gfn(gfn), pages).unwrap(), to);
            for frame in gfn..gfn + pages {
                table[usize::try_from(frame).unwrap()] = to;
            }
            for (frame, state) in table.iter().enumerate() {
                assert_eq!(runs.get(frame as u64), *state, "step {step}, frame {frame}");
            }
            let ends: Vec<_> = runs.private.iter().collect();
            assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0), "runs are maximal: {ends:?}");
        }
    }
}
