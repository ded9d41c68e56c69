//! Why a VMM could not be started.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why there was no run. Each message ends with what to do next.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// There is nothing to start.
    #[error("no VMM is named: give its command after `--`")]
    Empty,
    /// A name without a slash that no directory of `PATH` has.
    #[error("`{name}` is in no directory of PATH: install it, or give its path")]
    NotInPath {
        /// The name.
        name: String,
    },
    /// A path without a file.
    #[error("{} does not exist: check the path", path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// A path that is no file.
    #[error("{} is not a file: name the program of the VMM", path.display())]
    NotFile {
        /// The path.
        path: PathBuf,
    },
    /// A file that may not be executed, or not by this user.
    #[error("{} may not be executed: `chmod +x` it, or run as a user who may", path.display())]
    NotExecutable {
        /// The path.
        path: PathBuf,
    },
    /// A file that the kernel does not know how to execute.
    #[error("{} is neither an ELF program nor a script that begins with `#!`: name the program of the VMM", path.display())]
    NotElf {
        /// The path.
        path: PathBuf,
    },
    /// An ELF file that is damaged or of a kind that cannot be started.
    #[error("{} is no program that can be started, {why}: build or install it again", path.display())]
    BadElf {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A program for other processors.
    #[error("{} is made for {machine} and not for x86_64: use a build for this machine", path.display())]
    WrongMachine {
        /// The path.
        path: PathBuf,
        /// The processor, or its number in the ELF header.
        machine: String,
    },
    /// A script whose interpreter is a script, and so on.
    #[error("{} is a script whose interpreters are scripts without end: name the program itself", path.display())]
    ScriptLoop {
        /// The path.
        path: PathBuf,
    },
    /// A program whose dynamic linker is not there.
    #[error("{} needs the dynamic linker {loader}, which is not there: install the libraries it was built for", path.display())]
    NoLoader {
        /// The path.
        path: PathBuf,
        /// The dynamic linker.
        loader: String,
    },
    /// The shim was asked for where the dynamic linker does not load it.
    #[error("the shim cannot be loaded into {}, {why}: use `--via notify`, or leave --via out", path.display())]
    ShimImpossible {
        /// The path.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// This build carries no shim.
    #[error(
        "this build of exeunt has no shim inside: use `--via notify`, or build it with cargo and a linker for x86_64"
    )]
    NoShim,
    /// An argument or a variable with a byte 0 inside.
    #[error("{what} has a byte 0 inside, which no program can be given: remove it")]
    NulByte {
        /// Which.
        what: String,
    },
    /// A step between `fork` and `exec` failed.
    #[error("{} could not be started, {step} failed: {source}: {}", path.display(), step.next(source))]
    Start {
        /// The path.
        path: PathBuf,
        /// Which step.
        step: Step,
        /// What the kernel said.
        source: io::Error,
    },
    /// A call failed that has nothing to do with the VMM.
    #[error("{what} failed: {source}: free memory, processes or descriptors and try again")]
    System {
        /// The call.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process that watches over the VMM ended before the VMM was started.
    #[error("the process that starts the VMM was killed: try again")]
    KeeperGone,
    /// The supervisor for system calls did not start.
    #[error(
        "the supervisor of system calls did not start: {why}: use `--via shim` if the VMM is dynamically linked"
    )]
    Supervisor {
        /// Why.
        why: String,
    },
}

/// What is done in the new process before it becomes the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A second process is made.
    Fork,
    /// Standard input and output are put in place.
    Descriptors,
    /// The filter of system calls is installed.
    Filter,
    /// The program is executed.
    Exec,
}

impl Step {
    pub(super) const ALL: [Self; 4] = [Self::Fork, Self::Descriptors, Self::Filter, Self::Exec];

    /// What to do when the step failed.
    fn next(self, error: &io::Error) -> &'static str {
        match (self, error.raw_os_error()) {
            (Self::Fork, _) => "let fewer processes run, or raise `ulimit -u`",
            (Self::Descriptors, _) => "raise `ulimit -n`",
            (Self::Filter, _) => {
                "use `--via shim`, or a kernel with seccomp user notification (5.9 or newer)"
            }
            (Self::Exec, Some(libc::E2BIG)) => "shorten the command or the environment",
            (Self::Exec, Some(libc::ETXTBSY)) => "wait until nobody writes to the file",
            (Self::Exec, Some(libc::EACCES | libc::EPERM)) => "check the mount options and the permissions",
            (Self::Exec, _) => "try the command without exeunt",
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fork => "fork",
            Self::Descriptors => "dup2",
            Self::Filter => "seccomp",
            Self::Exec => "execve",
        })
    }
}
