//! `exeunt explain`: what a number or a page from a bug report means.

mod caps;
mod certs;
mod dump;
mod errno;
mod event;
mod exit_code;
mod exit_info;
mod exits;
mod explanation;
mod ghcb_msr;
mod ghcb_page;
mod guess;
mod hex;
mod input;
mod ioctls;
mod kinds;
mod log;
mod map_gpa;
mod message;
mod number;
mod print;
mod psc;
mod report;
mod run_page;
mod vcpu_events;

use crate::{Failure, print as write_out};
use clap::ValueEnum;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::{Arch, Dialect, Kernel};
use exeunt_proto::exit::Entered;
use explanation::Explanation;
use input::Input;
use kinds::{Kind, Takes};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;

/// Say what a number or a page means, field by field, where the meaning comes from, and what a VMM should do.
///
/// Without a KIND every reading of the VALUE is listed, the likeliest first. VALUE is a number (decimal or hex), a name of
/// the kernel's headers, hex digits, a file (binary, or hex digits in any usual form) or - for standard input.
#[derive(clap::Args)]
#[command(
    override_usage = "exeunt explain [OPTIONS] [KIND] VALUE...\n       exeunt explain --list",
    after_help = HELP
)]
pub(crate) struct Args {
    /// A kind, as --list names them, and its value; or a value alone
    #[arg(value_name = "WORD", hide = true, allow_negative_numbers = true)]
    words: Vec<String>,

    /// run-page: what the ioctl returned with the page, a name or a number; 0 for success
    #[arg(long, value_name = "NAME|N", allow_negative_numbers = true)]
    errno: Option<String>,

    /// run-page: the exit reason, if the value is the 256 bytes of the union alone
    #[arg(long, value_name = "NAME|N")]
    reason: Option<String>,

    /// run-page, exit, event, log: the kernel that wrote the bytes [default: linux-7.2]
    #[arg(long, value_name = "DIALECT")]
    dialect: Option<String>,

    #[arg(
        long,
        value_name = "ARCH",
        help = "run-page, log: the host's, x86_64, arm64 or riscv64 [default: x86_64]"
    )]
    arch: Option<String>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Name the kinds, with an example each, and stop
    #[arg(long)]
    list: bool,
}

const HELP: &str = "Examples:
  exeunt explain 43                                       what can it be?
  exeunt explain exit 43                                  an exit reason
  exeunt explain sev-term 0x21100                         why a guest ended itself
  exeunt explain sw-exitinfo2 0x0000010000000000
  exeunt explain map-gpa 0x100000 512 0x11                a conversion
  exeunt explain run-page kvm_run.bin --errno EFAULT      the bytes of an exit
  exeunt explain run-page union.hex --reason 24 --dialect linux-5.17
  xxd ghcb.bin | exeunt explain ghcb -                    a dump with offsets and text
  dmesg | exeunt explain log -                            every line that is known

JSON (--format json): all values are strings as they are shown, because numbers have up to 64 bits.
  with a KIND  {kind, input, title, fields, reserved?: [..], advice, source}
               fields: [{name, offset, value, meaning, unit?}, ..]
  without      {input, readings: [as with a KIND, ..]}
  log          {kind, input, title, known, unknown, findings}
               findings: [{lines: [..], text, reading: as with a KIND}, ..]
  offset is in hex for bytes, high:low for bits of a number, or empty.

Ids such as SE-5 are the rules of this boundary: docs/rules.md. At most 1 MiB is taken (64 MiB of a log).

Exit status: 0 something was explained, 2 the input cannot be read or has no meaning.";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned, 100 columns
    Text,
    /// One JSON document
    Json,
}

/// What the options say about the value.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    kernel: Kernel,
    /// What `KVM_RUN` returned, if that was given.
    entered: Option<Entered>,
    reason: Option<ExitReason>,
}

