//! `exeunt rules`: what a VMM must do at the boundary.

use crate::{Failure, print};
use clap::ValueEnum;
use exeunt_abi::Dialect;
use exeunt_check::judge::{WrongVmm, wrong_vmms};
use exeunt_check::rules::{self, Rule, Severity};
use std::fmt::Write;
use std::process::ExitCode;

/// List the rules of the exit boundary, or show one with its source and the scenarios that drive a VMM to it. `exeunt check`
/// judges by them.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt rules                     all of them
  exeunt rules HC                  those about hypercalls and conversions
  exeunt rules HC-2                one, with its source
  exeunt rules HC-2 --vmms         those that are wrong on purpose and break it
  exeunt rules --format json | jq -r '.[] | select(.severity == \"MUST\") | .id'")]
pub(crate) struct Args {
    /// An id such as HC-2, or the letters of a group
    id: Option<String>,

    /// Only rules that hold for this kernel or proposal
    #[arg(long, value_parser = crate::run::parse_dialect)]
    dialect: Option<Dialect>,

    /// List the VMMs that are wrong on purpose and break these rules
    #[arg(long)]
    vmms: bool,

    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let chosen: Vec<&Rule> = rules::all()
        .filter(|rule| args.id.as_deref().is_none_or(|id| is_meant(rule, id)))
        .filter(|rule| args.dialect.is_none_or(|dialect| rule.holds_for(dialect)))
        .collect();
    if chosen.is_empty() {
        let id = args.id.as_deref().unwrap_or_default();
        return Err(match args.dialect {
            Some(dialect) if rules::all().any(|rule| is_meant(rule, id)) => {
                format!("'{id}' does not hold for {dialect}")
            }
            _ => format!("no rule is named '{id}'; `exeunt rules` lists all"),
        });
    }
    if args.vmms {
        let breaks = |vmm: &WrongVmm| chosen.iter().any(|rule| vmm.breaks.contains(&rule.id.as_str()));
        let vmms: Vec<_> = wrong_vmms().filter(breaks).collect();
        print(&match args.format {
            Format::Json => json(&vmms)?,
            Format::Text => vmms.iter().fold(String::new(), |mut text, vmm| {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{:<40} {:<12} {}", vmm.name, vmm.breaks.join(" "), vmm.what);
                text
            }),
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = match (args.format, chosen.as_slice()) {
        (Format::Json, chosen) => json(&chosen)?,
        (Format::Text, [rule]) => details(rule),
        (Format::Text, chosen) => list(chosen),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    Ok(json + "\n")
}

/// `HC-2` is one rule, `HC` a group.
pub(crate) fn is_meant(rule: &Rule, id: &str) -> bool {
    let group = rule.id.split_once('-').map(|(group, _)| group);
    rule.id.eq_ignore_ascii_case(id) || group.is_some_and(|group| group.eq_ignore_ascii_case(id))
}

fn list(chosen: &[&Rule]) -> String {
    chosen.iter().fold(String::new(), |mut text, rule| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:<6} {:<6} {}", rule.id, rule.severity.to_string(), plain(&rule.text));
        text
    })
}

fn details(rule: &Rule) -> String {
    let why = match rule.severity {
        Severity::Must => "the kernel's documentation or code refuses, or breaks the guest, otherwise",
        Severity::Should => "the documentation encourages it",
        Severity::Hazard => "it follows from the code, and nothing enforces it",
    };
    let not_for: Vec<_> = rule.not_for.iter().map(|dialect| dialect.name()).collect();
    let mut lines = vec![
        format!("{} {}: {}", rule.id, rule.severity, plain(&rule.text)),
        format!("  {}: {why}", rule.severity),
        format!("  source    {}", plain(&rule.source)),
        format!("  since     Linux {}", rule.since),
    ];
    if !not_for.is_empty() {
        lines.push(format!("  not for   {}", not_for.join(", ")));
    }
    if let Some(note) = &rule.note {
        lines.push(format!("  note      {}", plain(note)));
    }
    lines.push(format!("  scenario  {}", rule.scenarios.join(", ")));
    lines.join("\n") + "\n"
}

/// Without the marks that only a page needs.
pub(crate) fn plain(text: &str) -> String {
    text.replace('`', "")
}
