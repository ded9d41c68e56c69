//! The counters of one vCPU. One thread writes them, so that counting needs no locked instruction; any may read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use exeunt::layer::event::{ActionKind, ExitKind, ReplyKind};
use exeunt::terminate::StopKind;

/// Upper bounds of the buckets: 1.024 us times powers of 4, so that a bucket is found by counting bits. The last
/// bucket, behind the last bound, has none.
pub(super) const BOUNDS_NS: [u64; BUCKETS - 1] = {
    let mut bounds = [1024; BUCKETS - 1];
    let mut index = 1;
    while index < bounds.len() {
        bounds[index] = bounds[index - 1] * 4;
        index += 1;
    }
    bounds
};

/// Buckets of a histogram.
pub(super) const BUCKETS: usize = 12;

const EXITS: usize = ExitKind::ALL.len();
const ACTIONS: usize = ActionKind::ALL.len();

/// All counters, by the index of their kind.
#[derive(Debug)]
pub(super) struct Cells {
    pub(super) exits: [AtomicU64; EXITS],
    pub(super) errors: [AtomicU64; EXITS],
    pub(super) handling: [Histogram; EXITS],
    /// Two for each kind of action: succeeded, failed.
    pub(super) effects: [AtomicU64; ACTIONS * 2],
    pub(super) effect_bytes: [AtomicU64; ACTIONS],
    pub(super) replies: [AtomicU64; ReplyKind::ALL.len()],
    pub(super) stops: [AtomicU64; StopKind::ALL.len()],
}

/// How long it took, how often.
#[derive(Debug)]
pub(super) struct Histogram {
    /// Not cumulative: each exit is in one.
    pub(super) buckets: [AtomicU64; BUCKETS],
    pub(super) sum_ns: AtomicU64,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            exits: zeroes(),
            errors: zeroes(),
            handling: [const { Histogram { buckets: zeroes(), sum_ns: AtomicU64::new(0) } }; EXITS],
            effects: zeroes(),
            effect_bytes: zeroes(),
            replies: zeroes(),
            stops: zeroes(),
        }
    }
}

const fn zeroes<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

impl Cells {
    /// Notes the time of one exit.
    pub(super) fn latency(&self, kind: ExitKind, time: Duration) {
        let Some(histogram) = self.handling.get(kind.index()) else { return };
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        bump(histogram.buckets.get(bucket_of(ns)), 1);
        bump(Some(&histogram.sum_ns), ns);
    }

    /// Adds another vCPU's counters to these.
    pub(super) fn add(&self, other: &Self) {
        fn add(to: &[AtomicU64], from: &[AtomicU64]) {
            for (to, from) in to.iter().zip(from) {
                bump(Some(to), from.load(Ordering::Relaxed));
            }
        }
        add(&self.exits, &other.exits);
        add(&self.errors, &other.errors);
        add(&self.effects, &other.effects);
        add(&self.effect_bytes, &other.effect_bytes);
        add(&self.replies, &other.replies);
        add(&self.stops, &other.stops);
        for (to, from) in self.handling.iter().zip(&other.handling) {
            add(&to.buckets, &from.buckets);
            bump(Some(&to.sum_ns), from.sum_ns.load(Ordering::Relaxed));
        }
    }
}

/// Adds to a counter that this thread alone writes. It wraps, as Prometheus expects of a counter that starts anew.
pub(super) fn bump(cell: Option<&AtomicU64>, by: u64) {
    if let Some(cell) = cell {
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }
}

/// The first bucket whose bound is not below `ns`.
pub(super) fn bucket_of(ns: u64) -> usize {
    let bits = u64::BITS - ns.saturating_sub(1).leading_zeros();
    let bucket = bits.saturating_sub(9) / 2;
    (bucket as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_holds_it() {
        let expected = |ns| BOUNDS_NS.iter().position(|bound| ns <= *bound).unwrap_or(BUCKETS - 1);
        for ns in (0..5000).chain(BOUNDS_NS.iter().flat_map(|bound| [bound - 1, *bound, bound + 1])) {
            assert_eq!(bucket_of(ns), expected(ns), "{ns}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }
}
