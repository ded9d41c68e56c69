//! `docs/rules.md`, made of the rules.

use super::{Rule, sections};
use std::fmt::Write;

const HEAD: &str = "\
# The rules of the exit boundary

What a VMM must do at each exit. `exeunt explain` names these ids, and `exeunt rules ID` shows one. **MUST**: the kernel's
documentation or code refuses, or breaks the guest, otherwise. **SHOULD**: the documentation encourages it. **HAZARD**: it follows
from the code, and nothing enforces it. Sources: `api.rst` is `Documentation/virt/kvm/api.rst`, `aem.rst` is
`Documentation/virt/kvm/x86/amd-memory-encryption.rst`, the rest are files of Linux v7.2. `since` is the first release that a rule
holds for; 5.10 stands for it and everything before.

A test makes this page of `crates/check/rules/rules.toml`. Which scenario drives a VMM to a rule, and which wrong VMMs it catches, is
in [rules-covered.md](rules-covered.md).
";

/// The page.
#[must_use]
pub fn document() -> String {
    let mut page = String::from(HEAD);
    for section in sections() {
        // Writing to a string does not fail.
        let _ = write!(page, "\n## {}\n\n", section.title);
        page.push_str("| id | | rule | source | since |\n|---|---|---|---|---|\n");
        for rule in &section.rules {
            let Rule { id, severity, text, source, .. } = rule;
            let _ = writeln!(page, "| {id} | {severity} | {text} | {source} | {} |", since(rule));
        }
        for (at, (id, note)) in
            section.rules.iter().filter_map(|rule| Some((&rule.id, rule.note.as_ref()?))).enumerate()
        {
            page.push_str(if at == 0 { "\n" } else { "" });
            let _ = writeln!(page, "* {id}: {note}");
        }
    }
    page
}

fn since(rule: &Rule) -> String {
    let names: Vec<_> = rule.not_for.iter().map(|dialect| format!("`{dialect}`")).collect();
    match names.as_slice() {
        [] => rule.since.to_string(),
        names => format!("{}, not {}", rule.since, names.join(", ")),
    }
}
