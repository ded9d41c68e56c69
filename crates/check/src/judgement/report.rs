//! A check as a value, which every format is made of.

use super::inert::{inert, inert_lines};
use super::replay::Replay;
use crate::judge::{ExitBytes, Finding, Judged, Verdict};
use crate::rules::{self, Rule};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Whose verdicts a report holds, and how they came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Who was judged.
    pub kind: Kind,
    /// A name for a headline.
    pub name: String,
    /// The program and its arguments, if it is one.
    pub command: Vec<String>,
    /// How it was started, if by a profile.
    pub profile: Option<String>,
    /// How a kernel half was put in front of it, if that was chosen.
    pub via: Option<String>,
    /// What was behind its calls, if that was chosen.
    pub stage: Option<String>,
    /// The kernel, if it was chosen.
    pub dialect: Option<String>,
    /// What decided by chance.
    pub seed: u64,
    /// The part of the check.
    pub shard: Option<String>,
    /// For the lines that show a verdict again.
    pub replay: Replay,
}

/// Who was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Our VMM half.
    Own,
    /// One that is wrong on purpose.
    Wrong,
    /// A program that is not ours.
    Foreign,
}

/// A verdict in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// The VMM did not get to where the rule bites, or the rule does not hold for the kernel.
    NotExercised,
    /// The rule bit, and was kept.
    Pass,
    /// A SHOULD or a HAZARD was broken.
    Warn,
    /// A MUST was broken.
    Fail,
}

impl Word {
    /// The worst first.
    pub const ALL: [Self; 4] = [Self::Fail, Self::Warn, Self::Pass, Self::NotExercised];
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotExercised => "not exercised",
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

/// What came of one rule in one scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SceneReport {
    /// The scene.
    pub scene: String,
    /// What came of it.
    pub verdict: Word,
    /// Why it was not exercised.
    pub why: Option<String>,
    /// What broke it.
    pub finding: Option<Finding>,
    /// The exit where it was broken.
    pub bytes: Option<ExitBytes>,
    /// The line that shows this again.
    pub replay: String,
}

/// What came of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleReport {
    /// The rule.
    pub rule: &'static Rule,
    /// What it is about.
    pub section: &'static str,
    /// The worst of its scenes; it is not exercised only if it was in none of them.
    pub verdict: Word,
    /// Its scenes, the worst first.
    pub scenes: Vec<SceneReport>,
}

/// How long a scene took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SceneTime {
    /// Its name.
    pub scene: String,
    /// How long it took.
    pub elapsed: Duration,
}

/// How many rules came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Kept.
    pub passed: usize,
    /// Broken, and each is a MUST.
    pub failed: usize,
    /// Broken, and none is a MUST.
    pub warned: usize,
    /// Not reached, or not in force.
    pub not_exercised: usize,
}

impl Summary {
    /// The count for a word.
    #[must_use]
    pub const fn of(&self, word: Word) -> usize {
        match word {
            Word::Pass => self.passed,
            Word::Fail => self.failed,
            Word::Warn => self.warned,
            Word::NotExercised => self.not_exercised,
        }
    }

    /// Counts verdicts.
    pub fn count(words: impl IntoIterator<Item = Word>) -> Self {
        let mut summary = Self::default();
        for word in words {
            let count = match word {
                Word::Pass => &mut summary.passed,
                Word::Fail => &mut summary.failed,
                Word::Warn => &mut summary.warned,
                Word::NotExercised => &mut summary.not_exercised,
            };
            *count = count.saturating_add(1);
        }
        summary
    }
}

/// A check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who was judged, and how.
    pub about: About,
    /// The rules that were judged, in their order.
    pub rules: Vec<RuleReport>,
    /// The scenes that were played, in order.
    pub times: Vec<SceneTime>,
    /// All of it.
    pub elapsed: Duration,
    /// Why this is not all that was to be judged, if so.
    pub cut_short: Option<String>,
}

impl Report {
    /// A report of what was judged, in any order.
    #[must_use]
    pub fn new(mut about: About, judged: &[Judged]) -> Self {
        for text in about.command.iter_mut().chain([&mut about.name]).chain(&mut about.profile) {
            *text = inert(text);
        }
        let mut reports = Vec::new();
        for section in rules::sections() {
            for rule in &section.rules {
                let judged = judged.iter().filter(|judged| judged.rule == rule.id);
                let mut scenes: Vec<_> = judged.map(|judged| scene(&about.replay, judged)).collect();
                scenes.sort_by_key(|scene| std::cmp::Reverse(scene.verdict));
                if let Some(worst) = scenes.first() {
                    let verdict = worst.verdict;
                    reports.push(RuleReport { rule, section: &section.title, verdict, scenes });
                }
            }
        }
        Self { about, rules: reports, times: Vec::new(), elapsed: Duration::ZERO, cut_short: None }
    }

    /// How many rules came to what.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::count(self.rules.iter().map(|rule| rule.verdict))
    }

    /// A MUST was broken.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.rules.iter().any(|rule| rule.verdict == Word::Fail)
    }

    /// The rules with this verdict.
    pub fn with(&self, word: Word) -> impl Iterator<Item = &RuleReport> {
        self.rules.iter().filter(move |rule| rule.verdict == word)
    }

    /// How long a scene took, if it is known.
    #[must_use]
    pub fn time_of(&self, scene: &str) -> Option<Duration> {
        self.times.iter().find(|time| time.scene == scene).map(|time| time.elapsed)
    }
}

impl RuleReport {
    /// Why it was not exercised, if it was not.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        let whys = || self.scenes.iter().find_map(|scene| scene.why.as_deref());
        (self.verdict == Word::NotExercised).then(whys).flatten()
    }

    /// The scenes in which it was broken.
    pub fn broken(&self) -> impl Iterator<Item = (&SceneReport, &Finding)> {
        self.scenes.iter().filter_map(|scene| Some((scene, scene.finding.as_ref()?)))
    }
}

fn scene(replay: &Replay, judged: &Judged) -> SceneReport {
    let (verdict, why, finding) = match &judged.verdict {
        Verdict::Passed => (Word::Pass, None, None),
        Verdict::Failed(finding) => (Word::Fail, None, Some(finding)),
        Verdict::Warned(finding) => (Word::Warn, None, Some(finding)),
        Verdict::NotExercised { why } => (Word::NotExercised, Some(inert(why)), None),
    };
    let finding = finding.map(|finding| Finding {
        exit: finding.exit,
        expected: inert_lines(&finding.expected),
        seen: inert_lines(&finding.seen),
    });
    SceneReport {
        scene: inert(judged.scenario),
        verdict,
        why,
        finding,
        bytes: judged.bytes.as_deref().map(|bytes| ExitBytes {
            meaning: inert(&bytes.meaning),
            reason: inert(&bytes.reason),
            returned: inert(&bytes.returned),
            ..bytes.clone()
        }),
        replay: replay.line(judged.rule, judged.scenario),
    }
}
