use super::super::tests::{fails_at, passes};
use super::check;

const ROOT: &str = "[workspace]\n[workspace.lints.rust]\nmissing_docs = \"warn\"\n";
const CRATE: &str = "[package]\nname = \"exeunt-abi\"\n\n[lints]\nworkspace = true\n";
const MANIFEST: &str = "crates/abi/Cargo.toml";

#[test]
fn the_workspace_lint_taken_by_each_crate_passes() {
    passes(check, &[("Cargo.toml", ROOT), (MANIFEST, CRATE)]);
    let table = ROOT.replace("\"warn\"", "{ level = \"deny\", priority = 1 }");
    passes(check, &[("Cargo.toml", &table)]);
}

#[test]
fn a_crate_without_the_workspace_lints_fails() {
    let other = CRATE.replace("workspace = true", "rust.missing_docs = \"warn\"");
    fails_at(check, &[(MANIFEST, &other)], &["crates/abi/Cargo.toml:1"]);
    fails_at(check, &[(MANIFEST, "[package]\nname = \"exeunt-abi\"\n")], &["crates/abi/Cargo.toml:1"]);
}

#[test]
fn a_root_without_the_lint_fails() {
    fails_at(check, &[("Cargo.toml", "[workspace]\n")], &["Cargo.toml:1"]);
    fails_at(check, &[("Cargo.toml", &ROOT.replace("warn", "allow"))], &["Cargo.toml:1"]);
}

#[test]
fn a_source_that_switches_the_lint_off_fails() {
    for text in ["#![allow(missing_docs)]\n", "#[expect(unused, missing_docs)]\nfn f() {}\n"] {
        fails_at(check, &[("crates/abi/src/lib.rs", text)], &["crates/abi/src/lib.rs:1"]);
        passes(check, &[("crates/abi/tests/golden.rs", text)]);
    }
    passes(check, &[("crates/abi/src/lib.rs", "#![deny(missing_docs)]\n#![allow(unused)]\n")]);
}
