//! What several rules need to know about Rust syntax; and the rule that each file has one.

use proc_macro2::{Delimiter, LineColumn, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::{Attribute, Item, Meta, Token as Tok};

use super::Finding;
use super::tree::Tree;

pub(super) const HOLDS: &str = "each .rs file parses, as the other rules cannot see into one that does not";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files() {
        if file.binary && file.is_rust() {
            findings.push(Finding::new(&file.path, 1, "not UTF-8"));
        } else if let Some(Err(error)) = file.rust() {
            let line = error.span().start().line.max(1);
            findings.push(Finding::new(&file.path, line, format!("does not parse: {error}")));
        }
    }
    findings
}

/// One token of a file, with groups opened up.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: LineColumn,
    pub(super) end: LineColumn,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ident(String),
    Punct(char),
    /// Also the text of a doc comment, which reaches the compiler as a string.
    Literal,
    Open(Delimiter),
    Close(Delimiter),
}

impl Kind {
    pub(super) fn ident(&self) -> Option<&str> {
        match self {
            Self::Ident(name) => Some(name),
            _ => None,
        }
    }
}

/// The tokens in source order; a group becomes its opening, its content and its closing.
pub(super) fn flatten(stream: TokenStream) -> Vec<Token> {
    let mut flat = Vec::new();
    flatten_into(stream, &mut flat);
    flat
}

fn flatten_into(stream: TokenStream, flat: &mut Vec<Token>) {
    for tree in stream {
        let span = tree.span();
        let mut push = |kind, start, end| flat.push(Token { kind, start, end });
        match tree {
            TokenTree::Ident(ident) => push(Kind::Ident(ident.to_string()), span.start(), span.end()),
            TokenTree::Punct(punct) => push(Kind::Punct(punct.as_char()), span.start(), span.end()),
            TokenTree::Literal(_) => push(Kind::Literal, span.start(), span.end()),
            TokenTree::Group(group) => {
                let (open, close) = (group.span_open(), group.span_close());
                push(Kind::Open(group.delimiter()), open.start(), open.end());
                flatten_into(group.stream(), flat);
                flat.push(Token {
                    kind: Kind::Close(group.delimiter()),
                    start: close.start(),
                    end: close.end(),
                });
            }
        }
    }
}

/// A `//` comment that is not a doc comment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Comment<'t> {
    pub(super) line: usize,
    /// After the slashes, trimmed.
    pub(super) text: &'t str,
    /// Nothing but the comment is on the line.
    pub(super) alone: bool,
}

/// The comments of a file. The compiler drops them, so they are found as what no literal covers.
pub(super) fn comments<'t>(text: &'t str, tokens: &[Token]) -> Vec<Comment<'t>> {
    let literals: Vec<&Token> = tokens.iter().filter(|token| token.kind == Kind::Literal).collect();
    let mut comments = Vec::new();
    for (index, line_text) in text.lines().enumerate() {
        let line = index + 1;
        for (at, _) in line_text.match_indices("//") {
            let (before, rest) = line_text.split_at(at);
            let place = LineColumn { line, column: before.chars().count() };
            if literals.iter().any(|literal| literal.start <= place && place < literal.end) {
                continue;
            }
            let text = rest.trim_start_matches('/').trim();
            comments.push(Comment { line, text, alone: before.trim().is_empty() });
            break;
        }
    }
    comments
}

/// Whether these attributes keep the item out of every build but the tests'.
pub(super) fn is_test_only(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        let cfg = attr.path().is_ident("cfg");
        attr.path().is_ident("test") || cfg && attr.parse_args().is_ok_and(|meta| needs_test(&meta))
    })
}

/// `test` itself and `all(.., test, ..)`. Under `any` the item can be built without the tests.
fn needs_test(meta: &Meta) -> bool {
    match meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => list
            .parse_args_with(Punctuated::<Meta, Tok![,]>::parse_terminated)
            .is_ok_and(|all| all.iter().any(needs_test)),
        _ => false,
    }
}

/// The attributes of any item.
pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The lines of the doc comment among these attributes, each without its leading space.
pub(super) fn doc_lines(attrs: &[Attribute]) -> Vec<String> {
    let mut lines = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("doc")) {
        if let Meta::NameValue(pair) = &attr.meta {
            if let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value {
                lines.extend(text.value().lines().map(|line| line.trim().to_owned()));
            }
        }
    }
    lines
}

/// Whether an attribute such as `allow(..)` lists this name.
pub(super) fn lists(attr: &Attribute, name: &str) -> bool {
    let Meta::List(list) = &attr.meta else { return false };
    let listed = list.parse_args_with(Punctuated::<Meta, Tok![,]>::parse_terminated);
    listed.is_ok_and(|all| all.iter().any(|meta| meta.path().is_ident(name)))
}

#[cfg(test)]
mod tests;
