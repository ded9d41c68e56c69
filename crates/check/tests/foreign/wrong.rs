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

/// Ways to be wrong of which nothing is seen from outside yet: no scene drives a foreign VMM there.
const NOT_SEEN: &[&str] = &[
    // A VMM on the kernel of a posting that it does not know of.
    "masks-bit-31",
    "type-is-a-byte",
    "bit-31-reboots",
    // Bytes that an exit long ago left.
    "reports-16-words",
    "indexes-by-ndata",
    "believes-ndata",
    // What is done at the certificate file.
    "reads-without-a-lock",
    "unlocks-early",
    "waits-for-ever",
    "busy-is-broken",
    "reads-certificates-once",
    // A second VM, and what happens between a save and a restore.
    "does-not-enable-218",
    "loses-the-byte",
    "loses-the-flag",
    "runs-what-it-could-not-restore",
    "only-sets-and-never-clears",
    "always-sets-the-flag",
    "tries-again-without-reading",
    // Another thread of the VMM that writes the page.
    "reads-the-page-twice",
];

type Caught = BTreeMap<String, Vec<Judged>>;

/// Judges all names with one program, on as many threads as there are processors.
fn caught(program: Program, via: Option<Via>, names: &[&str]) -> Result<Caught, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let judge = |name: &&str| {
        let trial = Trial { program, via, wrong: Some((*name).to_owned()) };
        Ok(((*name).to_owned(), trial.judge()?))
    };
    std::thread::scope(|scope| {
        let part = |nth: usize| names.iter().skip(nth).step_by(threads).map(judge).collect();
        let parts: Vec<_> = (0..threads).map(|nth| scope.spawn(move || part(nth))).collect();
        let parts = parts.into_iter().map(|part| part.join().unwrap());
        parts.collect::<Result<Vec<Caught>, _>>().map(|parts| parts.into_iter().flatten().collect())
    })
}

/// Each is caught by what it breaks and by nothing else.
fn assert_caught(caught: &Caught) {
    let mut wrong = Vec::new();
    for (name, judged) in caught {
        let broken = broken(judged);
        let expected = if NOT_SEEN.contains(&name.as_str()) { BTreeSet::new() } else { breaks(name) };
        if broken != expected {
            wrong.push(format!("{name}: {broken:?} and not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_wrong_vmm_is_caught_by_the_rule_that_it_breaks_and_by_no_other() {
    let program = Program::CDynamic;
    let names = match names(program) {
        Ok(names) => names,
        Err(reason) => return print_skip("wrong VMMs", reason),
    };
    let short: Vec<_> = names.iter().map(|(name, _)| name.as_str()).collect();
    let caught = match caught(program, Some(Via::Shim), &short) {
        Ok(caught) => caught,
        Err(reason) => return print_skip("wrong VMMs", reason),
    };
    assert_caught(&caught);
    let page = page(&caught, &names);
    if std::env::var_os("EXEUNT_BLESS").is_some() {
        std::fs::write(DOCUMENT, &page).unwrap();
    }
    let stored = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    let hint = "docs/rules-covered-binaries.md is not what this test makes; EXEUNT_BLESS=1 writes it anew";
    assert!(stored == page, "{hint}");
}

#[test]
fn a_sample_of_the_wrong_vmms_is_caught_alike_in_a_static_program() {
    let sample = [
        "unknown-event-reboots",
        "does-not-say-how-many",
        "negative-errno",
        "first-slot-only",
        "unknown-exit-crashes",
        "drains-by-running",
        "clears-what-it-read",
    ];
    match caught(Program::CStatic, Some(Via::Notify), &sample) {
        Ok(caught) => assert_caught(&caught),
        Err(reason) => print_skip("wrong VMMs, static", reason),
    }
}

fn page(caught: &Caught, names: &[(String, String)]) -> String {
    let what: BTreeMap<_, _> = names.iter().map(|(name, what)| (name.as_str(), what.as_str())).collect();
    let mut rows: BTreeMap<&str, String> = BTreeMap::new();
    for (name, judged) in caught {
        let mut seen = BTreeSet::new();
        for judged in judged.iter().filter(|judged| judged.finding().is_some()) {
            let Some(rule) = rules::find(judged.rule).filter(|_| seen.insert(judged.rule)) else { continue };
            let row = rows.entry(judged.rule).or_default();
            let what = what.get(name.as_str()).unwrap_or(&"");
            // Writing to a string does not fail.
            let _ =
                writeln!(row, "| {} | {} | {} | `{name}` {what} |", rule.id, rule.severity, judged.scenario);
        }
    }
    let seen = names.len() - NOT_SEEN.len();
    let of = |must: bool| {
        let rules = rules::all().filter(|rule| !must || rule.severity == rules::Severity::Must);
        rules.filter(|rule| rows.contains_key(rule.id.as_str())).count()
    };
    let mut page = format!(
        "# Rules covered with binaries\n\n\
         A test makes this page: it puts the C VMM of `crates/subject/c`, which shares no line with exeunt, unmodified in front of the model, \
         wrong in one\nway at a time, and judges it by what crosses the boundary of its process. {seen} wrong VMMs are caught by {} rules, {} of \
         them MUST, and none by a\nrule that it does not break. The right one, and another one in Rust, pass everything, linked dynamically and \
         statically, by the shim and by the\nsupervisor. `exeunt check --profile subject -- VMM --wrong NAME` shows a row again.\n\n\
         | rule | | scenario | wrong VMM |\n|---|---|---|---|\n",
        of(false),
        of(true),
    );
    for rule in rules::all() {
        page.push_str(rows.get(rule.id.as_str()).map_or("", String::as_str));
    }
    let _ = writeln!(page, "\nNo scene drives a VMM in another process there yet: {}.", list(NOT_SEEN));
    page
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
