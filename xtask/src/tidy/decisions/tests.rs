use super::super::tests::{fails_at, passes};
use super::check;

const FIRST: (&str, &str) = ("docs/decisions/0001-two-halves.md", "# 1. Two halves, one seam\n");

#[test]
fn a_numbered_series_passes() {
    passes(check, &[]);
    passes(check, &[FIRST, ("docs/decisions/0002-v2-cpu.md", "# 2. CPU\n"), ("docs/x.md", "")]);
}

#[test]
fn a_malformed_name_fails() {
    for name in
        ["1-a.md", "0001_a.md", "0001-A.md", "0001-a--b.md", "0001-.md", "0000-a.md", "0001-a.txt", "x/y.md"]
    {
        let path = format!("docs/decisions/{name}");
        fails_at(check, &[(&path, "# 1. A\n")], &[&format!("{path}:1")]);
    }
}

#[test]
fn a_repeated_number_fails() {
    let again = ("docs/decisions/0001-again.md", "# 1. Again\n");
    fails_at(check, &[FIRST, again], &["docs/decisions/0001-again.md:1"]);
}

#[test]
fn a_gap_fails_at_the_page_after_it() {
    let third = ("docs/decisions/0003-third.md", "# 3. Third\n");
    fails_at(check, &[FIRST, third], &["docs/decisions/0003-third.md:1"]);
    fails_at(check, &[third], &["docs/decisions/0003-third.md:1"]);
}

#[test]
fn a_first_line_other_than_number_and_title_fails() {
    for text in
        ["", "# Two halves\n", "# 01. Two halves\n", "# 2. Two halves\n", "\n# 1. Two halves\n", "# 1. \n"]
    {
        fails_at(check, &[(FIRST.0, text)], &["docs/decisions/0001-two-halves.md:1"]);
    }
}
