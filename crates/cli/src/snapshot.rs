//! `exeunt snapshot`: snapshots as files.

mod show;

use crate::migrate::machine::{Kernel, Machine, Place};
use crate::run::parse_dialect;
use crate::{Failure, print};
use clap::Subcommand;
use exeunt::snapshot::{Limits, Snapshot};
use exeunt_abi::Dialect;
use exeunt_abi::kvm::vm_type::VmType;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Save, show, check and restore snapshots of VMs.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt snapshot save FILE --values 10 --triple-fault    a VM whose guest said 0 to 9, and a triple fault pending
  exeunt snapshot show FILE                               every section, also those of a newer writer
  exeunt snapshot verify FILE --dialect linux-5.17        can that kernel take it?
  exeunt snapshot restore FILE --values 5                 go on, and print what the guest says

Exit status: 0 all is well, 1 the snapshot is damaged or the target cannot take it, 2 something could not be done.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a VM whose guest counts, and save it
    Save {
        /// The file, which is replaced
        file: PathBuf,
        /// The kernel half
        #[arg(long, value_enum, default_value_t = Kernel::Model)]
        kernel: Kernel,
        /// The type of the VM: default or sw-protected
        #[arg(long = "type", default_value = "default", value_parser = crate::migrate::parse_vm_type)]
        vm_type: VmType,
        /// How many values the guest says before
        #[arg(long, default_value_t = 10)]
        values: u64,
        /// Leave a triple fault pending that nobody has delivered
        #[arg(long)]
        triple_fault: bool,
        /// The kernel that the model imitates
        #[arg(long, default_value = "linux-7.2", value_parser = parse_dialect)]
        dialect: Dialect,
    },
    /// Print every section
    Show {
        /// The file
        file: PathBuf,
        /// How to print it
        #[arg(long, value_enum, default_value_t = show::Format::Text)]
        format: show::Format,
    },
    /// Read a snapshot to its end, and ask whether a target can take it
    Verify {
        /// The file
        file: PathBuf,
        /// The kernel that the model imitates
        #[arg(long, default_value = "linux-7.2", value_parser = parse_dialect)]
        dialect: Dialect,
    },
    /// Build a VM of a snapshot, run it, and print what the guest says
    Restore {
        /// The file
        file: PathBuf,
        /// How many values the guest says
        #[arg(long, default_value_t = 10)]
        values: u64,
        /// The kernel that the model imitates
        #[arg(long, default_value = "linux-7.2", value_parser = parse_dialect)]
        dialect: Dialect,
    },
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Save { file, kernel, vm_type, values, triple_fault, dialect } => {
            let mut machine = Machine::new(*kernel, *vm_type, Place { dialect: *dialect })?;
            machine.run(*values)?;
            if *triple_fault {
                machine.raise_triple_fault()?;
            }
            let (bytes, _) = machine.save()?.write(Vec::new()).map_err(|error| error.to_string())?;
            replace(file, &bytes).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { file, format } => show::show(open(file)?, *format),
        Command::Verify { file, dialect } => verify(file, Place { dialect: *dialect }),
        Command::Restore { file, values, dialect } => {
            let Some(snapshot) = read(file)? else { return Ok(ExitCode::FAILURE) };
            let mut machine = Machine::of_snapshot(&snapshot, Place { dialect: *dialect })?;
            machine.run(*values)?;
            let text: String = machine.held().into_iter().map(|value| value + "\n").collect();
            print(&text).map(|()| ExitCode::SUCCESS)
        }
    }
}

fn verify(file: &Path, place: Place) -> Result<ExitCode, Failure> {
    let Some(snapshot) = read(file)? else { return Ok(ExitCode::FAILURE) };
    let kernel = Machine::kernel_of(&snapshot)?;
    let why = match Machine::check(&snapshot.origin, &snapshot.needs, kernel, place) {
        Ok(()) => match Machine::of_snapshot(&snapshot, place) {
            Ok(_) => return print("the target can take it\n").map(|()| ExitCode::SUCCESS),
            Err(why) => why,
        },
        Err(why) => why,
    };
    print(&format!("the target cannot take it: {why}\n")).map(|()| ExitCode::FAILURE)
}

/// A snapshot, or a line that says what is wrong with it.
fn read(file: &Path) -> Result<Option<Snapshot>, Failure> {
    match Snapshot::read(open(file)?, Limits::default()) {
        Ok((snapshot, _)) => Ok(Some(snapshot)),
        Err(error) => {
            print(&format!("{}: {error}\n", file.display()))?;
            Ok(None)
        }
    }
}

fn open(file: &Path) -> Result<BufReader<File>, Failure> {
    File::open(file).map(BufReader::new).map_err(|error| format!("cannot open {}: {error}", file.display()))
}

/// Writes a file so that its name is the old one or the new one, and never a half.
fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    let mut to = File::create(&new)?;
    to.write_all(bytes)?;
    to.sync_all()?;
    std::fs::rename(&new, file)
}
