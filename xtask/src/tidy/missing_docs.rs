//! The compiler asks for a doc comment on each public item, as long as nobody switches that off.

use syn::visit::{self, Visit};
use toml::{Table, Value};

use super::Finding;
use super::syntax::lists;
use super::tree::Tree;

pub(super) const HOLDS: &str = "\
    each crate takes the workspace's lints, these have missing_docs, \
    and no source allows it";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files().iter().filter(|file| file.name() == "Cargo.toml") {
        // The rule `arrows` reports a manifest that does not parse.
        let Ok(manifest) = file.text.parse::<Table>() else { continue };
        if manifest.contains_key("package") && !takes_workspace_lints(&manifest) {
            findings.push(Finding::new(&file.path, 1, "`[lints] workspace = true` is missing"));
        }
        if manifest.contains_key("workspace") && file.path == "Cargo.toml" && !has_missing_docs(&manifest) {
            findings.push(Finding::new(&file.path, 1, "`[workspace.lints.rust]` lacks `missing_docs`"));
        }
    }
    for (file, code) in tree.rust().filter(|(file, _)| file.path.contains("/src/")) {
        let mut allows = Allows { path: &file.path, findings: Vec::new() };
        allows.visit_file(&code.ast);
        findings.extend(allows.findings);
    }
    findings
}

fn takes_workspace_lints(manifest: &Table) -> bool {
    manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool) == Some(true)
}

fn has_missing_docs(manifest: &Table) -> bool {
    let lints = manifest.get("workspace").and_then(|workspace| workspace.get("lints"));
    let lint = lints.and_then(|lints| lints.get("rust")).and_then(|rust| rust.get("missing_docs"));
    let level = lint.and_then(|lint| lint.as_str().or_else(|| lint.get("level").and_then(Value::as_str)));
    level.is_some_and(|level| ["warn", "deny", "forbid"].contains(&level))
}

struct Allows<'p> {
    path: &'p str,
    findings: Vec<Finding>,
}

impl<'ast> Visit<'ast> for Allows<'_> {
    fn visit_attribute(&mut self, attr: &'ast syn::Attribute) {
        let switches_off = attr.path().is_ident("allow") || attr.path().is_ident("expect");
        if switches_off && lists(attr, "missing_docs") {
            let line = attr.pound_token.span.start().line;
            self.findings.push(Finding::new(self.path, line, "`missing_docs` is switched off here"));
        }
        visit::visit_attribute(self, attr);
    }
}

#[cfg(test)]
mod tests;
