//! `exeunt abi diff`: what changes between two trees, and whom it breaks.

use super::{Format, Unseen, absent, arches, headers, json, tree, unseen};
use crate::{Failure, print};
use exeunt_headers::{Finding, Severity, Target, Tree, diff};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Say what changes between an old and a new tree, and whom it breaks: natively, and as a 32-bit process of a 64-bit
/// kernel.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt abi diff linux-5.17 linux-7.2
  exeunt abi diff linux-5.17 sev-term-v4.1
  exeunt abi diff --headers old/usr/include --headers new/usr/include
  exeunt abi diff linux-6.1 --headers /usr/include       a release against the installed headers

Headers are compiled for every architecture that they are made for and a compiler is found for; what could not be
looked at is said and counted.

Exit status: 0 nothing breaks, 1 something does, 2 something could not be looked at.")]
pub(super) struct Args {
    /// Names of dialects, or folders with installed headers: the old one, then the new one
    #[arg(value_name = "TREE")]
    trees: Vec<String>,

    /// A folder with installed headers: linux/kvm.h, and asm/kvm.h in it or in the folder of the architecture
    #[arg(long, value_name = "DIR")]
    headers: Vec<PathBuf>,

    /// Print structs and numbers that are only added, too
    #[arg(long)]
    all: bool,

    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct Report<'r> {
    old: &'r str,
    new: &'r str,
    arches: &'r [Target],
    breaks: usize,
    notes: usize,
    findings: Vec<Told<'r>>,
    not_looked_at: Vec<Unseen<'r>>,
}

#[derive(Serialize)]
struct Told<'r> {
    #[serde(flatten)]
    finding: &'r Finding,
    text: String,
}

pub(super) fn main(args: &Args) -> Result<ExitCode, Failure> {
    if args.trees.len() + args.headers.len() != 2 {
        let given = args.trees.len() + args.headers.len();
        return Err(format!("two trees are compared, an old one and a new one, and {given} were given"));
    }
    let mut trees: Vec<Tree> = args.trees.iter().map(|name| tree(name)).collect::<Result<_, _>>()?;
    for dir in &args.headers {
        trees.push(headers(dir)?);
    }
    let [old, new] = trees.as_slice() else { return Err("two trees are compared".into()) };
    let targets = diff::shared_targets(old, new);
    if targets.is_empty() {
        return Err(format!("{} and {} have no architecture in common", old.name, new.name));
    }
    let findings = diff::diff(old, new);
    let breaks = findings.iter().filter(|finding| finding.severity == Severity::Break).count();
    match args.format {
        Format::Text => print(&text(old, new, &targets, &findings, args.all))?,
        Format::Json => {
            let told = findings.iter().map(|finding| Told { finding, text: finding.to_string() });
            let report = Report {
                old: &old.name,
                new: &new.name,
                arches: &targets,
                breaks,
                notes: findings.len() - breaks,
                findings: told.collect(),
                not_looked_at: unseen(&trees),
            };
            print(&json(&report)?)?;
        }
    }
    Ok(if breaks == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(old: &Tree, new: &Tree, targets: &[Target], findings: &[Finding], all: bool) -> String {
    let shown: Vec<&Finding> = findings.iter().filter(|finding| all || !finding.is_addition()).collect();
    let hidden = findings.len() - shown.len();
    // Breaks come first, so what breaks is told first, with its notes.
    let mut subjects: Vec<&str> = Vec::new();
    for finding in &shown {
        if !subjects.contains(&finding.subject.as_str()) {
            subjects.push(&finding.subject);
        }
    }
    let mut lines = Vec::new();
    for subject in subjects {
        lines.push(format!("{subject}\n"));
        for finding in shown.iter().filter(|finding| finding.subject == subject) {
            let severity = match finding.severity {
                Severity::Break => "break",
                Severity::Note => "note ",
            };
            lines.push(format!("  {severity}  [{}]  {finding}\n", arches(&finding.arches, targets)));
        }
    }
    lines.push(absent(&[old, new]));
    let breaks = findings.iter().filter(|finding| finding.severity == Severity::Break).count();
    let names: Vec<_> = targets.iter().map(|target| target.name()).collect();
    let unseen = old.absent.len() + new.absent.len();
    let unseen = if unseen == 0 {
        String::new()
    } else {
        format!("; {} not looked at", count(unseen, "architecture"))
    };
    let hidden =
        if hidden == 0 { String::new() } else { format!(", of which {} (--all)", count(hidden, "addition")) };
    lines.push(format!(
        "{} -> {} on {}: {} and {}{hidden}{unseen}\n",
        old.name,
        new.name,
        names.join(", "),
        count(breaks, "break"),
        count(findings.len() - breaks, "note"),
    ));
    lines.concat()
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
