//! `exeunt abi collide`: numbers that two trees give to different names.

use super::{Format, Unseen, absent, arches, json, tree, unseen};
use crate::{Failure, print};
use exeunt_headers::collide::{Collision, collide};
use exeunt_headers::{Target, Tree, diff};
use serde::Serialize;
use std::process::ExitCode;

/// Find the exit, capability and event numbers that two trees give to different names.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt abi collide vmgexit-v10 coco-v1 linux-7.2
  exeunt abi collide mine/usr/include /usr/include

Exit status: 0 no number is claimed twice, 1 one is, 2 something could not be looked at.")]
pub(super) struct Args {
    /// Names of dialects, or folders with installed headers
    #[arg(value_name = "TREE", num_args = 2.., required = true)]
    trees: Vec<String>,

    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct Report<'r> {
    trees: Vec<&'r str>,
    collisions: &'r [Collision],
    not_looked_at: Vec<Unseen<'r>>,
}

pub(super) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let trees: Vec<Tree> = args.trees.iter().map(|name| tree(name)).collect::<Result<_, _>>()?;
    for (index, first) in trees.iter().enumerate() {
        let blind =
            trees.iter().skip(index + 1).find(|second| diff::shared_targets(first, second).is_empty());
        if let Some(second) = blind {
            return Err(format!("{} and {} have no architecture in common", first.name, second.name));
        }
    }
    let collisions = collide(&trees);
    let names: Vec<&str> = trees.iter().map(|tree| tree.name.as_str()).collect();
    match args.format {
        Format::Json => {
            let report = Report { trees: names, collisions: &collisions, not_looked_at: unseen(&trees) };
            print(&json(&report)?)?;
        }
        Format::Text => {
            let line = |found: &Collision| format!("{found}  [{}]\n", arches(&found.arches, &Target::ALL));
            let mut lines: Vec<String> = collisions.iter().map(line).collect();
            lines.push(absent(&trees.iter().collect::<Vec<_>>()));
            let plural = if collisions.len() == 1 { "" } else { "s" };
            lines.push(format!("{}: {} collision{plural}\n", names.join(", "), collisions.len()));
            print(&lines.concat())?;
        }
    }
    Ok(if collisions.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
