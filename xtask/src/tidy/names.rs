//! A name says what is inside; these names say only that the author had no better idea.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};

use super::Finding;
use super::tree::Tree;

pub(super) const HOLDS: &str =
    "no module, file or directory is named util, utils, common, base, helper, helpers or misc";

const EMPTY_NAMES: [&str; 7] = ["util", "utils", "common", "base", "helper", "helpers", "misc"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut reported = BTreeSet::new();
    for file in tree.files() {
        let mut end = 0;
        for part in file.path.split('/') {
            end += part.len() + 1;
            let place = file.path.get(..end).unwrap_or(&file.path);
            let stem = part.split('.').next().unwrap_or(part).to_lowercase();
            // A directory is reported once, with the first of its files.
            if EMPTY_NAMES.contains(&stem.as_str()) && reported.insert(place) {
                findings.push(Finding::new(&file.path, 1, message(part)));
            }
        }
    }
    for (file, code) in tree.rust() {
        let mut modules = Modules { path: &file.path, findings: Vec::new() };
        modules.visit_file(&code.ast);
        findings.extend(modules.findings);
    }
    findings
}

fn message(name: &str) -> String {
    format!("the name `{name}` does not say what is inside")
}

/// Looks at modules whose name is not the name of their file.
struct Modules<'p> {
    path: &'p str,
    findings: Vec<Finding>,
}

impl<'ast> Visit<'ast> for Modules<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let name = module.ident.to_string();
        let renamed = module.attrs.iter().any(|attr| attr.path().is_ident("path"));
        if (module.content.is_some() || renamed) && EMPTY_NAMES.contains(&name.as_str()) {
            let line = module.ident.span().start().line;
            self.findings.push(Finding::new(self.path, line, message(&name)));
        }
        visit::visit_item_mod(self, module);
    }
}

#[cfg(test)]
mod tests;
