//! Verdicts: what came of each rule in each of its scenarios.

use super::bench::{self, Trial};
use super::bytes::ExitBytes;
use super::checkers;
use super::twist::Twist;
use super::variants::{self, Variant};
use super::view::{Finding, View};
use crate::rules::{self, Rule, Severity};
use exeunt_abi::Dialect;
use exeunt_scenes::{Situation, situations};
use serde::Serialize;
use thiserror::Error;

/// What came of one rule in one scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The rule bit, and was kept.
    Passed,
    /// A MUST was broken.
    Failed(Finding),
    /// A SHOULD or a HAZARD was broken.
    Warned(Finding),
    /// The VMM did not get to where the rule bites, or the rule does not hold for the kernel.
    NotExercised {
        /// Which of the two.
        why: String,
    },
}

impl Verdict {
    /// The rule was not exercised.
    #[must_use]
    pub fn not_exercised(why: impl Into<String>) -> Self {
        Self::NotExercised { why: why.into() }
    }
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The rule.
    pub rule: &'static str,
    /// The scenario.
    pub scenario: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// The exit that the finding speaks of, if it speaks of one.
    pub bytes: Option<Box<ExitBytes>>,
}

impl Judged {
    /// The rule was broken.
    #[must_use]
    pub const fn finding(&self) -> Option<&Finding> {
        match &self.verdict {
            Verdict::Failed(finding) | Verdict::Warned(finding) => Some(finding),
            Verdict::Passed | Verdict::NotExercised { .. } => None,
        }
    }
}

/// A scenario of the judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// Its name, as in `rules.toml`.
    pub name: &'static str,
    /// The kernel that writes the bytes.
    pub dialect: Dialect,
}

impl Scene {
    /// The rules that bite there, in their order.
    pub fn rules(&self) -> impl Iterator<Item = &'static Rule> + use<> {
        let name = self.name;
        rules::all().filter(move |rule| rule.scenarios.iter().any(|scenario| scenario == name))
    }
}

/// All scenarios of the judge, in their order.
pub fn scenes() -> impl Iterator<Item = Scene> {
    let scene = |it: Situation| Scene { name: it.name, dialect: it.kernel.dialect };
    situations::all().into_iter().map(scene)
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

/// Judges our half, or one that is wrong in the way of this name, by some rules in some scenarios: in the order of the
/// rules.
///
/// # Errors
///
/// There is no such VMM, or a scenario cannot be set up.
pub fn judge(
    vmm: Option<&str>,
    rules: impl Fn(&Rule) -> bool,
    scenes: impl Fn(&Scene) -> bool,
    seed: u64,
) -> Result<Vec<Judged>, JudgeError> {
    let variant = match vmm {
        None => None,
        Some(name) => {
            let variant = variants::all().find(|variant| variant.name == name);
            Some(variant.ok_or_else(|| JudgeError::UnknownVmm { name: name.into() })?)
        }
    };
    let is_chosen = |it: &Situation| scenes(&Scene { name: it.name, dialect: it.kernel.dialect });
    let chosen: Vec<_> = situations::all().into_iter().filter(is_chosen).collect();
    judge_variant(variant, &chosen, rules, seed)
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
        let rules: Vec<&'static Rule> = rules.iter().filter(bites).copied().collect();
        if rules.is_empty() {
            continue;
        }
        let twist = variant.map_or(Twist::default as fn() -> Twist, |variant| variant.twist);
        let trial = bench::run(situation, twist, seed).map_err(|why| JudgeError::SetUp { why })?;
        judged.extend(judge_trial(&trial, rules));
    }
    let place = |judged: &Judged| rules.iter().position(|rule| rule.id == judged.rule);
    judged.sort_by_key(place);
    Ok(judged)
}

/// Judges what crossed the boundary by some rules.
pub(crate) fn judge_trial(trial: &Trial, rules: impl IntoIterator<Item = &'static Rule>) -> Vec<Judged> {
    let view = View::new(trial);
    let judged = |rule: &'static Rule| {
        let verdict = verdict(rule, &view);
        let mut judged = Judged { rule: &rule.id, scenario: trial.situation.name, verdict, bytes: None };
        let number = judged.finding().map_or(0, |finding| finding.exit);
        let exit = view.exits.iter().find(|exit| exit.number == number);
        judged.bytes = exit.map(|exit| Box::new(ExitBytes::of(exit)));
        judged
    };
    rules.into_iter().map(judged).collect()
}

fn verdict(rule: &Rule, view: &View<'_>) -> Verdict {
    let dialect = view.kernel().dialect;
    if !rule.holds_for(dialect) {
        return Verdict::not_exercised(if rule.not_for.contains(&dialect) {
            format!("the rule does not hold for {dialect}")
        } else {
            format!("the rule holds from Linux {} on, and the kernel is {dialect}", rule.since)
        });
    }
    let Some(checker) = checkers::of(&rule.id) else {
        return Verdict::not_exercised("nothing checks this rule");
    };
    match (checker(view), rule.severity) {
        (Ok(true), _) => Verdict::Passed,
        (Ok(false), _) => {
            let exits = view.exits.len();
            let plural = if exits == 1 { "" } else { "s" };
            Verdict::not_exercised(format!(
                "the VMM did not get to where the rule bites: {exits} exit{plural}, then {}: {}",
                view.status(),
                view.said()
            ))
        }
        (Err(finding), Severity::Must) => Verdict::Failed(finding),
        (Err(finding), Severity::Should | Severity::Hazard) => Verdict::Warned(finding),
    }
}
