//! `exeunt certs`: the certificates of a host, as files that VMMs hand to SNP guests.

mod build;
mod fetch;
mod lock;
mod publish;
mod show;
mod trust;
mod verify;

use crate::{Failure, print};
use clap::{Subcommand, ValueEnum};
use exeunt::certs::CheckedTable;
use exeunt_certs::chain::{Chain, ChainError};
use exeunt_certs::clock::SystemClock;
use exeunt_certs::file::{FileError, FileProvider, Held, Options, replace};
use exeunt_certs::identity::TcbText;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use trust::Trusted;

/// Certificate tables for SNP guests: fetch or build, verify and show them, and lock them while firmware changes.
///
/// A table is what a VMM answers an extended guest request with: VCEK or VLEK, ASK or ASVK, ARK. Whoever reads it holds a
/// shared lock on its file, whoever changes the firmware or the file an exclusive one (open file description locks).
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt certs build vcek.der cert_chain.pem -o /var/lib/snp/certs.bin --root ark.pem
  exeunt certs fetch --kds --report report.bin -o /var/lib/snp/certs.bin --root ark.pem
  exeunt certs publish /var/lib/snp/certs.bin --to s3://fleet/certs --root ark.pem
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
    Fetch(fetch::Args),
    Publish(publish::Args),
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
        Command::Fetch(args) => fetch::main(args),
        Command::Publish(args) => publish::main(args),
        Command::Verify(args) => verify::main(args),
        Command::Show(args) => show::main(args),
        Command::Lock(args) => lock::main(args),
    }
}

/// Verifies the chains of a table that is to be written or published, or says why they do not hold.
fn verified(table: &CheckedTable, trusted: &Trusted) -> Result<Vec<Chain>, ChainError> {
    let chains = Chain::all_of(table)?;
    chains.iter().try_for_each(|chain| trusted.verifier().verify(chain).map(|_| ()))?;
    Ok(chains)
}

/// What was written, or published: the certificates in one line each, and what a caller should know of them.
fn summary(chains: &[Chain], trusted: &Trusted) -> String {
    let mut text = String::new();
    for endorsement in chains.iter().filter_map(|chain| chain.endorsement().ok()) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}, TCB {}", endorsement.product_name, TcbText(endorsement.tcb));
    }
    for warning in trusted.warnings(chains) {
        let _ = writeln!(text, "note: {warning}");
    }
    text
}

/// The last step of `build` and `fetch`: a table whose chains hold takes the place of the old one.
fn install(
    table: &CheckedTable,
    output: &Path,
    trusted: &Trusted,
    wait: &Wait,
    check: impl FnOnce(&[Chain]) -> Result<(), ChainError>,
) -> Result<ExitCode, Failure> {
    let chains = match verified(table, trusted).and_then(|chains| check(&chains).map(|()| chains)) {
        Ok(chains) => chains,
        Err(error) => {
            print(&format!("not written: {error}\n"))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    write(output, table, wait)?;
    let (bytes, pages) = (table.as_bytes().len(), table.pages());
    let head = format!("{}: {bytes} bytes, which need {pages} pages\n", output.display());
    print(&(head + &summary(&chains, trusted)))?;
    Ok(ExitCode::SUCCESS)
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
