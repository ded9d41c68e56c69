//! `cargo xtask`: the checks of this house that no compiler makes.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod foreign_vmm;
mod header_check;
mod real_kernels;
mod tidy;

/// The checks of this house that no compiler makes.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Tidy(tidy::Args),
    HeaderCheck(header_check::Args),
    RealKernels(real_kernels::Args),
    ForeignVmm(foreign_vmm::Args),
}

fn main() -> ExitCode {
    // clap itself leaves with 2 on a usage error, and with 0 after help.
    match Args::parse().command {
        Command::Tidy(args) => tidy::run(&args),
        Command::HeaderCheck(args) => header_check::run(&args),
        Command::RealKernels(args) => real_kernels::run(&args),
        Command::ForeignVmm(args) => foreign_vmm::run(&args),
    }
}
