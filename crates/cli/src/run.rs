//! `exeunt run`: scenarios on a kernel half.

use crate::{Failure, print};
use clap::ValueEnum;
use exeunt_abi::Dialect;
use exeunt_check::report::{Report, Summary, scenario_text, summary_text};
use exeunt_check::runner::{self, Half, Options, ScenarioReport, Verdict};
use exeunt_check::scenario::{NAMES, Scenario, load};
use std::process::ExitCode;

/// Run scenarios and show who did what: each exit as the kernel wrote it, the plan, the effects, the reply, and what
/// the guest then saw.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt run                                          every shipped scenario on the software kernel
  exeunt run --list                                   their names
  exeunt run certificates --seed 7 --format json
  exeunt run page-state-change --dialect linux-6.12   as another kernel would do it
  exeunt run triple-fault-migration --kernel kvm --without-capability
  exeunt run ./mine.toml                              a scenario of your own

A case that a kernel cannot run is skipped with its reason; a scenario of which nothing runs is an error.

Exit status: 0 all as expected, 1 a case saw something else, 2 something could not be run.")]
pub(crate) struct Args {
    /// Names of shipped scenarios, or paths of scenario files; all shipped ones if none is given
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,

    /// The kernel half
    #[arg(long, value_enum, default_value_t = Kernel::Model)]
    kernel: Kernel,

    /// The kernel that the model imitates, instead of each case's own
    #[arg(long, value_parser = parse_dialect)]
    dialect: Option<Dialect>,

    /// What chance draws from: the order of vCPUs, and what guests draw
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How to print what happened
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Only the cases whose VMM does not enable the capability that the scenario is about
    #[arg(long)]
    without_capability: bool,

    /// Print the names of the shipped scenarios and stop
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kernel {
    /// In software: no hardware, no privileges
    Model,
    /// The host's /dev/kvm
    Kvm,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A timeline
    Text,
    /// One JSON document
    Json,
}

pub(crate) fn parse_dialect(name: &str) -> Result<Dialect, String> {
    Dialect::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Dialect::all().map(Dialect::name).collect();
        format!("there are {}", known.join(", "))
    })
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    if args.list {
        return list();
    }
    let half = match args.kernel {
        Kernel::Model => Half::Model,
        Kernel::Kvm => Half::Kvm,
    };
    if half == Half::Kvm && args.dialect.is_some() {
        return Err("--dialect is for the model: a real kernel is what it is".into());
    }
    // Everything is loaded before anything runs, so that a mistake leaves nothing half done.
    let scenarios = load_all(&args.scenarios)?;
    runner::available(half)?;
    let without_capability = args.without_capability;
    let options = Options { half, dialect: args.dialect, seed: args.seed, without_capability };
    let mut report =
        Report { kernel: half, seed: args.seed, scenarios: Vec::new(), summary: Summary::default() };
    let mut refusals = Vec::new();
    for scenario in &scenarios {
        let ran = runner::run(scenario, &options);
        if let Some(refusal) = refusal(&ran).filter(|_| !args.scenarios.is_empty()) {
            refusals.push(refusal);
            continue;
        }
        report.summary.add(&ran);
        if args.format == Format::Text && !ran.cases.is_empty() {
            print(&format!("{}\n", scenario_text(&ran)))?;
        }
        report.scenarios.push(ran);
    }
    if !refusals.is_empty() && report.scenarios.is_empty() {
        return Err(refusals.join("\nexeunt: "));
    }
    match args.format {
        Format::Text => print(&format!("{}\n", summary_text(report.scenarios.len(), &report.summary)))?,
        Format::Json => {
            let json = serde_json::to_string_pretty(&report)
                .map_err(|error| format!("cannot write the report as JSON: {error}"))?;
            print(&format!("{json}\n"))?;
        }
    }
    if !refusals.is_empty() {
        return Err(refusals.join("\nexeunt: "));
    }
    Ok(if report.summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list() -> Result<ExitCode, Failure> {
    for scenario in load_all(&[])? {
        print(&format!("{:<24} {}\n", scenario.name, scenario.title))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn load_all(arguments: &[String]) -> Result<Vec<Scenario>, Failure> {
    let all: Vec<String>;
    let arguments = if arguments.is_empty() {
        all = NAMES.iter().map(ToString::to_string).collect();
        &all
    } else {
        arguments
    };
    arguments.iter().map(|argument| load(argument).map_err(|error| error.to_string())).collect()
}

/// Why nothing of a scenario ran, if nothing did: the first reason. It is an error where the scenario was asked for.
fn refusal(report: &ScenarioReport) -> Option<Failure> {
    let name = &report.name;
    let mut reasons = report.cases.iter().map(|case| match &case.verdict {
        Verdict::Skipped { reason } => Some(reason),
        _ => None,
    });
    match reasons.next() {
        None => Some(format!("scenario '{name}' has no case without a capability")),
        Some(first) => {
            let first = first.filter(|_| reasons.all(|reason| reason.is_some()))?;
            Some(format!("scenario '{name}' cannot run: {first}"))
        }
    }
}
