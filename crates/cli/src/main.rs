//! The `exeunt` command: one file per subcommand.
//!
//! Exit status: 0 when all went as expected, 1 when a scenario saw something else, 2 when something could not be run.
#![forbid(unsafe_code)]

mod abi;
mod certs;
mod check;
mod completions;
mod explain;
mod explore;
mod man;
mod migrate;
#[cfg(target_os = "linux")]
mod quote;
mod rules;
mod run;
mod snapshot;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// Both halves of KVM's confidential exit boundary: judge a VMM there, and run scenarios on a kernel in software or on
/// /dev/kvm.
#[derive(Parser)]
#[command(name = "exeunt", version, max_term_width = 110, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  exeunt check -- ./my-vmm --kernel guest.bin       is a VMM right at the exit boundary?
  exeunt check --demo                               what that looks like
  exeunt run                                        all shipped scenarios on the software kernel
  exeunt run page-state-change --dialect linux-6.12
  exeunt run triple-fault-migration --kernel kvm    two real VMs
  exeunt explore --seeds 10000                      schedules and faults by seed
  exeunt explain sev-term 0x21100                   why a guest ended itself
  exeunt rules HC-2                                 what a VMM must do, and where this is written
  exeunt snapshot save FILE                         a VM in a file; `exeunt migrate` hands one over
  exeunt abi diff linux-5.17 sev-term-v4.1          what a change of the header breaks
  exeunt certs verify certs.bin --root ark.pem      the chain of a host, up to its root

Exit status: 0 all as expected, 1 a VMM or a scenario did something else, 2 something could not be run.";

#[derive(Subcommand)]
enum Command {
    Check(check::Args),
    Run(run::Args),
    Explore(explore::Args),
    Explain(explain::Args),
    Rules(rules::Args),
    Abi(abi::Args),
    Certs(certs::Args),
    #[cfg(target_os = "linux")]
    Quote(quote::Args),
    Migrate(migrate::Args),
    Snapshot(snapshot::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Something that the user can mend: one line, status 2.
type Failure = String;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Check(args) => check::main(&args),
        Command::Run(args) => run::main(&args),
        Command::Explore(args) => explore::main(&args),
        Command::Explain(args) => explain::main(&args),
        Command::Rules(args) => rules::main(&args),
        Command::Abi(args) => abi::main(&args),
        Command::Certs(args) => certs::main(&args),
        #[cfg(target_os = "linux")]
        Command::Quote(args) => quote::main(&args),
        Command::Migrate(args) => migrate::main(&args),
        Command::Snapshot(args) => snapshot::main(&args),
        Command::Completions(args) => completions::main(&args),
        Command::Man(args) => man::main(&args),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            // There is nobody left to tell if even this fails.
            let _ = writeln!(std::io::stderr(), "exeunt: {failure}");
            ExitCode::from(2)
        }
    }
}

/// A text from outside as a part of a line: control characters, such as those of terminals, in a form that does no harm.
fn one_line(text: &str) -> String {
    text.chars().flat_map(escape).collect()
}

fn escape(letter: char) -> impl Iterator<Item = char> {
    let escaped = letter.is_control().then(|| letter.escape_debug());
    let plain = escaped.is_none().then_some(letter);
    escaped.into_iter().flatten().chain(plain)
}

/// Writes to standard output. A reader that went away, as `head` does, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}
