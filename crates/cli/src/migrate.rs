//! `exeunt migrate`: a VM changes hands between two processes of which each can be killed at any time.

mod arbiter;
mod console;
mod drive;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kvm;
pub(crate) mod machine;
mod model;
mod store;
mod wire;

use crate::run::parse_dialect;
use crate::{Failure, print};
use clap::Subcommand;
use drive::{Driver, HoldAt, OWNER_STEPS, Outcome, StopAt, When};
use exeunt::migrate::{End, Record, SourceStep, TargetStep, TransferId};
use exeunt_abi::Dialect;
use exeunt_abi::kvm::vm_type::VmType;
use machine::{Kernel, Machine, Place};
use serde::Serialize;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use store::Store;

/// Hand a VM over from one process to another. Each can be killed at any time: one of the two owns the VM, and goes on.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt migrate start a --log log --values 10                a VM in directory a
  exeunt migrate receive b --arbiter d --listen ./s --log log &
  exeunt migrate send a --arbiter d --to ./s --log log        it goes on in b
  exeunt migrate recover a --arbiter d --log log              after a was killed: whose is it?

An address with a slash is the path of a socket, another one a host and a port. Both sides need the directory of
the arbiter. What the guest says is appended to the log by whoever owns the VM, each value once.

Exit status: 0 the VM is where it was to go, 1 it is not, 2 something could not be done, 3 it is not known whose the
VM is, and nobody runs it before `recover` has asked the arbiter.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a VM whose guest counts, run it, and leave a checkpoint of it in a directory
    Start {
        #[command(flatten)]
        side: SideArgs,
        /// The kernel half
        #[arg(long, value_enum, default_value_t = Kernel::Model)]
        kernel: Kernel,
        /// The type of the VM
        #[arg(long = "type", default_value = "default", value_parser = parse_vm_type)]
        vm_type: VmType,
        /// Leave a triple fault pending that nobody has delivered
        #[arg(long)]
        triple_fault: bool,
    },
    /// Run the VM of a directory, and give it to whoever listens at an address
    Send {
        #[command(flatten)]
        side: SideArgs,
        #[command(flatten)]
        between: BetweenArgs,
        /// Where the other side listens
        #[arg(long)]
        to: String,
    },
    /// Take a VM into a directory, and run it
    Receive {
        #[command(flatten)]
        side: SideArgs,
        #[command(flatten)]
        between: BetweenArgs,
        /// Where to listen; with port 0 the system chooses one, which is printed
        #[arg(long)]
        listen: String,
        /// The kernel half that the VM is to run on
        #[arg(long, value_enum, default_value_t = Kernel::Model)]
        kernel: Kernel,
    },
    /// Go on in a directory whose process was killed: run the VM if it is here
    Recover {
        #[command(flatten)]
        side: SideArgs,
        #[command(flatten)]
        between: BetweenArgs,
    },
    /// Print the steps at which `--stop-at` can kill a side
    #[command(hide = true)]
    Steps,
}

#[derive(clap::Args)]
struct SideArgs {
    /// The directory of this side: its checkpoints and its record
    dir: PathBuf,
    /// Where the guest's output goes
    #[arg(long)]
    log: PathBuf,
    /// How many values the guest says before what is to be done, or after the VM came here
    #[arg(long, default_value_t = 10)]
    values: u64,
    /// The kernel that the model imitates
    #[arg(long, default_value = "linux-7.2", value_parser = parse_dialect)]
    dialect: Dialect,
    /// Kill this process at a step, for tests: STEP:before, STEP:during or STEP:after
    #[arg(long, hide = true, value_parser = parse_stop)]
    stop_at: Option<StopAt>,
    /// Wait at a step until a file is there, for tests: STEP:before=FILE
    #[arg(long, hide = true, value_parser = parse_hold)]
    hold_at: Option<HoldAt>,
}

#[derive(clap::Args)]
struct BetweenArgs {
    /// The directory in which the arbiter's decisions are
    #[arg(long)]
    arbiter: PathBuf,
    /// How long a message of the other side may take, in milliseconds
    #[arg(long, default_value_t = 10_000)]
    patience_ms: u64,
}

