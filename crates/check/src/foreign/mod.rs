//! A VMM that is not ours, unmodified, in front of a kernel half: it is judged by what crosses the boundary.

mod certificates;
mod course;
mod orders;
mod play;
mod scenes;

use crate::judge::Judged;
use crate::judgement::Shard;
use crate::profile::ProfileError;
use exeunt_abi::Dialect;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use thiserror::Error;

pub use crate::profile::Profile;
pub use course::{judge, plan};
pub use exeunt_interpose::launch::Via;
pub use exeunt_interpose::plan::Stage;

/// Who is judged.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The program and its arguments. Empty where the profile has a program.
    pub command: Vec<OsString>,
    /// How it is started with a guest.
    pub profile: Option<Profile>,
    /// How a kernel half is put in front of it; by looking at the program if not given.
    pub via: Option<Via>,
}

/// By what it is judged, and how.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The ids of the rules, in capitals.
    pub rules: Vec<&'static str>,
    /// The kernel that is imitated, if not that of the scene.
    pub dialect: Option<Dialect>,
    /// What is behind the VMM's calls, if not what suits the host.
    pub stage: Option<Stage>,
    /// One scene only.
    pub scene: Option<String>,
    /// What decides by chance.
    pub seed: u64,
    /// How long one scene may take.
    pub timeout: Duration,
    /// A part of the scenes that are left.
    pub shard: Option<Shard>,
    /// Set by a signal: the VMM is ended, and what was judged so far is all.
    pub stop: Arc<AtomicBool>,
}

/// A scene that would be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its name.
    pub scene: &'static str,
    /// The kernel that it happens on.
    pub dialect: Dialect,
    /// What is behind the VMM's calls.
    pub stage: Stage,
    /// The rules that are judged there.
    pub rules: Vec<&'static str>,
    /// Why it is not played with this VMM, if it is not.
    pub left_out: Option<String>,
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A scene begins.
    Started {
        /// Its name.
        scene: &'static str,
        /// Which it is, from 1.
        nth: usize,
        /// How many there are.
        of: usize,
    },
    /// A verdict of the scene that is being played.
    Judged(&'a Judged),
    /// A scene ended.
    Ended {
        /// Its name.
        scene: &'static str,
        /// Which it is, from 1.
        nth: usize,
        /// How many there are.
        of: usize,
        /// How long it took.
        elapsed: Duration,
    },
}

/// Why nothing was judged, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// There is no profile, or no command of it.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The profile is not for this stage.
    #[error("the profile {profile} is not for the stage {stage}, but for {has}")]
    NotOfProfile {
        /// The profile.
        profile: String,
        /// The stage that is wanted.
        stage: Stage,
        /// Those that it has.
        has: String,
    },
    /// No scene of the choice can be played with this VMM.
    #[error("there is no scene to play in the stage {stage}: {why}")]
    NothingToPlay {
        /// The stage.
        stage: Stage,
        /// Why the first of them is not played.
        why: String,
    },
    /// No scene of the stage is named so.
    #[error(
        "the stage {stage} has no scene '{name}' for these rules; `exeunt check --list -- VMM` lists all"
    )]
    UnknownScene {
        /// The stage.
        stage: Stage,
        /// The name.
        name: String,
    },
    /// The stage needs the real `/dev/kvm`.
    #[error("{why}; the stage `scripted` needs no /dev/kvm")]
    NoKvm {
        /// What is missing.
        why: String,
    },
    /// The VMM cannot be started.
    #[error("{why}")]
    Launch {
        /// Why, and what to do.
        why: String,
    },
    /// The VMM was started and made no VM.
    #[error("the VMM made no VM: {ended}{}{output}", if output.is_empty() { "" } else { ". It said: " })]
    NoVm {
        /// How it ended.
        ended: String,
        /// What it wrote.
        output: String,
    },
    /// The certificate table for the VMM cannot be written.
    #[error("cannot write a certificate table for the VMM: {why}")]
    Certificates {
        /// The operating system's word.
        why: String,
    },
    /// Somebody stopped the check.
    #[error("stopped")]
    Stopped,
    /// What watched over the VMM was killed.
    #[error("nobody knows how the VMM ended: {why}")]
    Lost {
        /// What is known.
        why: String,
    },
}
