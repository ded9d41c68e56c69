//! No panic that outside bytes could reach, in the rooms that handle them.
//!
//! Tests may panic, and so may what the compiler evaluates: the value of a `const` or a `static` panics at
//! build time or never. Whether arithmetic on outside data can overflow depends on types and is left to
//! `clippy::arithmetic_side_effects`.
//!
//! `// tidy: allow(indexing) <reason>` excuses the same line, or the line below the comment.

use proc_macro2::{Delimiter, TokenStream};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Expr, Token as Tok};

use super::Finding;
use super::syntax::{Comment, Kind, Token, attributes, comments, flatten, is_test_only};
use super::tree::{Code, File, Tree};

pub(super) const PANICS_HOLD: &str = "\
    no unwrap, expect, panic!, todo!, unimplemented!, unreachable! \
    in abi, proto, service, model outside tests";
pub(super) const INDEXING_HOLDS: &str =
    "no `[..]` indexing in abi, proto, service, model outside tests: take `get` or a pattern";
pub(super) const ESCAPES_HOLD: &str =
    "`// tidy: allow(panics|indexing) <reason>` gives a reason and excuses something";

const ROOMS: [&str; 4] = ["abi", "proto", "service", "model"];
const METHODS: [&str; 4] = ["unwrap", "expect", "unwrap_err", "expect_err"];
const MACROS: [&str; 4] = ["panic", "todo", "unimplemented", "unreachable"];

pub(super) fn panics(tree: &Tree) -> Vec<Finding> {
    unexcused(tree, Sort::Panic)
}

pub(super) fn indexing(tree: &Tree) -> Vec<Finding> {
    unexcused(tree, Sort::Index)
}

/// An escape without a reason, for a rule that has no escapes, or where nothing is to be excused.
pub(super) fn escapes(tree: &Tree) -> Vec<Finding> {
    let test_only = TestOnly::of(tree);
    let mut findings = Vec::new();
    for (file, code) in tree.rust() {
        let found = violations(file, code, &test_only);
        for escape in escapes_of(file, code) {
            let Escape { line, rule, reason, .. } = escape;
            let message = if !["panics", "indexing"].contains(&rule) {
                format!("`{rule}` is not `panics` or `indexing`, the only rules with an escape")
            } else if reason.is_empty() {
                format!("`allow({rule})` without a reason")
            } else if !found.iter().any(|violation| escape.excuses(violation)) {
                format!("`allow({rule})` excuses nothing: take it away")
            } else {
                continue;
            };
            findings.push(Finding::new(&file.path, line, message));
        }
    }
    findings
}

fn unexcused(tree: &Tree, sort: Sort) -> Vec<Finding> {
    let test_only = TestOnly::of(tree);
    let mut findings = Vec::new();
    for (file, code) in tree.rust() {
        let escapes = escapes_of(file, code);
        for violation in violations(file, code, &test_only) {
            let excused =
                escapes.iter().any(|escape| !escape.reason.is_empty() && escape.excuses(&violation));
            if violation.sort == sort && !excused {
                findings.push(Finding::new(&file.path, violation.line, violation.message));
            }
        }
    }
    findings
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Panic,
    Index,
}

struct Violation {
    sort: Sort,
    line: usize,
    message: String,
}

fn violations(file: &File, code: &Code, test_only: &TestOnly) -> Vec<Violation> {
    let judged = file.room().is_some_and(|room| ROOMS.contains(&room));
    if !judged || test_only.covers(&file.path) || is_test_only(&code.ast.attrs) {
        return Vec::new();
    }
    let mut panics = Panics::default();
    panics.visit_file(&code.ast);
    panics.found.sort_by_key(|violation| violation.line);
    panics.found
}

/// The files that are built for tests only, by their place or because their parent says so.
struct TestOnly {
    /// A file, or a directory with a `/` at the end.
    modules: Vec<String>,
}

