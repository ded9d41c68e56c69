//! Wrong VMMs, each in one way: the rule that it breaks catches it, and no other does.

use crate::judging::{Trial, broken};
use crate::programs::Program;
use exeunt_check::foreign::Via;
use exeunt_check::judge::{Judged, wrong_vmms};
use exeunt_check::rules;
use exeunt_linux::print_skip;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rules-covered-binaries.md");

/// Ways to be wrong that no wrong VMM in the judge's own process has.
const OWN: &[(&str, &[&str])] = &[("discards-in-front", &["HC-9"])];

/// The names that the VMM knows, and what they mean.
fn names(program: Program) -> Result<Vec<(String, String)>, String> {
    let output =
        Command::new(program.path()?).arg("--list-wrong").output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pair = |line: &str| line.split_once(": ").map(|(name, what)| (name.to_owned(), what.to_owned()));
    Ok(text.lines().filter_map(pair).collect())
}

/// What a name is meant to break.
fn breaks(name: &str) -> BTreeSet<&'static str> {
    let own = OWN.iter().find(|(own, _)| *own == name).map(|(_, breaks)| *breaks);
    let known = wrong_vmms().find(|vmm| vmm.name == name).map(|vmm| vmm.breaks);
    own.or(known).unwrap_or_else(|| panic!("{name} breaks nothing")).iter().copied().collect()
}

/// Judges all names with one program.
fn caught(
    program: Program,
    via: Via,
    names: &[(String, String)],
) -> Result<BTreeMap<String, Vec<Judged>>, String> {
    let judge = |name: &String| {
        let trial = Trial { program, via: Some(via), wrong: Some(name.clone()) };
        Ok((name.clone(), trial.judge()?))
    };
    names.iter().map(|(name, _)| judge(name)).collect()
}

#[test]
fn every_wrong_vmm_is_caught_by_the_rule_that_it_breaks_and_by_no_other() {
    let program = Program::CDynamic;
    let all = match names(program).and_then(|names| Ok((caught(program, Via::Shim, &names)?, names))) {
        Ok((caught, names)) => (caught, names),
        Err(reason) => return print_skip("wrong VMMs", reason),
    };
    let (caught, names) = all;
    let mut wrong = Vec::new();
    for (name, judged) in &caught {
        let (broken, expected) = (broken(judged), breaks(name));
        if broken != expected {
            wrong.push(format!("{name}: {broken:?} and not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let page = page(&caught, &names);
    if std::env::var_os("EXEUNT_BLESS").is_some() {
        std::fs::write(DOCUMENT, &page).unwrap();
    }
    let stored = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(
        stored == page,
        "docs/rules-covered-binaries.md is not what this test makes; EXEUNT_BLESS=1 writes it anew"
    );
}

fn page(caught: &BTreeMap<String, Vec<Judged>>, names: &[(String, String)]) -> String {
    let mut rows = String::new();
    for (name, what) in names {
        for judged in caught.get(name).into_iter().flatten().filter(|judged| judged.finding().is_some()) {
            // Writing to a string does not fail.
            let _ = writeln!(rows, "| {} | {} | `{name}` | {what} |", judged.rule, judged.scenario);
        }
    }
    let rules: BTreeSet<_> = caught.values().flat_map(|judged| broken(judged)).collect();
    format!(
        "# Rules covered by binaries\n\n{} of {} rules\n\n| rule | scenario | wrong VMM | what it does |\n|---|---|---|---|\n{rows}",
        rules.len(),
        rules::all().count(),
    )
}
