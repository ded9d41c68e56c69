//! `exeunt quote`: quotes of TDs from a quote generation service, and a service for tests.

use crate::{Failure, print};
use exeunt_quote::{Address, Conduct, Served, Server, get_quote};
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// The largest report that is read, in bytes. A TD's has 1024.
const MAX_REPORT_BYTES: u64 = 64 << 10;

/// Clients that are served at the same time.
const THREADS: usize = 16;

/// Ask a quote generation service for a quote of a TD, or be one for tests: what it gives is SIMULATED and says so.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt quote serve --listen unix:/tmp/quotes            a service whose quotes nobody signed
  exeunt quote serve --listen vsock:4050 --delay 500      slow, on the port that Intel's has
  exeunt quote serve --listen unix:/tmp/quotes --fail 0x11001
  exeunt quote get --to unix:/tmp/quotes --report td.report
  exeunt quote get --to unix:/var/run/tdx-qgs/qgs.socket --report td.report --out td.quote

Addresses are unix:PATH, vsock:PORT and vsock:CID:PORT.
Exit status: 0 there is a quote, 2 there is none.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Serve(ServeArgs),
    Get(GetArgs),
}

/// Answer requests until the program is ended, each with a simulated quote that holds the data of the report
#[derive(clap::Args)]
struct ServeArgs {
    /// Where
    #[arg(long, value_name = "ADDRESS")]
    listen: Address,

    /// Answer with this failure instead, a number of the service's own
    #[arg(long, value_name = "CODE", value_parser = parse_number, conflicts_with_all = ["garbage", "close_early"])]
    fail: Option<u32>,

    /// Wait before each answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,

    /// Answer with bytes that are no message
    #[arg(long, conflicts_with = "close_early")]
    garbage: bool,

    /// Hang up in the middle of each answer
    #[arg(long)]
    close_early: bool,

    /// End after so many clients
    #[arg(long, value_name = "CLIENTS", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Ask for one quote
#[derive(clap::Args)]
struct GetArgs {
    /// The service
    #[arg(long, value_name = "ADDRESS")]
    to: Address,

    /// The report of the TD, as TDG.MR.REPORT gives it
    #[arg(long, value_name = "FILE")]
    report: PathBuf,

    /// Write the quote to this file instead of printing it in hex
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// How long it may take altogether, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,

    /// How large the quote may be, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128 << 10)]
    room: usize,
}

fn parse_number(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|error| error.to_string())
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Serve(args) => serve(args),
        Command::Get(args) => get(args),
    }
}

fn serve(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let conduct = match args.fail {
        Some(code) => Conduct::Fail(code),
        None if args.garbage => Conduct::Garbage,
        None if args.close_early => Conduct::CloseEarly,
        None => Conduct::Answer,
    };
    let server = Server::new(&args.listen, conduct, Duration::from_millis(args.delay))
        .map_err(|error| format!("cannot listen at {}: {error}", args.listen))?;
    print(&format!("listening at {}; the quotes are SIMULATED\n", args.listen))?;
    let left = AtomicU64::new(args.count.unwrap_or(u64::MAX));
    let told = |served| {
        // A line that nobody reads is no reason to end.
        let _ = print(&line(served));
        if left.fetch_sub(1, Ordering::Relaxed) <= 1 {
            server.close();
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| server.serve(told));
        }
    });
    Ok(ExitCode::SUCCESS)
}

fn line(served: std::io::Result<Served>) -> String {
    match served {
        Ok(Served::Quote { report_bytes, quote_bytes }) => {
            format!("a simulated quote of {quote_bytes} bytes for a report of {report_bytes} bytes\n")
        }
        Ok(Served::Failure(code)) => format!("failure {code:#x}\n"),
        Ok(Served::Misbehaved) => "misbehaved as told\n".into(),
        Err(error) => format!("a client without an answer: {error}\n"),
    }
}

fn get(args: &GetArgs) -> Result<ExitCode, Failure> {
    let report = read_report(&args.report)?;
    let quote = get_quote(&args.to, &report, args.room, Duration::from_secs(args.timeout))
        .map_err(|error| error.to_string())?;
    match &args.out {
        Some(path) => {
            std::fs::write(path, &quote)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            print(&format!("a quote of {} bytes in {}\n", quote.len(), path.display()))?;
        }
        None => print(&hex(&quote))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn read_report(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed =
        |error: &dyn std::fmt::Display| format!("cannot read the report {}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(MAX_REPORT_BYTES.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > MAX_REPORT_BYTES {
        return Err(failed(&format!("it has more than {MAX_REPORT_BYTES} bytes")));
    }
    Ok(bytes)
}

/// 32 bytes a line.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}
