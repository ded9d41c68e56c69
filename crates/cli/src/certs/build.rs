//! `exeunt certs build`: a table from certificates.

use super::trust::Trust;
use super::{Wait, install};
use crate::Failure;
use exeunt_certs::chain::Bundle;
use exeunt_certs::file::read_bounded;
use std::path::PathBuf;
use std::process::ExitCode;

/// Build a table from certificates, verify it, and put it in the place of the old one.
///
/// What each certificate is, is seen from itself: VCEK or VLEK, ASK or ASVK, ARK, and a revocation list. A file has one
/// in DER or any number in PEM. The table is written under the exclusive lock and renamed into place when it is complete,
/// so a VMM that reads meanwhile gets the old one or the new one.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt certs build vcek.der cert_chain.pem -o certs.bin --root ark.pem
  exeunt certs lock certs.bin -- sh -c './update-firmware && exeunt certs build new/* -o certs.bin --root ark.pem'

Exit status: 0 it is written, 1 the chain does not hold, 2 something cannot be read or written.")]
pub(super) struct Args {
    /// Certificates, PEM or DER
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Where the table goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    trust: Trust,

    #[command(flatten)]
    wait: Wait,
}

pub(super) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let trusted = args.trust.read()?;
    let mut bundle = Bundle::default();
    for path in &args.files {
        let bytes = read_bounded(path).map_err(|error| error.to_string())?;
        bundle.add(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let table = bundle.table().map_err(|error| error.to_string())?;
    install(&table, &args.output, &trusted, &args.wait, |_| Ok(()))
}
