//! `exeunt abi layout`: a struct on each architecture, side by side.

use super::{Format, dialect, json};
use crate::{Failure, print};
use exeunt_headers::{Layout, Target, Tree, rule, suggest};
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Show where the fields of a struct lie on each architecture, and where architectures differ.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt abi layout system_event --dialect linux-5.17,linux-7.2
  exeunt abi layout kvm_vcpu_events --arch x86_64,i386
  exeunt abi layout --list

A cell is the offset in the struct and the size, in bytes. Fields that differ between architectures have a star.")]
pub(super) struct Args {
    /// The struct: the tag in C, or the name of a member of `kvm_run`'s exit union
    #[arg(value_name = "STRUCT", required_unless_present = "list")]
    name: Option<String>,

    /// The architectures: `x86_64`, i386, x32, aarch64, arm, riscv64; all if none is given
    #[arg(long, value_delimiter = ',')]
    arch: Vec<String>,

    /// The kernel releases or proposals; the newest release if none is given
    #[arg(long, value_delimiter = ',')]
    dialect: Vec<String>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Print the names of the structs and stop
    #[arg(long, conflicts_with = "name")]
    list: bool,
}

/// One dialect's form of the struct.
#[derive(Serialize)]
struct Shown {
    dialect: String,
    #[serde(rename = "struct")]
    name: String,
    layouts: BTreeMap<Target, Layout>,
    /// Fields that are not in the same place, or not of the same size, everywhere.
    differs: Vec<String>,
}

pub(super) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let newest = rule::Release::Linux7_2.name().to_string();
    let names = if args.dialect.is_empty() { &vec![newest] } else { &args.dialect };
    let trees: Vec<Tree> = names.iter().map(|name| dialect(name)).collect::<Result<_, _>>()?;
    let targets = targets(&args.arch)?;
    let Some(name) = &args.name else {
        return list(args, &trees);
    };
    let name = find(name)?;
    let shown: Vec<Shown> = trees.iter().map(|tree| show(tree, &name, &targets)).collect::<Result<_, _>>()?;
    match args.format {
        Format::Json => print(&json(&shown)?)?,
        Format::Text => {
            let tables: Vec<String> = shown.iter().map(table).collect();
            print(&tables.join("\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &Args, trees: &[Tree]) -> Result<ExitCode, Failure> {
    let names: std::collections::BTreeSet<&str> = trees.iter().flat_map(Tree::struct_names).collect();
    let text = match args.format {
        Format::Json => json(&names)?,
        Format::Text => names.into_iter().flat_map(|name| [name, "\n"]).collect(),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn targets(names: &[String]) -> Result<Vec<Target>, Failure> {
    if names.is_empty() {
        return Ok(Target::ALL.to_vec());
    }
    let known = || Target::ALL.map(Target::name).join(", ");
    let target = |name: &String| {
        Target::from_name(name)
            .ok_or_else(|| format!("no architecture is named '{name}'; there are {}", known()))
    };
    names.iter().map(target).collect()
}

/// The struct's full name: `system_event` stands for `kvm_run.system_event`.
fn find(name: &str) -> Result<String, Failure> {
    let known = rule::struct_names();
    let spelt = name.strip_prefix("struct ").unwrap_or(name);
    let own = [spelt.to_string(), format!("kvm_run.{spelt}"), format!("kvm_{spelt}")];
    if let Some(found) = own.into_iter().find(|own| known.contains(own)) {
        return Ok(found);
    }
    let near = suggest::near(spelt, known.iter().map(String::as_str));
    if near.is_empty() {
        return Err(format!("no struct is named '{name}'; `exeunt abi layout --list` prints all"));
    }
    Err(format!("no struct is named '{name}'; near is {}", near.join(", ")))
}

fn show(tree: &Tree, name: &str, targets: &[Target]) -> Result<Shown, Failure> {
    let dialect = tree.name.clone();
    if !tree.struct_names().contains(name) {
        return Err(format!("{dialect} has no {name}"));
    }
    let own = targets.iter().filter_map(|target| Some((*target, tree.layout(*target, name)?.clone())));
    let layouts: BTreeMap<Target, Layout> = own.collect();
    if layouts.is_empty() {
        let has: Vec<_> =
            Target::ALL.into_iter().filter(|target| tree.layout(*target, name).is_some()).collect();
        let has: Vec<_> = has.iter().map(|target| target.name()).collect();
        return Err(format!("{dialect} has {name} only on {}", has.join(", ")));
    }
    let differs = paths(&layouts).into_iter().filter(|path| {
        let mut places =
            layouts.values().map(|layout| layout.field(path).map(|field| (field.offset, field.size)));
        let first = places.next();
        places.any(|place| Some(place) != first)
    });
    let differs = differs.map(str::to_string).collect();
    Ok(Shown { dialect, name: name.to_string(), differs, layouts })
}

/// Every field, in the order of declaration.
fn paths(layouts: &BTreeMap<Target, Layout>) -> Vec<&str> {
    let first = layouts.values().next();
    first.map_or(Vec::new(), |layout| layout.fields.iter().map(|field| field.path.as_str()).collect())
}

fn table(shown: &Shown) -> String {
    let first = shown.layouts.values().next();
    let place = first.and_then(|layout| layout.place);
    let place = place.map_or(String::new(), |place| format!(", at {place} in kvm_run"));
    let mut text = format!("{} of {}{place}\n", shown.name, shown.dialect);
    let mut rows: Vec<Vec<String>> = vec![vec![String::new(), "field".into(), "type".into()]];
    rows[0].extend(shown.layouts.keys().map(|target| target.name().to_string()));
    for path in paths(&shown.layouts) {
        let star = if shown.differs.iter().any(|differs| differs == path) { "*" } else { "" };
        let kind = first.and_then(|layout| layout.field(path)).map_or("", |field| &field.type_name);
        let mut row = vec![star.to_string(), path.to_string(), kind.to_string()];
        row.extend(shown.layouts.values().map(|layout| cell(layout, path)));
        rows.push(row);
    }
    let sizes: Vec<String> = shown.layouts.values().map(|layout| layout.size.to_string()).collect();
    let star = if sizes.windows(2).any(|pair| pair[0] != pair[1]) { "*" } else { "" };
    let mut row = vec![star.to_string(), "sizeof".into(), String::new()];
    row.extend(sizes);
    rows.push(row);
    text.push_str(&aligned(&rows));
    text
}

fn cell(layout: &Layout, path: &str) -> String {
    let Some(field) = layout.field(path) else { return "-".into() };
    match field.bits {
        Some(bits) => format!("{}/bit {}+{}", field.offset, bits.low, bits.width),
        None => format!("{}/{}", field.offset, field.size),
    }
}

/// Columns as wide as their widest cell, and no blanks at the end of a line.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
