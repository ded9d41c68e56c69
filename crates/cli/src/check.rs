//! `exeunt check`: is a VMM right at the exit boundary?

mod choose;
mod demo;
#[cfg_attr(not(all(target_os = "linux", target_arch = "x86_64")), path = "check/elsewhere.rs")]
mod foreign;
mod output;
mod own;
mod progress;
mod stop;

use crate::{Failure, print};
use clap::ValueEnum;
use exeunt_abi::Dialect;
use exeunt_check::judgement::{self, Paint, Report, Shard, Word};
use output::Outputs;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Put a VMM in front of a kernel half, drive it through the confidential exits, and judge it by the rules of the exit
/// boundary: by what crosses it and nothing else. Without a VMM it is our own VMM half that is judged, in process.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt check                                  our own VMM half, by all rules
  exeunt check --demo                           some that are wrong on purpose: each must be caught
  exeunt check --vmm negative-errno             one that is wrong on purpose (exeunt rules --vmms)
  exeunt check -- ./my-vmm --kernel guest.bin   a VMM, as it would be started by hand
  exeunt check --profile qemu                   one that is started with a tiny guest (--profiles)
  exeunt check --rule HC --scene conversion-that-fails -- ./my-vmm
  exeunt check --shard 1/3 --junit out.xml --sarif out.sarif --html out.html -- ./my-vmm
  exeunt check --format json -- ./my-vmm | jq -r '.rules[] | select(.verdict == \"fail\") | .id'

A line marked 'again' shows one verdict again. docs/checking.md says how to read a verdict.

Exit status: 0 no MUST was broken, 1 one was, 2 it could not be run, no rule was exercised, or a report could not be written,
130 interrupted. With --demo: 0 our half passes and each wrong one is caught, 1 otherwise.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Args {
    /// The VMM and its arguments
    #[arg(last = true, value_name = "VMM")]
    command: Vec<OsString>,

    /// Only this rule, or the rules of this group; can be given again
    #[arg(long = "rule", value_name = "ID")]
    rules: Vec<String>,

    /// Only this scene
    #[arg(long, value_name = "NAME")]
    scene: Option<String>,

    /// The kernel that is imitated, instead of each scene's own; without a VMM, only scenes on this kernel
    #[arg(long, value_parser = crate::run::parse_dialect)]
    dialect: Option<Dialect>,

    /// What is behind the VMM's calls, instead of what suits the host
    #[arg(long, value_enum)]
    stage: Option<Stage>,

    /// How a kernel half is put in front of the VMM, instead of what suits its binary
    #[arg(long, value_enum)]
    via: Option<Via>,

    /// Start the VMM as this profile says: its name, or a file
    #[arg(long, value_name = "NAME|FILE")]
    profile: Option<String>,

    /// What decides by chance: the order of vCPUs, and what guests draw
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// How long one scene may take [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    timeout: Option<u32>,

    /// Only a part of the scenes, such as 1/3; the parts 1/3, 2/3 and 3/3 have each scene once
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,

    /// Judge a VMM that is wrong on purpose, by its name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["command", "profile"])]
    vmm: Option<String>,

    /// Judge our own half and some that are wrong on purpose
    #[arg(long, conflicts_with_all = [
        "command", "profile", "vmm", "list", "rules", "scene", "dialect", "shard", "format", "junit", "sarif", "html",
    ])]
    demo: bool,

    /// Say which scenes would be played, and stop
    #[arg(long)]
    list: bool,

    /// List the profiles that come with this program, and stop
    #[arg(long, conflicts_with_all = ["command", "profile", "vmm", "demo", "list"])]
    profiles: bool,

    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Write a report for CI systems, as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write a report for code scanning, as SARIF 2.1.0
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,

    /// Write a report for people, as one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Print what was broken, and nothing else
    #[arg(long, short)]
    quiet: bool,

    /// Do not show what is being played
    #[arg(long)]
    no_progress: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The real /dev/kvm; calls are recorded
    Observe,
    /// The real /dev/kvm runs the guest, and exits are put in between its own
    Overlay,
    /// The software kernel is /dev/kvm and /dev/sev
    Scripted,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Via {
    /// A library that the dynamic linker loads first
    Shim,
    /// A supervisor that the kernel tells of system calls
    Notify,
}

impl Args {
    /// A program that is not ours is judged.
    fn is_foreign(&self) -> bool {
        !self.command.is_empty() || self.profile.is_some()
    }

    /// An option that means nothing without a VMM is a mistake: what it asks for would not happen.
    fn check(&self) -> Result<(), Failure> {
        let given = [
            ("stage", self.stage.is_some()),
            ("via", self.via.is_some()),
            ("timeout", self.timeout.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given && !self.is_foreign()) {
            Some((name, _)) => {
                Err(format!("--{name} is for a VMM, and none is given: exeunt check --{name} ... -- VMM"))
            }
            None => Ok(()),
        }
    }
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    args.check()?;
    if args.profiles {
        return foreign::profiles(args.format);
    }
    if args.demo {
        return demo::main(args.seed, paint());
    }
    let rules = choose::rules(&args.rules)?;
    if args.list {
        return choose::list(args, &rules);
    }
    // Before anything runs, so that nothing is judged for a report that cannot be written.
    let outputs = Outputs::new(args)?;
    let stop = stop::on_signals()?;
    let (report, failure) = if args.is_foreign() {
        foreign::judge(args, &rules, &stop)?
    } else {
        own::judge(args, &rules, &stop)?
    };
    // A disk that is full takes the reports, and not the verdicts as well.
    let written = outputs.write(&report);
    print(&match args.format {
        Format::Json => judgement::json(&report).map_err(|error| error.to_string())?,
        Format::Text if args.quiet => judgement::broken_text(&report, paint()),
        Format::Text => judgement::text(&report, paint()),
    })?;
    written?;
    status(args, &report, failure)
}

fn status(args: &Args, report: &Report, failure: Option<Failure>) -> Result<ExitCode, Failure> {
    if let Some(failure) = failure {
        return Err(failure);
    }
    if report.cut_short.is_some() {
        return Ok(ExitCode::from(stop::STATUS));
    }
    let nothing = report.rules.iter().all(|rule| rule.verdict == Word::NotExercised);
    if nothing && args.shard.is_none() {
        return Err("no rule was exercised, so nothing is known of this VMM".into());
    }
    Ok(ExitCode::from(u8::from(report.has_failed())))
}

/// Colours, if someone looks who wants them.
fn paint() -> Paint {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    if is_terminal && !is_set("NO_COLOR") && !is_dumb { Paint::Colour } else { Paint::Plain }
}