/// What became of the VM, as JSON on standard output.
#[derive(Serialize)]
struct Summary {
    /// What this process did.
    command: &'static str,
    /// Whether the VM is here; `null` if it is not known.
    here: Option<bool>,
    /// Why it is where it is, if the transfer did not go well.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Which transfer it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<String>,
    /// How many values the guest has said in its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<u64>,
    /// Whether the guest was shut down.
    #[serde(skip_serializing_if = "Option::is_none")]
    has_ended: Option<bool>,
}

pub(crate) fn parse_vm_type(name: &str) -> Result<VmType, String> {
    let known = || VmType::ALL.map(VmType::name).join(", ");
    VmType::ALL.into_iter().find(|it| it.name() == name).ok_or_else(|| format!("there are {}", known()))
}

fn parse_stop(text: &str) -> Result<StopAt, String> {
    let (step, when) = text.split_once(':').ok_or("STEP:before, STEP:during or STEP:after")?;
    let when = match when {
        "before" => When::Before,
        "during" => When::During,
        "after" => When::After,
        _ => return Err("before, during or after".into()),
    };
    let is_known = OWNER_STEPS.contains(&step)
        || SourceStep::from_name(step).is_some()
        || TargetStep::from_name(step).is_some();
    if is_known { Ok(StopAt { step: step.into(), when }) } else { Err(format!("there is no step '{step}'")) }
}

fn parse_hold(text: &str) -> Result<HoldAt, String> {
    let (at, file) = text.split_once('=').ok_or("STEP:before=FILE")?;
    Ok(HoldAt { at: parse_stop(at)?, file: file.into() })
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Start { side, kernel, vm_type, triple_fault } => {
            start(side, *kernel, *vm_type, *triple_fault)
        }
        Command::Send { side, between, to } => send(side, between, to),
        Command::Receive { side, between, listen, kernel } => receive(side, between, listen, *kernel),
        Command::Recover { side, between } => {
            let store = Store::open(&side.dir)?;
            let driver = driver(side, Some(between), &store);
            let (outcome, transfer) = driver.recover()?;
            conclude("recover", &driver, outcome, transfer, side.values, true)
        }
        Command::Steps => steps(),
    }
}

fn driver<'a>(side: &'a SideArgs, between: Option<&'a BetweenArgs>, store: &'a Store) -> Driver<'a> {
    Driver {
        store,
        arbiter: between.map_or(&side.dir, |between| &between.arbiter),
        log: &side.log,
        place: Place { dialect: side.dialect },
        patience: Duration::from_millis(between.map_or(0, |between| between.patience_ms)),
        stop_at: side.stop_at.clone(),
        hold_at: side.hold_at.clone(),
        started: Instant::now(),
    }
}

fn start(side: &SideArgs, kernel: Kernel, vm_type: VmType, triple_fault: bool) -> Result<ExitCode, Failure> {
    let store = Store::open(&side.dir)?;
    if let Some(record) = store.record()? {
        return Err(format!("{} has a record already: it {} a VM", side.dir.display(), record.name()));
    }
    let driver = driver(side, None, &store);
    let mut machine = Machine::new(kernel, vm_type, driver.place)?;
    machine.run(side.values)?;
    if triple_fault {
        machine.raise_triple_fault()?;
    }
    driver.own(&mut machine, 0)?;
    summarize("start", Some(true), None, None, Some(&machine)).map(|()| ExitCode::SUCCESS)
}

