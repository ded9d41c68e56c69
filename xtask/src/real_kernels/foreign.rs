//! System events on other architectures: a small program makes the calls there, and the model judges its log here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::machine::{Ended, Qemu, listen};
use super::{Context, Outcome, Stop, debian, initrd, tools};

/// The program.
const SOURCE: &str = include_str!("system_events.c");

/// A machine of another architecture.
pub(super) struct Foreign {
    arch: &'static str,
    /// What the model imitates.
    dialect: &'static str,
    kernel: &'static debian::Package,
    compiler: &'static str,
    qemu: (&'static str, &'static str),
    machine: &'static [&'static str],
    console: &'static str,
}

/// arm64, in EL2.
pub(super) const ARM64: Foreign = Foreign {
    arch: "arm64",
    dialect: "linux-6.1",
    kernel: &debian::LINUX_ARM64,
    compiler: "aarch64-linux-gnu-gcc",
    qemu: ("aarch64", "qemu-system-arm"),
    machine: &["-machine", "virt,virtualization=on,gic-version=3", "-cpu", "cortex-a76"],
    console: "ttyAMA0",
};

/// riscv64, with the hypervisor extension.
pub(super) const RISCV64: Foreign = Foreign {
    arch: "riscv64",
    dialect: "linux-6.12",
    kernel: &debian::LINUX_RISCV64,
    compiler: "riscv64-linux-gnu-gcc",
    qemu: ("riscv64", "qemu-system-misc"),
    machine: &["-machine", "virt", "-cpu", "rv64,h=true"],
    console: "ttyS0",
};

pub(super) fn hold(context: &Context<'_>, foreign: &Foreign) -> Result<Outcome, Stop> {
    if context.args.flaw.is_some() {
        return Err(Stop::Skip("no flaw is about system events".to_owned()));
    }
    let client = compile(context, foreign)?;
    let files = debian::kernel(foreign.kernel, &context.cache, context.args.offline)?;
    let (arch, package) = foreign.qemu;
    let qemu = Qemu::find(arch, package, &context.cache, context.args.offline)?;
    let path = |name: &str| context.cache.join(format!("{name}-{}", foreign.arch));
    let fail = |error: std::io::Error| Stop::Fail(format!("{}: {error}", context.cache.display()));
    let archive = initrd::of_client(&client, &files.modules).map_err(Stop::Fail)?;
    fs::write(path("initrd"), archive).map_err(fail)?;
    let mut command = qemu.command();
    let (seed, scripts) = (context.args.seed, context.args.scripts);
    let append = format!("console={} panic=-1 quiet -- {seed} {scripts}", foreign.console);
    command.args(foreign.machine).args(["-accel", "tcg,thread=single", "-m", "512", "-append", &append]);
    command.arg("-kernel").arg(&files.vmlinuz).arg("-initrd").arg(path("initrd"));
    run_to_log(command, &path("log"), context.args.timeout).map_err(Stop::Fail)?;
    let mut judge = Command::new(&context.client);
    judge.args(["calls", "--arch", foreign.arch, "--dialect", foreign.dialect]).arg(path("log"));
    match listen(judge, context.args.timeout).map_err(Stop::Fail)? {
        Ended::Done(summary) => Ok(Outcome::Ran(summary)),
        Ended::Skipped(text) | Ended::Silent(text) => {
            Ok(Outcome::Failed(format!("{text} (see {})", path("log").display())))
        }
    }
}

fn compile(context: &Context<'_>, foreign: &Foreign) -> Result<PathBuf, Stop> {
    let program = context.cache.join(format!("system-events-{}", foreign.arch));
    let source = context.cache.join("system_events.c");
    if tools::find(foreign.compiler).is_none() {
        return Err(Stop::Skip(format!("there is no {}", foreign.compiler)));
    }
    fs::write(&source, SOURCE).map_err(|error| Stop::Fail(format!("{}: {error}", source.display())))?;
    let mut gcc = Command::new(foreign.compiler);
    gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(&program).arg(&source);
    tools::run(&mut gcc).map_err(Stop::Skip)?;
    Ok(program)
}

/// Runs a machine until it ends, or for so many seconds.
fn run_to_log(mut command: Command, log: &Path, timeout: u64) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
    let until = Instant::now() + Duration::from_secs(timeout);
    while child.try_wait().map_err(|error| error.to_string())?.is_none() && Instant::now() < until {
        thread::sleep(Duration::from_millis(100));
    }
    // It may be over already; what it did not say is missed by the judge.
    let _ = child.kill();
    let _ = child.wait();
    Ok(())
}