impl TestOnly {
    fn of(tree: &Tree) -> Self {
        let mut modules = Vec::new();
        for (file, code) in tree.rust() {
            let stem = file.path.strip_suffix(".rs").unwrap_or(&file.path);
            let is_root = ["lib.rs", "main.rs", "mod.rs"].contains(&file.name());
            let dir = if is_root { stem.rsplit_once('/').map_or("", |(dir, _)| dir) } else { stem };
            for item in &code.ast.items {
                if let syn::Item::Mod(module) = item {
                    if module.content.is_none() && is_test_only(&module.attrs) {
                        let name = &module.ident;
                        modules.push(format!("{dir}/{name}.rs"));
                        modules.push(format!("{dir}/{name}/"));
                    }
                }
            }
        }
        Self { modules }
    }

    fn covers(&self, path: &str) -> bool {
        let by_place = path.split('/').any(|part| ["tests", "tests.rs", "benches"].contains(&part));
        by_place || self.modules.iter().any(|m| path == m || m.ends_with('/') && path.starts_with(m))
    }
}

/// `// tidy: allow(<rule>) <reason>`
struct Escape<'t> {
    rule: &'t str,
    reason: &'t str,
    line: usize,
    /// The line after the comment, when the comment has its lines to itself.
    below: Option<usize>,
}

impl Escape<'_> {
    fn excuses(&self, violation: &Violation) -> bool {
        let rule = match violation.sort {
            Sort::Panic => "panics",
            Sort::Index => "indexing",
        };
        self.rule == rule && (violation.line == self.line || Some(violation.line) == self.below)
    }
}

fn escapes_of<'t>(file: &'t File, code: &Code) -> Vec<Escape<'t>> {
    let comments = comments(&file.text, &code.tokens);
    let mut escapes = Vec::new();
    for comment in &comments {
        let Some(rest) = comment.text.strip_prefix("tidy: allow(") else { continue };
        let (rule, reason) = rest.split_once(')').unwrap_or((rest, ""));
        let below = comment.alone.then(|| line_below(&comments, comment.line));
        escapes.push(Escape { rule: rule.trim(), reason: reason.trim(), line: comment.line, below });
    }
    escapes
}

/// The first line below that is not a comment, as a reason may go on over several lines.
fn line_below(comments: &[Comment<'_>], line: usize) -> usize {
    let mut below = line + 1;
    while comments.iter().any(|comment| comment.alone && comment.line == below) {
        below += 1;
    }
    below
}

#[derive(Default)]
struct Panics {
    found: Vec<Violation>,
    /// Set inside a value that the compiler evaluates.
    at_build_time: bool,
}

impl Panics {
    fn add(&mut self, sort: Sort, line: usize, message: String) {
        if !self.at_build_time {
            self.found.push(Violation { sort, line, message });
        }
    }

    fn add_panic(&mut self, line: usize, what: &str) {
        self.add(
            Sort::Panic,
            line,
            format!("`{what}` can panic: carry the cause in an error, or stop the run"),
        );
    }

    fn add_index(&mut self, line: usize) {
        self.add(Sort::Index, line, "indexing can panic: take `get`, a pattern or an iterator".to_owned());
    }

    fn with_build_time(&mut self, at_build_time: bool, visit: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.at_build_time, at_build_time);
        visit(self);
        self.at_build_time = outside;
    }

    /// For the inside of a macro that is no list of expressions and no list of statements.
    fn scan(&mut self, tokens: &[Token]) {
        for (index, token) in tokens.iter().enumerate() {
            let at = |offset: usize| tokens.get(index + offset).map(|token| &token.kind);
            let line = token.start.line;
            match &token.kind {
                Kind::Punct('.') => {
                    let name = at(1).and_then(Kind::ident).unwrap_or("");
                    if METHODS.contains(&name) && at(2) == Some(&Kind::Open(Delimiter::Parenthesis)) {
                        self.add_panic(line, &format!(".{name}()"));
                    }
                }
                Kind::Ident(name) if MACROS.contains(&name.as_str()) && at(1) == Some(&Kind::Punct('!')) => {
                    self.add_panic(line, &format!("{name}!"));
                }
                Kind::Open(Delimiter::Bracket) if ends_a_value(tokens.get(..index).unwrap_or(&[])) => {
                    self.add_index(line);
                }
                _ => {}
            }
        }
    }
}

