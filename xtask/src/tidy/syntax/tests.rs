use super::super::tests::{fails_at, passes};
use super::super::tree::Tree;
use super::{check, comments};

#[test]
fn a_file_that_does_not_parse_fails_at_its_line() {
    passes(check, &[("a.rs", "fn f() {}\n"), ("a.md", "fn (")]);
    fails_at(check, &[("a.rs", "fn f() {}\nfn (\n")], &["a.rs:2"]);
    fails_at(check, &[("a.rs", "fn f() {}\nstruct 3;\n")], &["a.rs:2"]);
}

#[test]
fn a_file_that_is_not_text_fails() {
    let tree = Tree::new(vec![("a.rs".to_owned(), None), ("a.bin".to_owned(), None)]);
    let paths: Vec<String> = check(&tree).into_iter().map(|finding| finding.path).collect();
    assert_eq!(paths, ["a.rs"]);
}

#[test]
fn comments_are_told_from_strings_and_doc_comments() {
    let text = "
// first
/// doc // no
const A: &str = \"// no\"; // second // still
const B: &str = \"ä
// no
\"; // third
";
    let tree = Tree::of(&[("a.rs", text)]);
    let all: Vec<(usize, &str, bool)> = tree
        .rust()
        .flat_map(|(file, code)| comments(&file.text, &code.tokens))
        .map(|comment| (comment.line, comment.text, comment.alone))
        .collect();
    assert_eq!(all, [(2, "first", true), (4, "second // still", false), (7, "third", false)]);
}
