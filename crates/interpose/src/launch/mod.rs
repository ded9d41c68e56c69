//! One run of a VMM: how it is started, watched and ended.
//!
//! Nothing of a run survives it: no process, however it hides, no zombie, no file. The VMM does not see the terminal, and
//! what it writes is kept up to a limit and never makes it wait.

mod binary;
mod error;
mod family;
mod keeper;
mod output;
mod run;
#[expect(unsafe_code, reason = "fork and exec are here")]
mod spawn_unsafe;
mod stray;
mod supervision;
mod threads;
mod watch;

pub use binary::{Target, Via, look};
pub use error::{LaunchError, Step};
pub use output::Output;

use crate::plan::Plan;
use crate::record::Record;
use family::Status;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What is started, and how long it may take.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The command: a program, by name or path, and its arguments.
    pub command: Vec<OsString>,
    /// Variables besides those that exeunt has itself.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, if not that of exeunt.
    pub directory: Option<PathBuf>,
    /// The way in, if it is not to be chosen by looking at the program.
    pub via: Option<Via>,
    /// What the interposer is told.
    pub plan: Plan,
    /// The shim's bytes; none if this build has no shim.
    pub shim: &'static [u8],
    /// When a run that does not end is ended.
    pub timeout: Duration,
    /// How long nothing must happen until a VMM counts as paused.
    pub settle: Duration,
    /// How long a VMM that is ended has for its own end, after `SIGTERM` and before `SIGKILL`.
    pub grace: Duration,
    /// How much of what the VMM writes is kept.
    pub output_bytes: usize,
    /// Room for records. Memory is taken as it fills.
    pub ring_bytes: usize,
}

impl Launch {
    /// A command and a plan, with limits for small guests.
    #[must_use]
    pub const fn new(command: Vec<OsString>, plan: Plan, shim: &'static [u8]) -> Self {
        Self {
            command,
            env: Vec::new(),
            directory: None,
            via: None,
            plan,
            shim,
            timeout: Duration::from_secs(20),
            settle: Duration::from_millis(300),
            grace: Duration::from_millis(250),
            output_bytes: 64 << 10,
            ring_bytes: 64 << 20,
        }
    }
}

/// What a run was.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What crossed the boundary. Of a run that was ended by us, nothing after our decision is here.
    pub records: Vec<Record>,
    /// No record is missing or damaged.
    pub is_complete: bool,
    /// How it ended.
    pub end: Ended,
    /// What the VMM wrote before it entered a vCPU. It says nothing about an exit.
    pub startup: Output,
    /// What the VMM wrote after that, of a run that was ended by us up to our decision.
    pub output: Output,
    /// What it wrote after our decision.
    pub last_words: Output,
    /// The way in.
    pub via: Via,
    /// Why this way, if it was chosen.
    pub why: Option<String>,
    /// What went wrong around the run, in sentences.
    pub trouble: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The VMM exited with this status.
    Exited(i32),
    /// This signal ended the VMM.
    Killed(i32),
    /// The VMM lives, has a `KVM_RUN` behind it and enters no vCPU any more.
    Paused,
    /// The guest's part is over, and the VMM neither ended nor entered again.
    GuestDone,
    /// The time was up.
    TimedOut,
    /// The VMM entered vCPUs more often than the plan allows.
    Hung,
    /// Whoever started the run wanted it to end.
    Cancelled,
    /// The process that watched over the VMM was killed, so that nobody knows.
    Lost,
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        match status {
            Status::Exited(status) => Self::Exited(status),
            Status::Killed(signal) => Self::Killed(signal),
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Records so far.
    pub records: usize,
    /// `KVM_RUN`s that came back so far, as far as records say.
    pub exits: u64,
    /// Since the start.
    pub elapsed: Duration,
}

#[cfg(test)]
mod tests;