/// Whether a bracket after these tokens indexes what they end with.
fn ends_a_value(before: &[Token]) -> bool {
    const KEYWORDS: [&str; 12] =
        ["as", "break", "const", "dyn", "else", "for", "if", "in", "let", "match", "mut", "return"];
    let mut back = before.iter().rev().map(|token| &token.kind);
    match back.next() {
        Some(Kind::Ident(name)) => {
            let is_lifetime = back.next() == Some(&Kind::Punct('\''));
            !is_lifetime && !KEYWORDS.contains(&name.as_str())
        }
        Some(Kind::Close(Delimiter::Parenthesis | Delimiter::Bracket) | Kind::Punct('?')) => true,
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Panics {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test_only(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.with_build_time(false, |this| visit::visit_item_fn(this, function));
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test_only(&function.attrs) {
            self.with_build_time(false, |this| visit::visit_impl_item_fn(this, function));
        }
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.with_build_time(true, |this| visit::visit_item_const(this, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.with_build_time(true, |this| visit::visit_item_static(this, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.with_build_time(true, |this| visit::visit_impl_item_const(this, item));
    }

    fn visit_trait_item_const(&mut self, item: &'ast syn::TraitItemConst) {
        self.with_build_time(true, |this| visit::visit_trait_item_const(this, item));
    }

    fn visit_expr_const(&mut self, block: &'ast syn::ExprConst) {
        self.with_build_time(true, |this| visit::visit_expr_const(this, block));
    }

    /// A closure in a `static` runs later, as in a lazily filled table.
    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        self.with_build_time(false, |this| visit::visit_expr_closure(this, closure));
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if METHODS.iter().any(|method| call.method == method) {
            self.add_panic(call.method.span().start().line, &format!(".{}()", call.method));
        }
        visit::visit_expr_method_call(self, call);
    }

    /// `Option::unwrap` as a function.
    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        let segments = &path.path.segments;
        if let Some(last) = segments.last().filter(|_| segments.len() > 1) {
            if METHODS.iter().any(|method| last.ident == method) {
                self.add_panic(last.ident.span().start().line, &last.ident.to_string());
            }
        }
        visit::visit_expr_path(self, path);
    }

    fn visit_expr_index(&mut self, index: &'ast syn::ExprIndex) {
        self.add_index(index.bracket_token.span.open().start().line);
        visit::visit_expr_index(self, index);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if let Some(last) = call.path.segments.last() {
            if MACROS.iter().any(|name| last.ident == name) {
                self.add_panic(last.ident.span().start().line, &format!("{}!", last.ident));
            }
        }
        let tokens: &TokenStream = &call.tokens;
        let expressions = Punctuated::<Expr, Tok![,]>::parse_terminated.parse2(tokens.clone());
        if let Ok(expressions) = expressions {
            look_inside(self, expressions.into_iter().map(|value| syn::Stmt::Expr(value, None)));
        } else if let Ok(statements) = syn::Block::parse_within.parse2(tokens.clone()) {
            look_inside(self, statements);
        } else {
            self.scan(&flatten(tokens.clone()));
        }
    }
}

/// Visits what was parsed out of a macro. It lives no longer than this call, which a method of the visitor,
/// tied to the lifetime of the file, could not express.
fn look_inside(panics: &mut Panics, statements: impl IntoIterator<Item = syn::Stmt>) {
    for statement in statements {
        panics.visit_stmt(&statement);
    }
}

#[cfg(test)]
mod tests;
