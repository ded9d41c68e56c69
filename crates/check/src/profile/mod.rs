//! How a VMM is started with a tiny guest: TOML that anyone can write.
//!
//! A [`Profile`] has arguments with placeholders, and says what its VMM is like. [`Profile::command`] fills the
//! placeholders in; guest images are made at that moment, and are gone with the [`Command`].

mod command;
mod fill;
mod load;
mod program;
mod shipped;

pub use command::Command;
pub use fill::Placeholder;
pub use load::load;
pub use shipped::{for_program, shipped};

use crate::foreign::Stage;
use exeunt_abi::kvm::vm_type::VmType;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// How a VMM is started with a tiny guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name, or that of its file without `.toml`.
    pub name: String,
    /// What it starts, in one line.
    pub title: String,
    /// The release of the VMM, and where, that it was seen working with. Without, it is untested.
    pub tested: Option<String>,
    /// The program that is started if the user names none.
    pub program: String,
    /// File names of programs that it is for; a `*` stands for anything.
    pub matches: Vec<String>,
    /// What a program must say before the profile is chosen by its name alone.
    pub probe: Option<Probe>,
    /// What can be behind the VMM's calls, the best first.
    pub stages: Vec<Stage>,
    /// The types of VMs that the arguments lead to. Of several, one is chosen by [`Profile::when`].
    pub vm_types: Vec<VmType>,
    /// The arguments, with placeholders.
    pub args: Vec<String>,
    /// Variables of the environment, with placeholders.
    pub env: BTreeMap<String, String>,
    /// Where files are looked for, with placeholders; `~` is the user's home.
    pub files_in: Vec<String>,
    /// What to do if a file is not found.
    pub help: Option<String>,
    /// Files that the VMM reads, by their names, with placeholders.
    pub texts: BTreeMap<String, String>,
    /// How long the VMM may go on after its guest has ended.
    pub settle: Duration,
    /// The VMM makes pages what an access wants them to be.
    pub convert_faults: bool,
    /// Arguments by which the VMM is told what a scene wants of it, by the name of the order.
    pub when: BTreeMap<String, Vec<String>>,
    /// What the VMM does when its guest has ended.
    pub ends: Ends,
}

/// A question to a program, which runs and ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The arguments.
    pub args: Vec<String>,
    /// A part of what it writes then.
    pub says: String,
}

/// What a VMM does when its guest has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// It exits.
    Exits,
    /// It stays, with a machine that does not run.
    Pauses,
}

impl Profile {
    /// Those that come with this program.
    #[must_use]
    pub fn shipped() -> Vec<Self> {
        shipped()
    }

    /// One that comes with this program, by its name, or any, by the path of its file.
    ///
    /// # Errors
    ///
    /// There is none, or it makes no sense.
    pub fn load(name: &str) -> Result<Self, ProfileError> {
        load(name)
    }

    /// The arguments for an order of a scene.
    #[must_use]
    pub fn when(&self, order: &str) -> &[String] {
        self.when.get(order).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the VMM can be told so.
    #[must_use]
    pub fn takes(&self, order: &str) -> bool {
        self.when.contains_key(order)
    }

    /// What can be shown of whether it works: the release that it was seen working with, or that nobody has tried.
    #[must_use]
    pub fn standing(&self) -> String {
        self.tested.as_ref().map_or_else(|| "untested".into(), |tested| format!("tested with {tested}"))
    }
}

/// Why there is no profile, or no command of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// No profile is called so.
    #[error(
        "no profile is named '{name}'; shipped are {shipped}; a file is named by a path such as ./{name}.toml"
    )]
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        shipped: String,
    },
    /// The file cannot be read.
    #[error("cannot read the profile {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        reason: String,
    },
    /// The text is not TOML, has an unknown key, or a value of the wrong type.
    #[error("{origin}:{line}: {message}")]
    Parse {
        /// Where the text is from.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A value has no meaning.
    #[error("{origin}: {key}: {message}")]
    Invalid {
        /// Where the text is from.
        origin: String,
        /// The key.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// There is no such program.
    #[error(
        "there is no program {program}: name one that is, as in exeunt check --profile {profile} -- /path/of/{program}"
    )]
    NoProgram {
        /// The profile.
        profile: String,
        /// The program.
        program: String,
    },
    /// A file is in none of the folders.
    #[error("there is no file {file} in {folders}: {help}")]
    NoFile {
        /// The file.
        file: String,
        /// Where it was looked for.
        folders: String,
        /// What to do.
        help: String,
    },
    /// A guest image cannot be made.
    #[error("cannot make {what}: {reason}")]
    Image {
        /// Which.
        what: String,
        /// The operating system's word.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
