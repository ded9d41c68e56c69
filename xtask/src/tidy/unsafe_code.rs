//! Unsafe code is quarantined, the file's name says so, and each use of it says why it is sound.

use proc_macro2::{Delimiter, LineColumn, Span};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;
use super::syntax::{Comment, Kind, comments, doc_lines, lists};
use super::tree::{Code, File, Tree};

pub(super) const HOLDS: &str = "\
    `unsafe` stands only in *_unsafe.rs, a `// SAFETY:` comment above each block and impl, \
    a `# Safety` section on each fn; abi, proto, service, model, cpu forbid it in lib.rs";

const FORBIDDING: [&str; 5] = ["abi", "proto", "service", "model", "cpu"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in tree.rust() {
        if file.path.ends_with("_unsafe.rs") {
            findings.extend(undocumented(file, code));
        } else {
            findings.extend(misplaced(file, code));
        }
        findings.extend(not_forbidden(file, code));
    }
    findings
}

fn misplaced(file: &File, code: &Code) -> Vec<Finding> {
    let keywords = code.tokens.iter().filter(|token| token.kind.ident() == Some("unsafe"));
    let message = "`unsafe` outside of a file named *_unsafe.rs";
    keywords.map(|token| Finding::new(&file.path, token.start.line, message)).collect()
}

fn not_forbidden(file: &File, code: &Code) -> Option<Finding> {
    let room = file.room()?;
    let is_root = file.path == format!("crates/{room}/src/lib.rs");
    if !is_root || !FORBIDDING.contains(&room) {
        return None;
    }
    let mut attrs = code.ast.attrs.iter();
    let forbidden = attrs.any(|attr| attr.path().is_ident("forbid") && lists(attr, "unsafe_code"));
    let message = "`#![forbid(unsafe_code)]` is missing";
    (!forbidden).then(|| Finding::new(&file.path, 1, message))
}

/// The keyword is looked for among the tokens, as the syntax tree does not reach into macros.
fn undocumented(file: &File, code: &Code) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut places = Places::default();
    places.visit_file(&code.ast);
    let comments = comments(&file.text, &code.tokens);
    let lines: Vec<&str> = file.text.lines().collect();
    for (token, next) in code.tokens.iter().zip(code.tokens.iter().skip(1)) {
        let what = match &next.kind {
            _ if token.kind.ident() != Some("unsafe") => continue,
            Kind::Open(Delimiter::Brace) => "block",
            Kind::Ident(name) if name == "impl" => "impl",
            _ => continue,
        };
        let line = token.start.line;
        let documented = has_reason_above(&lines, &comments, line)
            || has_reason_above(&lines, &comments, places.start_around(token.start));
        if !documented {
            let message = format!("unsafe {what} without a `// SAFETY:` comment directly above");
            findings.push(Finding::new(&file.path, line, message));
        }
    }
    for (line, name) in places.bare_functions {
        let message = format!("unsafe fn `{name}` without a `# Safety` section in its doc comment");
        findings.push(Finding::new(&file.path, line, message));
    }
    findings.sort();
    findings
}

/// Walks up over the comments and attributes directly above the line.
fn has_reason_above(lines: &[&str], comments: &[Comment<'_>], line: usize) -> bool {
    let is_reason = |text: &str| text.strip_prefix("SAFETY:").is_some_and(|why| !why.trim().is_empty());
    let start = lines.get(line - 1).map_or("", |text| text.trim_start());
    if start.strip_prefix("/*").is_some_and(|text| is_reason(text.trim_start())) {
        return true;
    }
    for above in (1..line).rev() {
        if let Some(comment) = comments.iter().find(|comment| comment.line == above && comment.alone) {
            if is_reason(comment.text) {
                return true;
            }
        } else if !lines.get(above - 1).is_some_and(|text| text.trim_start().starts_with("#[")) {
            return false;
        }
    }
    false
}

/// Where statements, items and match arms begin and end, and the unsafe functions without their section.
#[derive(Default)]
struct Places {
    spans: Vec<(LineColumn, LineColumn)>,
    bare_functions: Vec<(usize, String)>,
}

impl Places {
    /// The line on which the innermost of the spans around `place` begins.
    fn start_around(&self, place: LineColumn) -> usize {
        let around = self.spans.iter().filter(|(start, end)| *start <= place && place < *end);
        around.map(|(start, _)| *start).max().unwrap_or(place).line
    }

    fn remember(&mut self, span: Span) {
        self.spans.push((span.start(), span.end()));
    }

    fn look_at(&mut self, signature: &syn::Signature, attrs: &[syn::Attribute]) {
        let has_section = doc_lines(attrs).iter().any(|line| line == "# Safety");
        if signature.unsafety.is_some() && !has_section {
            self.bare_functions.push((signature.fn_token.span.start().line, signature.ident.to_string()));
        }
    }
}

impl<'ast> Visit<'ast> for Places {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        self.remember(item.span());
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        self.remember(item.span());
        visit::visit_impl_item(self, item);
    }

    fn visit_stmt(&mut self, statement: &'ast syn::Stmt) {
        self.remember(statement.span());
        visit::visit_stmt(self, statement);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        self.remember(arm.span());
        visit::visit_arm(self, arm);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.look_at(&function.sig, &function.attrs);
        visit::visit_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        self.look_at(&function.sig, &function.attrs);
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        // The method of a trait is documented once, in the trait.
        if block.trait_.is_none() {
            for item in &block.items {
                if let syn::ImplItem::Fn(function) = item {
                    self.look_at(&function.sig, &function.attrs);
                }
            }
        }
        visit::visit_item_impl(self, block);
    }
}

#[cfg(test)]
mod tests;
