//! A foreign VMM before the judge: what it let cross the boundary, and what each rule says to that.

mod slots;
mod transcript;

use super::bench::Trial;
use super::transcript::{End, Status};
use super::verdict::{Judged, Verdict, judge_trial};
use crate::rules::Rule;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_interpose::record::{File, Record, What};
use exeunt_scenes::Situation;
use transcript::Known;

/// Rules about what does not cross the boundary of a process, and why.
const UNSEEN: [(&str, &str); 4] = [
    ("SE-3", "one run does not show what a VMM makes of bytes that mean nothing"),
    ("RC-5", AT_ITS_FILE),
    ("RC-6", AT_ITS_FILE),
    ("RC-9", AT_ITS_FILE),
];
const AT_ITS_FILE: &str = "what a VMM does at its certificate file is not seen from outside";

/// How a foreign VMM ended, as far as it matters to a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It ended with this status.
    Exited(i32),
    /// A signal that it did not send for got it.
    Crashed,
    /// It is alive, holds an exit and enters no vCPU.
    Paused,
    /// The guest was done, and the judge ended the VMM.
    GuestDone,
    /// It went on for longer, or entered more often, than any VMM needs to.
    Hung,
}

/// A run of a foreign VMM in a scene.
#[derive(Clone, Debug)]
pub struct Played<'a> {
    /// What it was put into, with the orders that it was given.
    pub situation: &'a Situation,
    /// A real guest ran on a real kernel, whether or not something was put in between.
    pub is_on_kernel: bool,
    /// What crossed the boundary.
    pub records: &'a [Record],
    /// How it ended.
    pub ending: Ending,
    /// What it said.
    pub output: &'a str,
    /// Pages of the certificate table that it was given.
    pub certificate_pages: Option<u64>,
}

/// A run, ready to be judged by any rule.
pub struct Case {
    trial: Trial,
    has_vm: bool,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("scene", &self.trial.situation.name).finish_non_exhaustive()
    }
}

impl Case {
    /// A run as the judge sees it.
    #[must_use]
    pub fn new(played: &Played<'_>) -> Self {
        let status = match played.ending {
            Ending::Exited(0) | Ending::GuestDone => Status::Success,
            Ending::Exited(_) => Status::Failure,
            Ending::Crashed => Status::Crashed,
            Ending::Paused => Status::Stopped,
            Ending::Hung => Status::Hung,
        };
        let end = End { status, text: played.output.into() };
        let Played { situation, is_on_kernel, certificate_pages, .. } = *played;
        let has_vm = played.records.iter().any(|record| makes_vm(&record.what));
        Self {
            trial: transcript::trial(
                played.records,
                Known { situation, is_on_kernel, end, certificate_pages },
            ),
            has_vm,
        }
    }

    /// The type of the VM, if the VMM made one.
    #[must_use]
    pub fn vm_type(&self) -> Option<VmType> {
        self.has_vm.then_some(self.trial.situation.vm_type)
    }

    /// What each rule says.
    #[must_use]
    pub fn judge(&self, rules: &[&'static Rule]) -> Vec<Judged> {
        let is_crashed = self.trial.transcript.end.status == Status::Crashed;
        let why = |rule: &Rule| match rule.id.as_str() {
            "SE-2" if !is_crashed => {
                Some("that stale words were not read is seen only where reading them crashes")
            }
            id => UNSEEN.iter().find(|(unseen, _)| *unseen == id).map(|(_, why)| *why),
        };
        let mut judged = judge_trial(&self.trial, rules.iter().copied().filter(|rule| why(rule).is_none()));
        judged.extend(rules.iter().filter_map(|rule| {
            let (scenario, verdict) = (self.trial.situation.name, Verdict::not_exercised(why(rule)?));
            Some(Judged { rule: &rule.id, scenario, verdict, bytes: None })
        }));
        judged
    }
}

const fn makes_vm(what: &What) -> bool {
    matches!(what, What::Ioctl { made: Some(File::Vm(_)), .. })
}
