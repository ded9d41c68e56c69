//! `exeunt certs`: the certificates of a host, as files that VMMs hand to SNP guests.

mod build;
mod lock;
mod show;
mod trust;
mod verify;

use crate::Failure;
use clap::{Subcommand, ValueEnum};
use exeunt::certs::CheckedTable;
use exeunt_certs::clock::SystemClock;
use exeunt_certs::file::{FileError, FileProvider, Held, Options, replace};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Certificate tables for SNP guests: build, verify and show them, and lock them while firmware changes.
///
/// A table is what a VMM answers an extended guest request with: VCEK or VLEK, ASK or ASVK, ARK. Whoever reads it holds a
/// shared lock on its file, whoever changes the firmware or the file an exclusive one (open file description locks).
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt certs build vcek.der cert_chain.pem -o /var/lib/snp/certs.bin --root ark.pem
  exeunt certs show /var/lib/snp/certs.bin
  exeunt certs verify /var/lib/snp/certs.bin --root ark.pem --report report.bin
  exeunt certs lock /var/lib/snp/certs.bin -- ./update-firmware

Exit status: 0 as expected, 1 a chain does not hold, 2 something could not be done. docs/certs.md says who takes which
lock when.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(build::Args),
    Verify(verify::Args),
    Show(show::Args),
    Lock(lock::Args),
}

/// How to print what was found.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines
    Text,
    /// One JSON document
    Json,
}

/// How long to wait for the lock of a file.
#[derive(clap::Args)]
struct Wait {
    /// Seconds to wait for the lock of the file, at most
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    timeout: u64,
}

impl Wait {
    const fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Build(args) => build::main(args),
        Command::Verify(args) => verify::main(args),
        Command::Show(args) => show::main(args),
        Command::Lock(args) => lock::main(args),
    }
}

/// Reads a table as a VMM does, under a shared lock.
fn read(path: &Path, wait: &Wait) -> Result<CheckedTable, Failure> {
    let options = Options { wait_limit: wait.limit(), keep: false, ..Options::default() };
    let provider = FileProvider::new(path).with_options(options);
    let (table, _lock) = provider.read().map_err(|error| advised(&error))?;
    Ok((*table).clone())
}

/// Writes a table as an updater does, under an exclusive lock, which may be that of `exeunt certs lock` around it.
fn write(path: &Path, table: &CheckedTable, wait: &Wait) -> Result<(), Failure> {
    let held = std::env::var(Held::VARIABLE).ok().and_then(|value| Held::from_value(&value));
    let written = replace(path, table, wait.limit(), held, &SystemClock::default());
    written.map_err(|error| advised(&error))
}

/// An error of a file in one line, with what to do next.
fn advised(error: &FileError) -> Failure {
    let advice = match error {
        FileError::Missing { .. } => ": `exeunt certs build` makes one",
        FileError::Busy { .. } => ": a VMM or an updater holds it, --timeout waits longer",
        FileError::Malformed { .. } => ": `exeunt certs build` makes a new one",
        _ => "",
    };
    format!("{error}{advice}")
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| format!("{text}\n")).map_err(|error| format!("cannot write JSON: {error}"))
}
