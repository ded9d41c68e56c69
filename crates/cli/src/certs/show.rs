//! `exeunt certs show`: what is in a table.

use super::{Format, Wait, json, read};
use crate::{Failure, print};
use exeunt_certs::chain::Certificate;
use exeunt_certs::identity::{TcbText, hex};
use exeunt_proto::certs::{CRL, Table};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show what is in a table: each certificate, whose it is, and for which chip and TCB. Nothing is verified.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt certs show /var/lib/snp/certs.bin
  exeunt certs show certs.bin --format json | jq -r '.entries[0].tcb'

JSON: {file, bytes, pages, entries: [{kind, guid, bytes, role?, subject?, issuer?, serial?, not_before?, not_after?,
       sha256?, product?, tcb?, chip?, csp?, simulated?, problem?}, ..]}; hex and dates are strings.

Exit status: 0 it is a table, 2 it cannot be read or is none.")]
pub(super) struct Args {
    /// The table
    file: PathBuf,

    #[command(flatten)]
    wait: Wait,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct Shown {
    file: String,
    bytes: usize,
    /// 4 KiB pages that a guest has to have room for.
    pages: u64,
    entries: Vec<Entry>,
}

#[derive(Default, Serialize)]
struct Entry {
    kind: String,
    guid: String,
    bytes: usize,
    #[serde(flatten)]
    certificate: Option<Fields>,
    /// Why nothing more is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// What a certificate says.
#[derive(Serialize)]
pub(super) struct Fields {
    role: &'static str,
    subject: String,
    issuer: String,
    serial: String,
    not_before: String,
    not_after: String,
    sha256: String,
    simulated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    product: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcb: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    csp: Option<String>,
}

pub(super) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let table = read(&args.file, &args.wait)?;
    let parsed = Table::parse(table.as_bytes()).map_err(|error| error.to_string())?;
    let entries = parsed.certificates().map(|entry| {
        let kind = entry.guid.name().unwrap_or("unknown").to_string();
        let mut shown =
            Entry { kind, guid: entry.guid.to_string(), bytes: entry.bytes.len(), ..Entry::default() };
        match Certificate::from_der(entry.bytes) {
            Ok(certificate) => shown.certificate = Some(fields(&certificate)),
            Err(_) if entry.guid == CRL => {}
            Err(error) => shown.problem = Some(error.to_string()),
        }
        shown
    });
    let shown = Shown {
        file: args.file.display().to_string(),
        bytes: table.as_bytes().len(),
        pages: table.pages(),
        entries: entries.collect(),
    };
    print(&match args.format {
        Format::Text => text(&shown),
        Format::Json => json(&shown)?,
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn fields(certificate: &Certificate) -> Fields {
    let [not_before, not_after] = certificate.validity_text();
    let endorsement = certificate.endorsement();
    Fields {
        role: certificate.role().name(),
        subject: certificate.subject(),
        issuer: certificate.issuer(),
        serial: certificate.serial(),
        not_before,
        not_after,
        sha256: hex(&certificate.fingerprint()),
        simulated: certificate.is_simulated(),
        product: endorsement.map(|one| one.product_name.clone()),
        tcb: endorsement.map(|one| TcbText(one.tcb).to_string()),
        chip: endorsement.and_then(|one| one.chip.as_ref()).map(ToString::to_string),
        csp: endorsement.and_then(|one| one.csp.clone()),
    }
}

fn text(shown: &Shown) -> String {
    let Shown { file, bytes, pages, entries } = shown;
    let (many, room) = (count(entries.len(), "certificate"), count(*pages, "page"));
    let mut text = format!("{file}: {many} in {bytes} bytes, which need {room}\n");
    for Entry { kind, guid, bytes, certificate, problem } in entries {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{kind}  {guid}, {bytes} bytes");
        let mut line = |name: &str, value: &str| _ = writeln!(text, "  {name:<8} {value}");
        if let Some(problem) = problem {
            line("problem", problem);
        }
        let Some(fields) = certificate else { continue };
        if fields.role != kind {
            line("role", fields.role);
        }
        line("subject", &fields.subject);
        line("issuer", &fields.issuer);
        line("valid", &format!("{} to {}", fields.not_before, fields.not_after));
        line("sha256", &fields.sha256);
        let optional = [
            ("product", &fields.product),
            ("tcb", &fields.tcb),
            ("chip", &fields.chip),
            ("csp", &fields.csp),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                line(name, value);
            }
        }
    }
    text
}

fn count(number: impl TryInto<u64>, what: &str) -> String {
    match number.try_into() {
        Ok(1) => format!("1 {what}"),
        Ok(number) => format!("{number} {what}s"),
        Err(_) => format!("many {what}s"),
    }
}
