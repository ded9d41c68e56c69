//! Many worlds on several threads, and what came of them together.

use super::{Config, Outcome, Violation, explore};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Violations that are kept. A mistake breaks many worlds in the same way.
const MAX_VIOLATIONS: usize = 16;

/// What came of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Worlds that ran.
    pub worlds: u64,
    /// Turns of vCPUs in all of them.
    pub steps: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Worlds that broke a rule.
    pub broken: u64,
    /// The first violations by seed, 16 at most.
    pub violations: Vec<Violation>,
}

impl Summary {
    fn add(&mut self, result: Result<Outcome, Violation>) {
        self.worlds = self.worlds.saturating_add(1);
        match result {
            Ok(outcome) => {
                self.steps = self.steps.saturating_add(outcome.steps);
                self.faults = self.faults.saturating_add(outcome.faults as u64);
            }
            Err(violation) => {
                self.broken = self.broken.saturating_add(1);
                self.steps = self.steps.saturating_add(violation.step);
                self.violations.push(violation);
                self.violations.sort_by_key(|violation| violation.seed);
                self.violations.truncate(MAX_VIOLATIONS);
            }
        }
    }
}

/// Runs the worlds of `count` seeds from `first` on, on `jobs` threads. `progress` is called after each world with how
/// many are done.
pub fn sweep(
    first: u64,
    count: u64,
    jobs: usize,
    config: &Config,
    progress: &(dyn Fn(u64) + Sync),
) -> Summary {
    let next = AtomicU64::new(0);
    let summary = Mutex::new(Summary::default());
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            let result = explore(first.wrapping_add(index), config);
            let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
            summary.add(result);
            progress(summary.worlds);
        }
    };
    thread::scope(|scope| {
        for _ in 1..jobs.max(1) {
            scope.spawn(work);
        }
        work();
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}
