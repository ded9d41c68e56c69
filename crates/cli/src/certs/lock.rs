//! `exeunt certs lock`: a command while no VMM hands out certificates.

use super::{Wait, advised};
use crate::Failure;
use exeunt_certs::clock::SystemClock;
use exeunt_certs::file::{FileLock, Held, Mode};
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Run a command with the exclusive lock on a table: what changes firmware or endorsement keys.
///
/// No VMM hands out the table meanwhile, and guests that ask are told to come back, so no report is signed by a key that
/// the certificates of its answer are not for. The command takes the place of exeunt: signals and its exit status are its
/// own, and the lock lasts until it has ended, and all that it has started and not closed the file. `exeunt certs build`
/// and `fetch` inside of it know that the lock is theirs; do them after the firmware has changed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt certs lock certs.bin -- snphost commit
  exeunt certs lock certs.bin --timeout 60 -- sh -c './update-firmware && exeunt certs fetch --kds .. -o certs.bin'

Exit status: that of the command; 2 if there is no lock in time, or no such command.")]
pub(super) struct Args {
    /// The table, which has to be there
    file: PathBuf,

    #[command(flatten)]
    wait: Wait,

    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let lock = FileLock::acquire(&args.file, Mode::Exclusive, args.wait.limit(), &SystemClock::default())
        .map_err(|error| advised(&error))?;
    lock.pass_on().map_err(|error| format!("cannot pass on the lock of {}: {error}", args.file.display()))?;
    let (program, arguments) = args.command.split_first().ok_or("there is no command")?;
    let error = Command::new(program).args(arguments).env(Held::VARIABLE, Held::by(&lock).to_value()).exec();
    Err(format!("cannot run {}: {error}", program.to_string_lossy()))
}