/// Readings of a value whose kind nobody gave.
#[derive(Serialize)]
struct Readings<'a> {
    input: &'a str,
    readings: &'a [Explanation],
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    if args.list {
        write_out(&kinds::list())?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = settings(args)?;
    let text = match args.words.as_slice() {
        [] => return Err("nothing to explain: give a number or a file, or --list for the kinds".into()),
        [value] => without_kind(value, args, &settings)?,
        [name, values @ ..] => {
            let unknown =
                || format!("'{}' is no kind: `exeunt explain --list` names them", input::shorten(name));
            with_kind(kinds::find(name).ok_or_else(unknown)?, values, args, &settings)?
        }
    };
    write_out(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn settings(args: &Args) -> Result<Settings, Failure> {
    let dialect = match &args.dialect {
        None => Dialect::default(),
        Some(name) => Dialect::from_name(name).ok_or_else(|| {
            let known: Vec<_> = Dialect::all().map(Dialect::name).collect();
            format!("no dialect is called '{}': there are {}", input::shorten(name), known.join(", "))
        })?,
    };
    let arch = match &args.arch {
        None => Arch::default(),
        Some(name) => Arch::from_name(name).ok_or_else(|| {
            format!(
                "no architecture is called '{}': there are x86_64, arm64 and riscv64",
                input::shorten(name)
            )
        })?,
    };
    let entered = match args.errno.as_deref() {
        None => None,
        Some("0") => Some(Ok(())),
        Some(text) => Some(Err(errno::parse(text)?)),
    };
    let reason = match &args.reason {
        None => None,
        Some(text) => Some(exits::parse(text)?),
    };
    Ok(Settings { kernel: Kernel { dialect, arch }, entered, reason })
}

/// Refuses an option that a kind has no use for: it would look as if it had been heeded.
fn check_options(kind: &str, args: &Args) -> Result<(), Failure> {
    let given = [
        ("--errno", args.errno.is_some(), &["run-page"][..]),
        ("--reason", args.reason.is_some(), &["run-page"]),
        ("--dialect", args.dialect.is_some(), &["run-page", "exit", "event", "log"]),
        ("--arch", args.arch.is_some(), &["run-page", "log"]),
    ];
    match given.iter().find(|(_, is_given, kinds)| *is_given && !kinds.contains(&kind)) {
        Some((option, _, kinds)) => Err(format!("{option} is for {}, not for {kind}", kinds.join(", "))),
        None => Ok(()),
    }
}

fn with_kind(kind: &Kind, values: &[String], args: &Args, settings: &Settings) -> Result<String, Failure> {
    check_options(kind.name, args)?;
    let one = || match values {
        [value] => Ok(value.as_str()),
        _ => Err(format!("{} wants one value, as in `exeunt explain {0} {}`", kind.name, kind.example)),
    };
    let explanation = match kind.takes {
        Takes::Number(explain) => explain(one()?, settings)?,
        Takes::Numbers(explain) => explain(values)?,
        Takes::Bytes(explain) => explain(&input::bytes(one()?)?, settings)?,
        Takes::Log => return log(&input::raw(one()?, input::MAX_LOG_BYTES)?, args, settings),
    };
    match args.format {
        Format::Text => Ok(print::text(&explanation)),
        Format::Json => json(&explanation),
    }
}

fn log(input: &Input, args: &Args, settings: &Settings) -> Result<String, Failure> {
    let log = log::read(input, settings);
    match args.format {
        Format::Text => Ok(log::text(&log)),
        Format::Json => json(&log),
    }
}

/// A number or a name before a file, and a file before hex digits: `./43` is a file.
fn without_kind(value: &str, args: &Args, settings: &Settings) -> Result<String, Failure> {
    if let Some(kind) = kinds::find(value) {
        let (name, example) = (kind.name, kind.example);
        return Err(format!("{name} wants a value, as in `exeunt explain {name} {example}`"));
    }
    check_options("a value without a kind", args)?;
    let readings = guess::of_word(value, settings);
    if !readings.is_empty() {
        return show(value, &readings, args.format);
    }
    if value != "-" && !Path::new(value).exists() {
        if let Ok(number) = number::parse(value) {
            return Err(format!(
                "{number:#x} has no meaning in any kind: name one, as `exeunt explain --list` shows"
            ));
        }
    }
    if value == "-" || Path::new(value).exists() {
        return of_file(&input::raw(value, input::MAX_BYTES)?, args, settings);
    }
    of_bytes(&input::bytes(value)?, args, settings)
}

/// A file is a page, digits of a page, a number, or a log, in this order.
fn of_file(input: &Input, args: &Args, settings: &Settings) -> Result<String, Failure> {
    if !input.is_text {
        return of_bytes(input, args, settings);
    }
    let text = String::from_utf8_lossy(&input.bytes);
    let readings = guess::of_word(text.trim(), settings);
    if !readings.is_empty() {
        return show(&input.name, &readings, args.format);
    }
    match hex::parse(&text) {
        Ok(bytes) => of_bytes(&Input { bytes, is_text: false, name: input.name.clone() }, args, settings),
        Err(_) => log(input, args, settings),
    }
}

fn of_bytes(input: &Input, args: &Args, settings: &Settings) -> Result<String, Failure> {
    let readings = guess::of_bytes(input, settings);
    if readings.is_empty() {
        let (name, length) = (&input.name, input.bytes.len());
        return Err(format!(
            "{name}: {length} bytes that fit no kind: name one, as `exeunt explain --list` shows"
        ));
    }
    show(&input.name, &readings, args.format)
}

/// One reading in full, several as a list.
fn show(input: &str, readings: &[Explanation], format: Format) -> Result<String, Failure> {
    match (format, readings) {
        (Format::Json, _) => json(&Readings { input, readings }),
        (Format::Text, [only]) => Ok(print::text(only)),
        (Format::Text, _) => Ok(print::list(input, readings)),
    }
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| format!("cannot write JSON: {error}"))?;
    Ok(format!("{text}\n"))
}

#[cfg(test)]
mod tests;
