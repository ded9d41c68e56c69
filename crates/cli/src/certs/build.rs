//! `exeunt certs build`: a table from certificates.

use super::trust::Trust;
use super::{Wait, write};
use crate::{Failure, print};
use exeunt_certs::chain::{Bundle, Chain};
use exeunt_certs::file::read_bounded;
use exeunt_certs::identity::TcbText;
use std::fmt::Write as _;
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
    let chains = Chain::all_from(bundle.certificates()).and_then(|chains| {
        chains.iter().try_for_each(|chain| trusted.verifier().verify(chain).map(|_| ()))?;
        Ok(chains)
    });
    let chains = match chains {
        Ok(chains) => chains,
        Err(error) => {
            print(&format!("not written: {error}\n"))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let table = bundle.table().map_err(|error| error.to_string())?;
    write(&args.output, &table, &args.wait)?;
    let (bytes, pages) = (table.as_bytes().len(), table.pages());
    let mut text = format!("{}: {bytes} bytes, room for {pages} pages needed\n", args.output.display());
    for endorsement in chains.iter().filter_map(|chain| chain.endorsement().ok()) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}, TCB {}", endorsement.product_name, TcbText(endorsement.tcb));
    }
    for warning in trusted.warnings(&chains) {
        let _ = writeln!(text, "note: {warning}");
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
