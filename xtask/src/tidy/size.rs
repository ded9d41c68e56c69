//! Files and functions stay short enough to be read in one go.

use proc_macro2::Span;
use syn::visit::{self, Visit};

use super::Finding;
use super::tree::Tree;

pub(super) const FILES_HOLD: &str = "a .rs file has at most 500 lines";
pub(super) const FUNCTIONS_HOLD: &str = "a function has at most 70 lines, from `fn` to the closing brace";

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

pub(super) fn file_length(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files().iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES {
            let message = format!("{lines} lines; at most {FILE_LINES}, so split it by meaning");
            findings.push(Finding::new(&file.path, FILE_LINES + 1, message));
        }
    }
    findings
}

pub(super) fn function_length(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in tree.rust() {
        let mut functions = Functions { path: &file.path, findings: Vec::new() };
        functions.visit_file(&code.ast);
        findings.extend(functions.findings);
    }
    findings
}

/// Looks at every function with a body: free, nested, in an impl, in a trait, in a test module.
struct Functions<'p> {
    path: &'p str,
    findings: Vec<Finding>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let start = signature.fn_token.span.start().line;
        let close: Span = body.brace_token.span.close();
        let lines = close.end().line - start + 1;
        if lines > FUNCTION_LINES {
            let name = &signature.ident;
            let message = format!("`{name}` has {lines} lines; at most {FUNCTION_LINES}, so name its steps");
            self.findings.push(Finding::new(self.path, start, message));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.measure(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests;
