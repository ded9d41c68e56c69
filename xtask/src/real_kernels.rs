//! `cargo xtask real-kernels`: the model held against kernels that run.
//!
//! The kernels of distributions run in virtual machines with QEMU's software CPU, which has SVM, so `/dev/kvm` of the
//! machine under this is not needed. What is downloaded and built is kept in a folder outside of the repository.

pub(crate) mod debian;
mod foreign;
mod initrd;
mod machine;
mod tiny;
pub(crate) mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use self::machine::Ended;

/// Hold the model to real kernels: the same scripts of ioctls and guests on both, compared byte for byte
///
/// What cannot be had is skipped, with the reason. Exits with 0 when everything that ran agrees, and with 1 otherwise.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A kernel; all of them if none is given
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<Kernel>,
    /// Scripts for each kernel
    #[arg(long, default_value_t = 2000)]
    scripts: u64,
    /// What chance draws from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of the first script
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// A bug that the model is to have, to see that it is caught
    #[arg(long)]
    flaw: Option<String>,
    /// Where downloads and builds are kept; the folder exeunt in the user's cache if not given
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Download and build nothing
    #[arg(long)]
    offline: bool,
    /// Seconds that one kernel may take
    #[arg(long, default_value_t = 600)]
    timeout: u64,
}

/// A kernel to hold the model to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kernel {
    /// This machine's own
    Host,
    /// Debian's cloud kernel 6.1
    #[value(name = "6.1")]
    V6_1,
    /// Debian's cloud kernel 6.12
    #[value(name = "6.12")]
    V6_12,
    /// A small kernel 6.12, built here, with private memory kept by software
    Tiny,
    /// Debian's cloud kernel for arm64: system events
    Arm64,
    /// Debian's kernel for riscv64: system events
    Riscv64,
}

impl Kernel {
    const ALL: [Self; 6] = [Self::Host, Self::V6_1, Self::V6_12, Self::Tiny, Self::Arm64, Self::Riscv64];

    const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Tiny => "tiny",
            Self::Arm64 => "arm64",
            Self::Riscv64 => "riscv64",
        }
    }
}

/// What became of one kernel.
enum Outcome {
    /// It ran; what the client says of it.
    Ran(Value),
    /// It could not be had.
    Skipped(String),
    /// It was to be had, and something went wrong.
    Failed(String),
}

/// Why there is no result.
pub(crate) enum Stop {
    Skip(String),
    Fail(String),
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Skip(reason) => Self::Skipped(reason),
            Stop::Fail(reason) => Self::Failed(reason),
        }
    }
}

/// What all kernels share.
struct Context<'a> {
    args: &'a Args,
    cache: PathBuf,
    client: PathBuf,
}

impl Context<'_> {
    /// The arguments of the client.
    fn client_args(&self) -> Vec<String> {
        let Args { scripts, seed, first, flaw, .. } = self.args;
        let mut args = vec!["compare".into()];
        for (name, value) in [("--seed", seed), ("--first", first), ("--scripts", scripts)] {
            args.extend([name.into(), value.to_string()]);
        }
        if let Some(flaw) = flaw {
            args.extend(["--flaw".into(), flaw.clone()]);
        }
        args
    }
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let kernels = if args.kernel.is_empty() { Kernel::ALL.to_vec() } else { args.kernel.clone() };
    let context = match prepare(args) {
        Ok(context) => context,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut all = Vec::new();
    let mut good = true;
    for kernel in kernels {
        println!("{}:", kernel.name());
        let outcome = hold(&context, kernel).unwrap_or_else(Outcome::from);
        good &= tell(&context, kernel, &outcome);
        all.push(match outcome {
            Outcome::Ran(summary) => json!({ "kernel": kernel.name(), "summary": summary }),
            Outcome::Skipped(reason) => json!({ "kernel": kernel.name(), "skipped": reason }),
            Outcome::Failed(reason) => json!({ "kernel": kernel.name(), "failed": reason }),
        });
    }
    println!("real-kernels: {}", json!(all));
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn prepare(args: &Args) -> Result<Context<'_>, String> {
    let cache = match &args.cache {
        Some(dir) => dir.clone(),
        None => {
            default_cache().ok_or("neither HOME nor XDG_CACHE_HOME is set: choose a folder with --cache")?
        }
    };
    std::fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let cache = std::path::absolute(cache).map_err(|error| error.to_string())?;
    Ok(Context { args, cache, client: build_client()? })
}

/// The folder of this project in the user's cache.
pub(crate) fn default_cache() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(base.join("exeunt"))
}

/// The client has to run in a machine without any library.
fn build_client() -> Result<PathBuf, String> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--release", "--locked", "--package", "exeunt-rig", "--target", TARGET]);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols");
    tools::run(&mut cargo)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let client = target.join(TARGET).join("release/exeunt-rig");
    std::path::absolute(&client).map_err(|error| error.to_string())
}

