//! Running scenarios: our VMM half on a kernel half.

mod drive;
mod migrate;
mod on_model;
mod quotes;
mod td;

pub(crate) use td::{finalise as finalise_td, initialise as initialise_td};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod on_kvm;

#[cfg(test)]
pub(crate) use on_model::answer_until;

use crate::expect::{Seen, unmet};
use crate::scenario::{Case, Scenario};
use crate::timeline::{Event, Log};
use exeunt::Stop;
use exeunt_abi::Dialect;
use serde::Serialize;

/// Which kernel half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Half {
    /// In software.
    #[default]
    Model,
    /// `/dev/kvm`.
    Kvm,
}

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// On what.
    pub half: Half,
    /// Which kernel the model imitates; the scenario's own if `None`.
    pub dialect: Option<Dialect>,
    /// What chance draws from.
    pub seed: u64,
    /// Only cases whose source lacks a capability.
    pub without_capability: bool,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// One word: `halted`, `shutdown`, `terminated`, `event`, `unknown-event`, `enter`, `fail-entry`,
    /// `internal-error`, `context-invalid`, `memory-fault`, `no-progress`, `unknown-exit`, `refused`, `interrupted`.
    pub keyword: &'static str,
    /// The end in words.
    pub text: String,
}

impl From<&Stop> for End {
    fn from(stop: &Stop) -> Self {
        let keyword = match stop {
            Stop::Halted => "halted",
            Stop::Shutdown => "shutdown",
            Stop::Terminated(_) | Stop::FatalError(_) => "terminated",
            Stop::Event(_) => "event",
            Stop::UnknownEvent(_) => "unknown-event",
            Stop::Enter(_) => "enter",
            Stop::FailEntry(_) => "fail-entry",
            Stop::InternalError(_) => "internal-error",
            Stop::ContextInvalid { .. } => "context-invalid",
            Stop::MemoryFault { .. } => "memory-fault",
            Stop::NoProgress { .. } | Stop::Undrained { .. } => "no-progress",
            _ => "unknown-exit",
        };
        Self { keyword, text: stop.to_string() }
    }
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything expected was seen.
    Passed,
    /// Something expected was not seen.
    Failed {
        /// One line for each.
        unmet: Vec<String>,
    },
    /// It ran on a kernel that the expectations are not made for.
    NotJudged {
        /// Why.
        reason: String,
    },
    /// It could not run here.
    Skipped {
        /// Why, with the capability that is missing.
        reason: String,
    },
}

/// One run of a case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// The case.
    pub title: String,
    /// The kernel that wrote the bytes.
    pub dialect: String,
    /// Everything that happened.
    pub events: Vec<Event>,
    /// How it ended, if it ran.
    pub end: Option<End>,
    /// How many exits there were.
    pub exits: usize,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// All runs of a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioReport {
    /// Its name.
    pub name: String,
    /// One line.
    pub title: String,
    /// The mail that it belongs to.
    pub mail: Option<String>,
    /// The runs, in order.
    pub cases: Vec<CaseReport>,
}

/// A run that ended, before it is judged.
pub(crate) struct Ran {
    pub(crate) end: End,
    pub(crate) exits: Vec<String>,
}

/// Whether a kernel half is there at all.
///
/// # Errors
///
/// Why not, and what to do about it.
pub fn available(half: Half) -> Result<(), String> {
    match half {
        Half::Model => Ok(()),
        Half::Kvm => kvm_available(),
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn kvm_available() -> Result<(), String> {
    exeunt_linux::Kvm::open().map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn kvm_available() -> Result<(), String> {
    Err("exeunt runs /dev/kvm on x86-64 Linux only".into())
}

/// Runs every case of a scenario. A case that cannot run says why and does not keep the others from running.
#[must_use]
pub fn run(scenario: &Scenario, options: &Options) -> ScenarioReport {
    let wanted = |case: &&Case| {
        !options.without_capability || case.migration.is_some_and(|migration| !migration.source_capability)
    };
    let cases = scenario.cases.iter().filter(wanted).flat_map(|case| run_case(case, options)).collect();
    ScenarioReport {
        name: scenario.name.clone(),
        title: scenario.title.clone(),
        mail: scenario.mail.clone(),
        cases,
    }
}

fn run_case(case: &Case, options: &Options) -> Vec<CaseReport> {
    match options.half {
        Half::Model => {
            let dialects = options.dialect.map_or_else(|| case.dialects.clone(), |dialect| vec![dialect]);
            dialects.into_iter().map(|dialect| run_on_model(case, dialect, options.seed)).collect()
        }
        Half::Kvm => vec![run_on_kvm(case)],
    }
}

fn run_on_model(case: &Case, dialect: Dialect, seed: u64) -> CaseReport {
    let log = Log::default();
    let ran = on_model::run(case, dialect, seed, &log);
    report(case, dialect.name(), log, ran, case.dialects.contains(&dialect))
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn run_on_kvm(case: &Case) -> CaseReport {
    let log = Log::default();
    let ran = on_kvm::run(case, &log);
    report(case, "/dev/kvm", log, ran, true)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn run_on_kvm(case: &Case) -> CaseReport {
    let ran = kvm_available().and_then(|()| Err(String::new()));
    report(case, "/dev/kvm", Log::default(), ran, true)
}

fn report(case: &Case, dialect: &str, log: Log, ran: Result<Ran, String>, judged: bool) -> CaseReport {
    let events = log.into_events();
    let mut report = CaseReport {
        title: case.title.clone(),
        dialect: dialect.into(),
        events,
        end: None,
        exits: 0,
        verdict: Verdict::Passed,
    };
    let ran = match ran {
        Ok(ran) => ran,
        Err(reason) => {
            report.verdict = Verdict::Skipped { reason };
            return report;
        }
    };
    let seen =
        Seen { end: ran.end.keyword, end_text: &ran.end.text, exits: &ran.exits, events: &report.events };
    let unmet = unmet(&case.expect, &seen);
    report.verdict = if !judged {
        Verdict::NotJudged { reason: format!("the expectations are not made for {dialect}") }
    } else if unmet.is_empty() {
        Verdict::Passed
    } else {
        Verdict::Failed { unmet }
    };
    report.exits = ran.exits.len();
    report.end = Some(ran.end);
    report
}

#[cfg(test)]
mod tests;
