//! `exeunt certs verify`: whether a chain leads to its root and goes with what the firmware reports.

use super::trust::Trust;
use super::{Format, Wait, json, read};
use crate::{Failure, print};
use exeunt_certs::chain::{Chain, ChainError, Verified, parse_report};
use exeunt_certs::file::read_bounded;
use exeunt_certs::identity::{TcbText, hex};
use exeunt_proto::report::{KnownReport, SigningKey};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Verify the chains of a table: signatures up to the trusted root, and the TCB against the reported one.
///
/// The report is one that this host's firmware signed. With it chip, reported TCB and the report's own signature are
/// checked; with --tcb the TCB alone, as the platform's status has it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt certs verify certs.bin --root ark.pem
  exeunt certs verify certs.bin --root ark.pem --report report.bin
  exeunt certs verify certs.bin --root-sha256 4f0c.. --tcb bl3.tee0.snp20.ucode209
  exeunt certs verify certs.bin --any-root --allow-simulated        on the software processor

JSON: {file, holds, chains: [{role, product, tcb, chip?, csp?, root}, ..], report?: {chip?, tcb}, problem?, warnings: [..]}

Exit status: 0 every chain holds, 1 one does not, 2 something cannot be read.")]
pub(super) struct Args {
    /// The table
    file: PathBuf,

    #[command(flatten)]
    trust: Trust,

    /// An attestation report of this host: 1184 bytes, or the response of the firmware with it
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// The reported TCB
    #[arg(long, value_name = "TCB")]
    tcb: Option<TcbText>,

    #[command(flatten)]
    wait: Wait,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Default, Serialize)]
struct Verdict {
    file: String,
    holds: bool,
    chains: Vec<Holds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Reported>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Holds {
    role: &'static str,
    product: String,
    tcb: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    chip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    csp: Option<String>,
    /// SHA-256 of the root.
    root: String,
}

#[derive(Serialize)]
struct Reported {
    #[serde(skip_serializing_if = "Option::is_none")]
    chip: Option<String>,
    tcb: String,
}

pub(super) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let trusted = args.trust.read()?;
    let table = read(&args.file, &args.wait)?;
    let bytes = args.report.as_deref().map(read_bounded).transpose().map_err(|error| error.to_string())?;
    let report = bytes.as_deref().map(parse_report).transpose();
    let report = report.map_err(|error| match &args.report {
        Some(path) => format!("{}: {error}", path.display()),
        None => error.to_string(),
    })?;
    let mut verdict = Verdict { file: args.file.display().to_string(), ..Verdict::default() };
    verdict.report = report.as_ref().map(|report| Reported {
        chip: report.chip_id().map(|chip| hex(&chip)),
        tcb: TcbText(report.tcb(report.wire.reported_tcb)).to_string(),
    });
    let outcome = Chain::all_of(&table).and_then(|chains| {
        for chain in &chains {
            let verified = trusted.verifier().verify(chain)?;
            if let Some(TcbText(tcb)) = args.tcb {
                verified.check_tcb(tcb)?;
            }
            verdict.chains.push(holds(&verified));
        }
        verdict.warnings = trusted.warnings(&chains);
        report.as_ref().map_or(Ok(()), |report| check_report(&chains, report))
    });
    verdict.holds = outcome.is_ok();
    verdict.problem = outcome.err().map(|error| error.to_string());
    print(&match args.format {
        Format::Text => text(&verdict),
        Format::Json => json(&verdict)?,
    })?;
    Ok(if verdict.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A report is signed by one key. A table may have the chain of another one besides.
pub(super) fn check_report(chains: &[Chain], report: &KnownReport<'_>) -> Result<(), ChainError> {
    let signed_by = |chain: &&Chain| {
        let is_vlek = chain.endorsement().is_ok_and(|endorsement| endorsement.csp.is_some());
        is_vlek == (report.signing_key() == SigningKey::Vlek)
    };
    chains.iter().find(signed_by).or(chains.first()).map_or(Ok(()), |chain| chain.check_report(report))
}

fn holds(verified: &Verified) -> Holds {
    let endorsement = &verified.endorsement;
    Holds {
        role: verified.role.name(),
        product: endorsement.product_name.clone(),
        tcb: TcbText(endorsement.tcb).to_string(),
        chip: endorsement.chip.as_ref().map(ToString::to_string),
        csp: endorsement.csp.clone(),
        root: hex(&verified.root),
    }
}

fn text(verdict: &Verdict) -> String {
    let mut text = match &verdict.problem {
        None => format!("{}: holds\n", verdict.file),
        Some(problem) => format!("{}: does not hold: {problem}\n", verdict.file),
    };
    for chain in &verdict.chains {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} of {}, TCB {}", chain.role, chain.product, chain.tcb);
        let optional = [("chip", &chain.chip), ("csp", &chain.csp), ("root", &Some(chain.root.clone()))];
        for (name, value) in optional {
            if let Some(value) = value {
                let _ = writeln!(text, "  {name:<8} {value}");
            }
        }
    }
    if let Some(report) = &verdict.report {
        let _ = writeln!(text, "report: TCB {}", report.tcb);
    }
    for warning in &verdict.warnings {
        let _ = writeln!(text, "note: {warning}");
    }
    text
}
