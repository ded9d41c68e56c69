//! `cargo xtask tidy`: each rule is a pure function from the tree to its findings.
//!
//! A rule is here when the compiler and clippy cannot hold it. Two rules of the house are theirs, and are not
//! repeated: documented public items (`missing_docs`; this program only holds the switch in place), and
//! checked arithmetic on outside data (`clippy::arithmetic_side_effects`), which depends on types and so
//! cannot be decided from syntax.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;

use self::tree::Tree;

mod arrows;
mod decisions;
mod files;
mod layout;
mod leaks;
mod missing_docs;
mod names;
mod panics;
mod size;
mod spec_map;
mod syntax;
mod tree;
mod unsafe_code;

/// A place that breaks a rule, and what to do there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// From the root of the tree, with `/` between the parts.
    path: String,
    /// Counts from 1. A finding about a whole file stands at line 1.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

/// One rule of the house.
struct Rule {
    name: &'static str,
    /// What holds, in one sentence.
    holds: &'static str,
    check: fn(&Tree) -> Vec<Finding>,
}

const RULES: &[Rule] = &[
    Rule { name: "arrows", holds: arrows::HOLDS, check: arrows::check },
    Rule { name: "decisions", holds: decisions::HOLDS, check: decisions::check },
    Rule { name: "escapes", holds: panics::ESCAPES_HOLD, check: panics::escapes },
    Rule { name: "file-length", holds: size::FILES_HOLD, check: size::file_length },
    Rule { name: "function-length", holds: size::FUNCTIONS_HOLD, check: size::function_length },
    Rule { name: "indexing", holds: panics::INDEXING_HOLDS, check: panics::indexing },
    Rule { name: "layout", holds: layout::HOLDS, check: layout::check },
    Rule { name: "leaks", holds: leaks::HOLDS, check: leaks::check },
    Rule { name: "missing-docs", holds: missing_docs::HOLDS, check: missing_docs::check },
    Rule { name: "names", holds: names::HOLDS, check: names::check },
    Rule { name: "panics", holds: panics::PANICS_HOLD, check: panics::panics },
    Rule { name: "spec-map", holds: spec_map::HOLDS, check: spec_map::check },
    Rule { name: "syntax", holds: syntax::HOLDS, check: syntax::check },
    Rule { name: "unsafe", holds: unsafe_code::HOLDS, check: unsafe_code::check },
];

/// Hold the tree to the rules of the house: one line per finding, then a sum
///
/// A finding is printed as `path:line: rule: message`. Exits with 0 when nothing was found, with 1 when
/// something was, and with 2 when the command line is wrong or the tree cannot be read.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Check this rule alone; may be given more than once
    #[arg(long, value_name = "NAME", value_parser = names())]
    rule: Vec<String>,

    /// Print each rule and what it holds, and check nothing
    #[arg(long, conflicts_with = "rule")]
    list: bool,

    /// Check the tree in this directory instead of the workspace that xtask belongs to
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(RULES.iter().map(|rule| rule.name))
}

/// Runs the command and prints what it finds.
pub(crate) fn run(args: &Args) -> ExitCode {
    if args.list {
        for rule in RULES {
            println!("{:16} {}", rule.name, rule.holds);
        }
        return ExitCode::SUCCESS;
    }
    let root = args.root.clone().unwrap_or_else(workspace_root);
    let tree = match files::read(&root) {
        Ok(tree) => tree,
        Err(error) => {
            eprintln!("error: cannot read {}: {error}", root.display());
            return ExitCode::from(2);
        }
    };
    let chosen = |rule: &&Rule| args.rule.is_empty() || args.rule.iter().any(|name| name == rule.name);
    let rules: Vec<&Rule> = RULES.iter().filter(chosen).collect();
    let lines = report(&tree, &rules);
    for line in &lines {
        println!("{line}");
    }
    let (found, held, seen) = (lines.len(), rules.len(), tree.files().len());
    let plural = if found == 1 { "" } else { "s" };
    println!("tidy: {found} finding{plural}; {held} rules over {seen} files");
    if lines.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line per finding, in the order of path, line and rule.
fn report(tree: &Tree, rules: &[&Rule]) -> Vec<String> {
    let mut found: Vec<(Finding, &str)> = Vec::new();
    for rule in rules {
        found.extend((rule.check)(tree).into_iter().map(|finding| (finding, rule.name)));
    }
    found.sort();
    // One line of code may break a rule in the same way twice.
    found.dedup();
    found.iter().map(|(f, rule)| format!("{}:{}: {rule}: {}", f.path, f.line, f.message)).collect()
}

/// Cargo says at run time where xtask's manifest is, so a moved checkout needs no rebuild.
fn workspace_root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let root = manifest.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    root.unwrap_or_else(|| PathBuf::from("."))
}

#[cfg(test)]
mod tests;