fn hold(context: &Context<'_>, kernel: Kernel) -> Result<Outcome, Stop> {
    let ended = match kernel {
        Kernel::Host => on_host(context)?,
        Kernel::V6_1 => in_machine(context, kernel, &debian::LINUX_6_1)?,
        Kernel::V6_12 => in_machine(context, kernel, &debian::LINUX_6_12)?,
        Kernel::Tiny => in_tiny(context)?,
        Kernel::Arm64 => return foreign::hold(context, &foreign::ARM64),
        Kernel::Riscv64 => return foreign::hold(context, &foreign::RISCV64),
    };
    match ended {
        Ended::Done(summary) => Ok(Outcome::Ran(summary)),
        Ended::Skipped(reason) => Ok(Outcome::Skipped(reason)),
        Ended::Silent(text) => Ok(Outcome::Failed(format!("no result: {text}"))),
    }
}

fn on_host(context: &Context<'_>) -> Result<Ended, Stop> {
    let mut client = std::process::Command::new(&context.client);
    client.args(context.client_args());
    machine::listen(client, context.args.timeout).map_err(Stop::Fail)
}

fn in_machine(context: &Context<'_>, kernel: Kernel, package: &debian::Package) -> Result<Ended, Stop> {
    let files = debian::kernel(package, &context.cache, context.args.offline)?;
    boot(context, kernel, &files.vmlinuz, &files.modules)
}

fn in_tiny(context: &Context<'_>) -> Result<Ended, Stop> {
    let image = tiny::kernel(&context.cache, context.args.offline)?;
    boot(context, Kernel::Tiny, &image, &[])
}

fn boot(context: &Context<'_>, kernel: Kernel, vmlinuz: &Path, modules: &[PathBuf]) -> Result<Ended, Stop> {
    let qemu = machine::Qemu::find("x86_64", "qemu-system-x86", &context.cache, context.args.offline)?;
    let archive = initrd::of_client(&context.client, modules).map_err(Stop::Fail)?;
    let initrd = context.cache.join(format!("initrd-{}.cpio", kernel.name()));
    std::fs::write(&initrd, archive).map_err(|error| Stop::Fail(format!("{}: {error}", initrd.display())))?;
    let append = format!("console=ttyS0 panic=-1 quiet nolapic_timer -- {}", context.client_args().join(" "));
    let mut last = Ended::Silent(String::new());
    // A machine that says nothing gets a second chance: it may have come up without a clock.
    for _ in 0..2 {
        let mut command = qemu.command();
        // The instructions are the clock, so that a run does not depend on what else this machine does.
        command.args(["-icount", "shift=2,sleep=off", "-accel", "tcg,thread=single", "-machine", "q35"]);
        command.args(["-cpu", "max", "-m", "512"]).arg("-kernel").arg(vmlinuz).arg("-initrd").arg(&initrd);
        command.args(["-append", &append]);
        last = machine::listen(command, context.args.timeout).map_err(Stop::Fail)?;
        if !matches!(last, Ended::Silent(_)) {
            break;
        }
    }
    Ok(last)
}

/// Prints what became of a kernel; whether that is well.
fn tell(context: &Context<'_>, kernel: Kernel, outcome: &Outcome) -> bool {
    let summary = match outcome {
        Outcome::Ran(summary) => summary,
        Outcome::Skipped(reason) => {
            println!("  skipped: {}: {reason}", kernel.name());
            return true;
        }
        Outcome::Failed(reason) => {
            println!("  failed: {reason}");
            return false;
        }
    };
    let number = |name: &str| summary.get(name).and_then(Value::as_u64).unwrap_or(0);
    let text = |value: &Value, name: &str| value.get(name).map(ToString::to_string).unwrap_or_default();
    println!("  {}", text(summary, "kernel"));
    println!(
        "  {} scripts, {} steps, {} entries: {}",
        number("scripts"),
        number("steps"),
        number("entries"),
        text(summary, "exits")
    );
    for difference in summary.get("differences").and_then(Value::as_array).into_iter().flatten() {
        println!(
            "  differs in script {}, step {}: {}",
            text(difference, "script"),
            text(difference, "step"),
            text(difference, "what")
        );
        println!("    part     {}", text(difference, "part"));
        println!("    expected {}", text(difference, "expected"));
        println!("    seen     {}", text(difference, "seen"));
        println!("    shortest {}", text(difference, "script_text"));
        let first = difference.get("script").and_then(Value::as_u64).unwrap_or(0);
        let (name, seed) = (kernel.name(), context.args.seed);
        println!(
            "    again: cargo xtask real-kernels --kernel {name} --seed {seed} --first {first} --scripts 1"
        );
    }
    println!("  {} of them differ", number("different"));
    number("different") == 0
}
