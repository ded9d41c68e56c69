use super::super::tests::{fails_at, passes};
use super::{FILE_LINES, FUNCTION_LINES, file_length, function_length};

#[test]
fn a_file_passes_up_to_its_limit_and_fails_above() {
    passes(file_length, &[("a.rs", &"\n".repeat(FILE_LINES)), ("a.md", &"\n".repeat(FILE_LINES + 1))]);
    fails_at(file_length, &[("a.rs", &"\n".repeat(FILE_LINES + 1))], &["a.rs:501"]);
}

/// A function of exactly `lines` lines, with `head` before the keyword.
fn function(head: &str, lines: usize) -> String {
    format!("{head}fn long(\n) {{{}}}\n", "\n".repeat(lines - 2))
}

#[test]
fn a_function_passes_up_to_its_limit_and_fails_above_wherever_it_stands() {
    let places = [
        "X",
        "impl A { X }",
        "impl T for A { X }",
        "trait T { X }",
        "mod m { X }",
        "fn f() { X }",
        "#[cfg(test)] mod tests { X }",
    ];
    for place in places {
        let good = place.replace('X', &function("", FUNCTION_LINES));
        let bad = place.replace('X', &function("", FUNCTION_LINES + 1));
        passes(function_length, &[("a.rs", &good.replace("fn f() {", "mod f {"))]);
        let outer = usize::from(place.starts_with("fn f"));
        let places = vec!["a.rs:1"; 1 + outer];
        fails_at(function_length, &[("a.rs", &bad)], &places);
    }
}

#[test]
fn doc_comments_and_attributes_do_not_count() {
    let head = "/// One.\n/// Two.\n#[inline]\npub(crate) ";
    passes(function_length, &[("a.rs", &function(head, FUNCTION_LINES))]);
    fails_at(function_length, &[("a.rs", &function(head, FUNCTION_LINES + 1))], &["a.rs:4"]);
}

#[test]
fn a_declaration_without_a_body_passes() {
    passes(function_length, &[("a.rs", "trait T {\n    fn short();\n}\n")]);
}
