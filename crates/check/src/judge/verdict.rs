//! Verdicts: what came of each rule in each of its scenarios.

use super::bench::{self, Trial};
use super::checkers;
use super::twist::Twist;
use super::variants::{self, Variant};
use super::view::{Finding, View};
use crate::rules::{self, Rule, Severity};
use exeunt_scenes::{Situation, situations};
use serde::Serialize;
use std::fmt;
use thiserror::Error;

/// What came of one rule in one scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// The rule bit, and was kept.
    Passed,
    /// A MUST was broken.
    Failed(Finding),
    /// A SHOULD or a HAZARD was broken.
    Warned(Finding),
    /// The VMM did not get to where the rule bites, or the rule does not hold for the kernel.
    NotExercised,
}

/// A verdict, and how to get it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// The rule.
    pub rule: &'static str,
    /// What it asks for.
    pub text: &'static str,
    /// The scenario.
    pub scenario: &'static str,
    /// Who was judged: `None` is our half.
    pub vmm: Option<&'static str>,
    /// What decided by chance.
    pub seed: u64,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Where the rule is written.
    pub source: &'static str,
}

impl Judged {
    /// The rule was broken.
    #[must_use]
    pub const fn finding(&self) -> Option<&Finding> {
        match &self.verdict {
            Verdict::Failed(finding) | Verdict::Warned(finding) => Some(finding),
            Verdict::Passed | Verdict::NotExercised => None,
        }
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, text, scenario, seed, source, .. } = self;
        let word = match self.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed(_) => "FAILED",
            Verdict::Warned(_) => "warned",
            Verdict::NotExercised => "not exercised",
        };
        write!(f, "{rule:<6} {word:<13} {scenario}")?;
        let Some(Finding { exit, expected, seen }) = self.finding() else { return Ok(()) };
        write!(f, "\n  rule      {text}\n  expected  {expected}\n  seen      {seen}")?;
        match exit {
            0 => write!(f, "\n  where     outside of the exits")?,
            exit => write!(f, "\n  where     exit {exit}")?,
        }
        write!(f, "\n  source    {source}\n  again     exeunt rules {rule} --check --seed {seed}")?;
        match self.vmm {
            Some(vmm) => write!(f, " --vmm {vmm}"),
            None => Ok(()),
        }
    }
}

/// Why nothing was judged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// No VMM of this name is wrong on purpose.
    #[error("no VMM is named '{name}'; `exeunt rules --vmms` lists all")]
    UnknownVmm {
        /// The name.
        name: String,
    },
    /// A scenario cannot be set up.
    #[error("{why}")]
    SetUp {
        /// Which, and why.
        why: String,
    },
}

/// A VMM that is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WrongVmm {
    /// Its name, for [`judge`].
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// The rules that it breaks.
    pub breaks: &'static [&'static str],
}

/// All VMMs that are wrong on purpose.
pub fn wrong_vmms() -> impl Iterator<Item = WrongVmm> {
    variants::all().map(|Variant { name, what, breaks, .. }| WrongVmm { name, what, breaks })
}

/// Judges our half, or one that is wrong in the way of this name, by some rules: in each of their scenarios, in the
/// order of the rules.
///
/// # Errors
///
/// There is no such VMM, or a scenario cannot be set up.
pub fn judge(
    vmm: Option<&str>,
    chosen: impl Fn(&Rule) -> bool,
    seed: u64,
) -> Result<Vec<Judged>, JudgeError> {
    let variant = match vmm {
        None => None,
        Some(name) => {
            let variant = variants::all().find(|variant| variant.name == name);
            Some(variant.ok_or_else(|| JudgeError::UnknownVmm { name: name.into() })?)
        }
    };
    judge_variant(variant, &situations::all(), chosen, seed)
}

/// As [`judge`], for many.
pub(super) fn judge_variant(
    variant: Option<&Variant>,
    situations: &[Situation],
    chosen: impl Fn(&Rule) -> bool,
    seed: u64,
) -> Result<Vec<Judged>, JudgeError> {
    let rules: Vec<&'static Rule> = rules::all().filter(|rule| chosen(rule)).collect();
    let mut judged = Vec::new();
    for situation in situations {
        let bites = |rule: &&&'static Rule| rule.scenarios.iter().any(|name| name == situation.name);
        let rules: Vec<_> = rules.iter().filter(bites).collect();
        if rules.is_empty() {
            continue;
        }
        let twist = variant.map_or(Twist::default as fn() -> Twist, |variant| variant.twist);
        let trial = bench::run(situation, twist, seed).map_err(|why| JudgeError::SetUp { why })?;
        judged.extend(rules.into_iter().map(|rule| Judged {
            rule: &rule.id,
            text: &rule.text,
            scenario: situation.name,
            vmm: variant.map(|variant| variant.name),
            seed,
            verdict: verdict(rule, &trial),
            source: &rule.source,
        }));
    }
    let place = |judged: &Judged| rules.iter().position(|rule| rule.id == judged.rule);
    judged.sort_by_key(place);
    Ok(judged)
}

fn verdict(rule: &Rule, trial: &Trial) -> Verdict {
    if !rule.holds_for(trial.situation.kernel.dialect) {
        return Verdict::NotExercised;
    }
    let judgement = checkers::of(&rule.id).map(|checker| checker(&View::new(trial)));
    match (judgement, rule.severity) {
        (None | Some(Ok(false)), _) => Verdict::NotExercised,
        (Some(Ok(true)), _) => Verdict::Passed,
        (Some(Err(finding)), Severity::Must) => Verdict::Failed(finding),
        (Some(Err(finding)), Severity::Should | Severity::Hazard) => Verdict::Warned(finding),
    }
}
