//! `exeunt abi`: layouts and numbers of KVM's uapi, and what a change of them breaks.

mod collide;
mod diff;
mod layout;

use crate::Failure;
use clap::{Subcommand, ValueEnum};
use exeunt_headers::{Absent, Target, Tree, compile, rule};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;

/// Look at KVM's userspace ABI: where the fields lie on each architecture, and what a change of a header breaks.
///
/// A tree is a dialect, which is a kernel release or a proposal that was never merged, or a folder with installed
/// headers.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt abi layout system_event --dialect linux-5.17   i386 has no padding before `flags`
  exeunt abi diff linux-5.17 sev-term-v4.1              what the proposal would have broken
  exeunt abi diff --headers old/usr/include --headers new/usr/include
  exeunt abi collide coco-v1 linux-7.2                  numbers claimed twice

Exit status: 0 nothing breaks, 1 a break or a collision was found, 2 something could not be looked at.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Layout(layout::Args),
    Diff(diff::Args),
    Collide(collide::Args),
}

/// How to print what was found.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines
    Text,
    /// One JSON document
    Json,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Layout(args) => layout::main(args),
        Command::Diff(args) => diff::main(args),
        Command::Collide(args) => collide::main(args),
    }
}

/// The tree of a dialect.
fn dialect(name: &str) -> Result<Tree, Failure> {
    let known = rule::dialects();
    rule::dialect(name).ok_or_else(|| format!("no dialect is named '{name}'; there are {}", known.join(", ")))
}

/// The tree of a dialect or, where the name has a slash in it or is a folder's, of the headers there.
fn tree(name: &str) -> Result<Tree, Failure> {
    if name.contains('/') || (rule::dialect(name).is_none() && Path::new(name).is_dir()) {
        return headers(Path::new(name));
    }
    dialect(name)
}

/// The tree of the headers in a folder. Architectures that cannot be looked at are named on standard error.
fn headers(dir: &Path) -> Result<Tree, Failure> {
    // A compiler's first error and a system's message are one line each, and so is the failure.
    let one_line = |error: compile::CompileError| error.to_string().replace('\n', " ");
    compile::read(dir, &Target::ALL).map_err(one_line)
}

/// What of the trees could not be looked at, one line each, and how many that are.
fn absent(trees: &[&Tree]) -> String {
    let mut lines = Vec::new();
    for tree in trees {
        for absent in &tree.absent {
            lines.push(format!("not looked at: {} of {}: {}\n", absent.arch, tree.name, absent.reason));
        }
    }
    lines.concat()
}

/// What of a tree could not be looked at.
#[derive(Serialize)]
struct Unseen<'t> {
    tree: &'t str,
    #[serde(flatten)]
    absent: &'t Absent,
}

fn unseen(trees: &[Tree]) -> Vec<Unseen<'_>> {
    let mut unseen = Vec::new();
    for tree in trees {
        unseen.extend(tree.absent.iter().map(|absent| Unseen { tree: &tree.name, absent }));
    }
    unseen
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| format!("{text}\n")).map_err(|error| format!("cannot write the report as JSON: {error}"))
}

/// A list of architectures for people; all of them have one word.
fn arches(arches: &[Target], of: &[Target]) -> String {
    if arches == of && of.len() > 1 {
        return "all".into();
    }
    let names: Vec<_> = arches.iter().map(|target| target.name()).collect();
    names.join(",")
}