fn send(side: &SideArgs, between: &BetweenArgs, to: &str) -> Result<ExitCode, Failure> {
    let store = Store::open(&side.dir)?;
    let checkpoint = match store.record()? {
        Some(Record::Owns { checkpoint }) => checkpoint,
        Some(record) => {
            let dir = side.dir.display();
            return Err(format!("{dir} {} a VM and may not send it: recover it first", record.name()));
        }
        None => return Err(format!("{} has no VM", side.dir.display())),
    };
    arbiter::Directory::make(&between.arbiter)?;
    let driver = driver(side, Some(between), &store);
    let mut machine = driver.resume(&checkpoint)?;
    machine.run(side.values)?;
    let transfer = draw()?;
    let outcome = driver.send(machine, transfer, to)?;
    conclude("send", &driver, outcome, Some(transfer), side.values, false)
}

fn receive(
    side: &SideArgs,
    between: &BetweenArgs,
    listen: &str,
    kernel: Kernel,
) -> Result<ExitCode, Failure> {
    let store = Store::open(&side.dir)?;
    match store.record()? {
        None | Some(Record::Gave { .. } | Record::Dropped { .. }) => {}
        Some(record) => {
            let dir = side.dir.display();
            return Err(format!("{dir} {} a VM and takes no other: recover it first", record.name()));
        }
    }
    arbiter::Directory::make(&between.arbiter)?;
    let driver = driver(side, Some(between), &store);
    let listener = wire::Listener::bind(listen)?;
    if let Some(address) = listener.address() {
        print(&format!("{address}\n"))?;
    }
    let (outcome, transfer) = driver.receive(&listener, kernel)?;
    conclude("receive", &driver, outcome, transfer, side.values, true)
}

/// Runs the VM if it is here, and says where it is. `wants_it` is whether it was to be here.
fn conclude(
    command: &'static str,
    driver: &Driver<'_>,
    outcome: Outcome,
    transfer: Option<TransferId>,
    values: u64,
    wants_it: bool,
) -> Result<ExitCode, Failure> {
    let (is_right, here, why, machine) = match outcome {
        Outcome::Here(mut machine) => {
            driver.own(&mut machine, values)?;
            (wants_it, Some(true), None, Some(machine))
        }
        Outcome::NotHere(end) => match end {
            End::Gave => (!wants_it, Some(false), None, None),
            End::Dropped => (false, Some(false), Some("the source has it".to_owned()), None),
            End::Nothing { why } => (false, Some(false), Some(why.to_string()), None),
            End::Undecided { why } => (false, None, Some(why.to_string()), None),
            other => (false, None, Some(format!("{other:?}")), None),
        },
    };
    summarize(command, here, why, transfer, machine.as_deref())?;
    Ok(match (here, is_right) {
        (None, _) => ExitCode::from(3),
        (_, true) => ExitCode::SUCCESS,
        (_, false) => ExitCode::FAILURE,
    })
}

fn summarize(
    command: &'static str,
    here: Option<bool>,
    why: Option<String>,
    transfer: Option<TransferId>,
    machine: Option<&Machine>,
) -> Result<(), Failure> {
    let said = machine.map(Machine::said);
    let summary = Summary {
        command,
        here,
        why,
        transfer: transfer.map(|transfer| transfer.to_string()),
        values: said.map(|(values, _)| values),
        has_ended: said.map(|(_, has_ended)| has_ended),
    };
    let json = serde_json::to_string(&summary).map_err(|error| error.to_string())?;
    print(&format!("{json}\n"))
}

/// A number that no transfer had before.
fn draw() -> Result<TransferId, Failure> {
    let mut id = [0; 16];
    let mut random = std::fs::File::open("/dev/urandom").map_err(|error| format!("/dev/urandom: {error}"))?;
    random.read_exact(&mut id).map_err(|error| format!("/dev/urandom: {error}"))?;
    Ok(TransferId(id))
}

fn steps() -> Result<ExitCode, Failure> {
    let mut text = String::new();
    for (side, names) in [
        ("source", SourceStep::ALL.iter().map(|step| step.name()).collect::<Vec<_>>()),
        ("target", TargetStep::ALL.iter().map(|step| step.name()).collect()),
        ("owner", OWNER_STEPS.to_vec()),
    ] {
        for name in names {
            text.extend([side, " ", name, "\n"]);
        }
    }
    print(&text).map(|()| ExitCode::SUCCESS)
}
