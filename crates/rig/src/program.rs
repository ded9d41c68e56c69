//! The commands.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use exeunt_abi::{Arch, Dialect, Kernel};
use exeunt_rig::compare::{self, Range, Summary};
use exeunt_rig::flaw::{Flaw, Flawed};
use exeunt_rig::half::OnModel;

/// The model held against a kernel: the same scripts on both, compared byte for byte.
#[derive(Parser)]
#[command(name = "exeunt-rig", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play scripts in the model and on /dev/kvm
    Compare(Chosen),
    /// Compare the log of calls that another machine made with the model
    Calls {
        /// The architecture of the machine
        #[arg(long)]
        arch: String,
        /// The kernel that it ran
        #[arg(long)]
        dialect: String,
        /// The log
        log: std::path::PathBuf,
    },
    /// Print scripts
    Show(Chosen),
}

#[derive(clap::Args)]
struct Chosen {
    /// What chance draws from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of the first script
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many scripts
    #[arg(long, default_value_t = 2000)]
    scripts: u64,
    /// Tell the number of scripts that are done whenever it is a multiple of this
    #[arg(long, default_value_t = 250)]
    progress: u64,
    /// A bug that the model is to have
    #[arg(long, value_parser = flaw)]
    flaw: Option<Flaw>,
}

fn flaw(name: &str) -> Result<Flaw, String> {
    Flaw::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Flaw::ALL.into_iter().map(Flaw::name).collect();
        format!("there are: {}", names.join(", "))
    })
}

impl Chosen {
    const fn range(&self) -> Range {
        Range { seed: self.seed, first: self.first, scripts: self.scripts }
    }
}

/// Writes a line of the protocol with `cargo xtask real-kernels`. It begins on a line of its own, whatever the kernel
/// wrote to the console before.
fn say(what: &str, text: &str) {
    // There is nobody to tell if this fails.
    let _ = writeln!(std::io::stdout(), "\nrig: {what} {text}");
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) fn main() -> ExitCode {
    eprintln!("error: exeunt-rig runs on x86-64 Linux only");
    ExitCode::from(2)
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn main() -> ExitCode {
    let is_init = std::process::id() == 1;
    if is_init {
        if let Err(error) = crate::init::set_up() {
            say("failed", &error);
            crate::init::power_off();
        }
    }
    let code = match Args::parse().command {
        Command::Compare(scripts) => compare(&scripts),
        Command::Calls { arch, dialect, log } => calls(&arch, &dialect, &log),
        Command::Show(scripts) => show(&scripts),
    };
    if is_init {
        crate::init::power_off();
    }
    code
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn compare(scripts: &Chosen) -> ExitCode {
    let (kvm, features) = match exeunt_rig::probe::probe() {
        Ok(probed) => probed,
        Err(reason) => {
            say("skipped", &reason);
            return ExitCode::from(3);
        }
    };
    say("kernel", &format!("{} {features:?}", exeunt_rig::probe::release()));
    match exeunt_rig::effects::check(&kvm) {
        Ok(told) => say("kernel", &format!("effects: {told}")),
        Err(error) => {
            say("failed", &format!("effects: {error}"));
            return ExitCode::FAILURE;
        }
    }
    let kernel = exeunt_rig::half::OnKvm::new(kvm);
    let model = Flawed { half: OnModel, flaw: scripts.flaw };
    let mut progress = |done: u64| {
        if done.checked_rem(scripts.progress) == Some(0) {
            say("progress", &done.to_string());
        }
    };
    let mut summary = compare::hold(&model, &kernel, features, scripts.range(), &mut progress);
    summary.kernel = format!("{} {features:?}", exeunt_rig::probe::release());
    finish(&summary)
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn calls(arch: &str, dialect: &str, log: &std::path::Path) -> ExitCode {
    let kernel = Arch::from_name(arch).zip(Dialect::from_name(dialect));
    let kernel = kernel.map(|(arch, dialect)| Kernel { dialect, arch });
    let judged = kernel.ok_or_else(|| format!("there is no {arch} or no {dialect}")).and_then(|kernel| {
        let log = std::fs::read(log).map_err(|error| format!("{}: {error}", log.display()))?;
        exeunt_rig::calls::judge(&String::from_utf8_lossy(&log), kernel)
    });
    match judged {
        Ok(mut summary) => {
            summary.kernel = format!("{arch} {dialect}");
            finish(&summary)
        }
        Err(error) => {
            say("failed", &error);
            ExitCode::from(2)
        }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn finish(summary: &Summary) -> ExitCode {
    match serde_json::to_string(summary) {
        Ok(text) => say("done", &text),
        Err(error) => say("failed", &error.to_string()),
    }
    if summary.different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn show(scripts: &Chosen) -> ExitCode {
    let features = match exeunt_rig::probe::probe() {
        Ok((_, features)) => features,
        Err(reason) => {
            say("skipped", &reason);
            return ExitCode::from(3);
        }
    };
    let Range { seed, first, scripts } = scripts.range();
    for number in first..first.saturating_add(scripts) {
        println!("{number}: {:x?}", exeunt_rig::script::generate(seed, number, features));
    }
    ExitCode::SUCCESS
}
