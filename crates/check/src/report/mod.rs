//! Reports: what happened, for people and for programs.

mod text;

use crate::runner::{Half, ScenarioReport, Verdict};
use serde::Serialize;

pub use text::{scenario_text, summary_text};

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The kernel half.
    pub kernel: Half,
    /// What chance drew from.
    pub seed: u64,
    /// The scenarios, in order.
    pub scenarios: Vec<ScenarioReport>,
    /// The sums.
    pub summary: Summary,
}

/// How many cases came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// All expectations met.
    pub passed: usize,
    /// An expectation not met.
    pub failed: usize,
    /// Ran on a kernel without expectations.
    pub not_judged: usize,
    /// Could not run here.
    pub skipped: usize,
}

impl Summary {
    /// Adds a scenario's cases.
    pub fn add(&mut self, scenario: &ScenarioReport) {
        for case in &scenario.cases {
            let count = match case.verdict {
                Verdict::Passed => &mut self.passed,
                Verdict::Failed { .. } => &mut self.failed,
                Verdict::NotJudged { .. } => &mut self.not_judged,
                Verdict::Skipped { .. } => &mut self.skipped,
            };
            *count += 1;
        }
    }

    /// How many cases ran.
    #[must_use]
    pub const fn ran(&self) -> usize {
        self.passed + self.failed + self.not_judged
    }
}
