//! A VMM that is not ours, unmodified, in front of a kernel half: it is judged by what crosses the boundary.

use crate::judge::Judged;
use crate::judgement::Shard;
use crate::profile::ProfileError;
use exeunt_abi::Dialect;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use thiserror::Error;

pub use crate::profile::Profile;

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

/// How a kernel half is put in front of a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A library that the dynamic linker loads first.
    Shim,
    /// A supervisor that the kernel tells of system calls.
    Notify,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shim => "shim",
            Self::Notify => "notify",
        })
    }
}

/// What is behind the VMM's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The real `/dev/kvm`; calls are recorded.
    Observe,
    /// The real `/dev/kvm` runs the guest, and exits are put in between its own.
    Overlay,
    /// The model is `/dev/kvm` and `/dev/sev`, and the vCPUs run guest programs.
    Scripted,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observe => "observe",
            Self::Overlay => "overlay",
            Self::Scripted => "scripted",
        })
    }
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

/// Why nothing was judged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// This build cannot.
    #[error("a foreign VMM cannot be judged by this build")]
    Unsupported,
    /// There is no profile, or no command of it.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// What [`judge`] would run.
///
/// # Errors
///
/// Nothing could be run.
pub fn plan(_: &Subject, _: &Choice) -> Result<Vec<Planned>, ForeignError> {
    Err(ForeignError::Unsupported)
}

/// Puts a VMM into each scene of the choice and judges it.
///
/// # Errors
///
/// It could not be run. What was judged before was told to `progress`.
pub fn judge(_: &Subject, _: &Choice, _: &mut dyn FnMut(Progress<'_>)) -> Result<Vec<Judged>, ForeignError> {
    Err(ForeignError::Unsupported)
}
