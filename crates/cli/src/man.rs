//! `exeunt man`: manual pages.

use crate::{Cli, Failure, print};
use clap::CommandFactory;
use clap_mangen::Man;
use std::path::PathBuf;
use std::process::ExitCode;

/// Print the manual page, or write all pages to a folder.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt man | man -l -
  exeunt man --to ~/.local/share/man/man1")]
pub(crate) struct Args {
    /// Write a page for each command to this folder, which must exist
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let Some(folder) = &args.to else {
        let mut page = Vec::new();
        Man::new(Cli::command())
            .render(&mut page)
            .map_err(|error| format!("cannot make the manual page: {error}"))?;
        print(&String::from_utf8_lossy(&page))?;
        return Ok(ExitCode::SUCCESS);
    };
    clap_mangen::generate_to(Cli::command(), folder)
        .map_err(|error| format!("cannot write manual pages to {}: {error}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
