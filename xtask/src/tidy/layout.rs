//! A wire struct says where its layout comes from, and the compiler holds it to that layout.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Fields, Ident};

use super::Finding;
use super::syntax::{attributes, doc_lines, is_test_only, lists};
use super::tree::Tree;

pub(super) const HOLDS: &str = "\
    each repr(C) struct or union in crates/abi has a `Layout:` line in its doc comment and, \
    in the same file, a `const _: () = assert!(..)` with its size and the offset of a field";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in tree.rust().filter(|(file, _)| file.room() == Some("abi")) {
        let mut layouts = Layouts::default();
        layouts.visit_file(&code.ast);
        for structure in &layouts.structures {
            for message in structure.missing(&layouts.asserts) {
                findings.push(Finding::new(&file.path, structure.line, message));
            }
        }
    }
    findings
}

#[derive(Default)]
struct Layouts {
    structures: Vec<Structure>,
    /// The values of the `const _` items that assert something, without white space.
    asserts: String,
}

struct Structure {
    name: String,
    line: usize,
    has_source: bool,
    /// The fields of a union all start at 0, so it counts as one.
    fields: usize,
}

impl Structure {
    fn missing(&self, asserts: &str) -> Vec<String> {
        let name = &self.name;
        let mut missing = Vec::new();
        if !self.has_source {
            missing.push(format!("`{name}` has no doc line that starts with `Layout:` and names the source"));
        }
        if !asserts.contains(&format!("size_of::<{name}>()")) {
            missing.push(format!("no `const _: () = assert!(..)` here holds `size_of::<{name}>()`"));
        }
        if self.fields > 1 && !asserts.contains(&format!("offset_of!({name},")) {
            missing.push(format!("no `const _: () = assert!(..)` here holds an `offset_of!({name}, ..)`"));
        }
        missing
    }
}

impl Layouts {
    fn look_at(&mut self, name: &Ident, attrs: &[Attribute], fields: usize) {
        if attrs.iter().any(|attr| attr.path().is_ident("repr") && lists(attr, "C")) {
            let has_source = doc_lines(attrs).iter().any(|line| {
                let source = line.strip_prefix("Layout:");
                source.is_some_and(|source| !source.trim().is_empty())
            });
            let line = name.span().start().line;
            self.structures.push(Structure { name: name.to_string(), line, has_source, fields });
        }
    }
}

impl<'ast> Visit<'ast> for Layouts {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test_only(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        let fields = match &item.fields {
            Fields::Named(fields) => fields.named.len(),
            Fields::Unnamed(fields) => fields.unnamed.len(),
            Fields::Unit => 0,
        };
        self.look_at(&item.ident, &item.attrs, fields);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.look_at(&item.ident, &item.attrs, 1);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        let value = item.expr.span().source_text().unwrap_or_default();
        let value: String = value.split_whitespace().collect();
        if item.ident == "_" && value.contains("assert!(") {
            self.asserts.push_str(&value);
            self.asserts.push('\n');
        }
    }
}

#[cfg(test)]
mod tests;
