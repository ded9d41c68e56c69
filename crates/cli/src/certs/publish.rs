//! `exeunt certs publish`: a table for a fleet.

use super::trust::Trust;
use super::{Wait, read, summary, verified};
use crate::{Failure, print};
use exeunt_certs::clock::SystemClock;
use exeunt_certs::store::{self, Location, Store, StoreError};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Publish a table to a store, where hosts fetch it.
///
/// The table is put there once and never changed; a small pointer for the chip leads to it from then on. Publishers that
/// meet do not lose each other's pointers.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt certs publish certs.bin --to /srv/certs --root ark.pem
  exeunt certs publish certs.bin --to 's3://fleet/certs?endpoint=https://minio.example' --root ark.pem

A store is a folder, file:///folder, or s3://bucket/prefix with ?endpoint=URL&region=NAME behind it for other servers than
Amazon's. Keys come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and so on.

Exit status: 0 it is published, 1 the chain does not hold, 2 something cannot be read or written.")]
pub(super) struct Args {
    /// The table
    file: PathBuf,

    /// The store
    #[arg(long, value_name = "STORE")]
    to: Location,

    /// Let the pointer lead back to a TCB that is older in some part
    #[arg(long)]
    allow_older: bool,

    #[command(flatten)]
    trust: Trust,

    #[command(flatten)]
    wait: Wait,
}

/// How long a store may take for one command.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let trusted = args.trust.read()?;
    let table = read(&args.file, &args.wait)?;
    let chains = match verified(&table, &trusted) {
        Ok(chains) => chains,
        Err(error) => {
            print(&format!("not published: {error}\n"))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let store = Store::open(&args.to, Arc::new(SystemClock::default())).map_err(|error| one_line(&error))?;
    let published =
        store::wait(LIMIT, store.publish(&table, args.allow_older)).map_err(|error| one_line(&error))?;
    let mut text = String::new();
    for one in published {
        let what = if one.is_new { "published" } else { "published before" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}: {what}, generation {}", one.subject, one.pointer.generation);
        let _ = writeln!(text, "  {:<8} {}", "sha256", one.pointer.sha256);
    }
    print(&(text + &summary(&chains, &trusted)))?;
    Ok(ExitCode::SUCCESS)
}

/// An error of a store, with what to do next.
pub(super) fn one_line(error: &StoreError) -> Failure {
    let advice = match error {
        StoreError::Older { .. } => ": --allow-older goes back",
        StoreError::NotPublished { .. } => ": `exeunt certs publish` does that",
        _ => "",
    };
    // What stores say has several lines now and then.
    format!("{error}{advice}").replace('\n', " ")
}
