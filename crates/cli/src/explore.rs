//! `exeunt explore`: seeded worlds of guests, faults and our VMM half, judged after each step.

use crate::run::parse_dialect;
use crate::{Failure, print};
use clap::ValueEnum;
use exeunt_abi::Dialect;
use exeunt_check::explore::{Canary, Config, Summary, sweep};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Explore schedules: seeded worlds of SNP guests, faults and our VMM half on the software kernel, with checkers that
/// hold what the guests were told against attributes, memory, devices and completions after each step.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt explore                              1000 worlds, half of them with faults
  exeunt explore --seeds 1000000 --jobs 8
  exeunt explore --first 4711 --seeds 1       one world again
  exeunt explore --dialect linux-6.12 --format json
  exeunt explore --canary loses-a-word        a VMM that is wrong on purpose: the checkers must notice

Exit status: 0 no rule was broken, 1 a world broke a rule, 2 nothing could be run.")]
pub(crate) struct Args {
    /// How many worlds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,

    /// The seed of the first world; the others count on from it
    #[arg(long, default_value_t = 1)]
    first: u64,

    /// vCPUs of a world, at most
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=256))]
    vcpus: u64,

    /// Acts of each guest
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    acts: u64,

    /// The kernel that the model imitates; it must have SNP guests
    #[arg(long, value_parser = parse_dialect, default_value_t = Dialect::default())]
    dialect: Dialect,

    /// Nothing goes wrong
    #[arg(long)]
    no_faults: bool,

    /// A VMM that is wrong in this way, once in a while
    #[arg(long, value_parser = parse_canary)]
    canary: Option<Canary>,

    /// Threads; as many as there are processors if not given
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,

    /// How to print what came of it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each violation, and a summary
    Text,
    /// One JSON document
    Json,
}

fn parse_canary(name: &str) -> Result<Canary, String> {
    Canary::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Canary::ALL.iter().map(|canary| canary.name()).collect();
        format!("there are {}", known.join(", "))
    })
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    if !args.dialect.has_snp() {
        return Err(format!("{} has no SNP guests; linux-6.12 and newer have", args.dialect));
    }
    let config = Config {
        dialect: args.dialect,
        vcpus: args.vcpus,
        acts: args.acts,
        faults: !args.no_faults,
        canary: args.canary,
    };
    let jobs = args.jobs.map_or_else(processors, usize::from);
    let started = Instant::now();
    let progress = Progress::new(args.seeds);
    let summary = sweep(args.first, args.seeds, jobs, &config, &|done| progress.show(done));
    progress.clear();
    match args.format {
        Format::Text => print(&text(&summary, args, started.elapsed()))?,
        Format::Json => {
            let json = serde_json::to_string_pretty(&summary)
                .map_err(|error| format!("cannot write the summary as JSON: {error}"))?;
            print(&format!("{json}\n"))?;
        }
    }
    Ok(if summary.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn text(summary: &Summary, args: &Args, took: Duration) -> String {
    let again = options(args);
    let violations = summary.violations.iter().map(|violation| {
        let seed = violation.seed;
        format!("{violation}\n  again: exeunt explore --first {seed} --seeds 1{again}\n")
    });
    let Summary { worlds, steps, faults, broken, .. } = summary;
    let seconds = took.as_secs_f64();
    let total = format!(
        "{worlds} worlds, {steps} steps, {faults} faults, {broken} worlds broke a rule ({seconds:.1} s)\n"
    );
    violations.chain([total]).collect()
}

/// The options that decide a world, as the user gave them.
fn options(args: &Args) -> String {
    let defaults = Config::default();
    let options = [
        (args.vcpus != defaults.vcpus).then(|| format!(" --vcpus {}", args.vcpus)),
        (args.acts != defaults.acts).then(|| format!(" --acts {}", args.acts)),
        (args.dialect != defaults.dialect).then(|| format!(" --dialect {}", args.dialect)),
        args.no_faults.then(|| " --no-faults".to_string()),
        args.canary.map(|canary| format!(" --canary {}", canary.name())),
    ];
    options.into_iter().flatten().collect()
}

/// A line on the terminal that says how far it is; nothing if nobody looks.
struct Progress {
    count: u64,
    shown: bool,
}

impl Progress {
    /// Worlds between two updates.
    const EVERY: u64 = 256;

    fn new(count: u64) -> Self {
        Self { count, shown: std::io::stderr().is_terminal() }
    }

    fn show(&self, done: u64) {
        if self.shown && done % Self::EVERY == 0 {
            // Progress that cannot be shown is not missed.
            let _ = write!(std::io::stderr(), "\r{done} of {} worlds", self.count);
        }
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
