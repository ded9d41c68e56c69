use super::super::tests::{fails_at, found, passes};
use super::{ROOMS, escapes, indexing, panics};

const PATH: &str = "crates/proto/src/exit/decode.rs";

/// The text inside of a function, on its second line.
fn body(text: &str) -> String {
    format!("fn f() {{\n    {text}\n}}\n")
}

const PANICS: [&str; 12] = [
    "a.unwrap();",
    "a.expect(\"b\");",
    "a.unwrap_err();",
    "a.map(Option::unwrap);",
    "panic!(\"b\");",
    "core::panic!();",
    "todo!();",
    "unimplemented!();",
    "match a { _ => unreachable!() }",
    "assert!(a.unwrap() == 1);",
    "matches!(a, B if c.unwrap());",
    "let a = || b.unwrap();",
];

const INDEXINGS: [&str; 8] = [
    "a[0];",
    "&a[1..];",
    "a.b()[0] = 1;",
    "assert_eq!(a[0], 1, \"c\");",
    "vec![a[0]; 3];",
    "matches!(a, B if c[0] == 1);",
    "m! { let a = b[0]; }",
    "m! { a => b[0] }",
];

const FINE: [&str; 9] = [
    "a.unwrap_or(0);",
    "a.unwrap_or_default();",
    "let expect = unwrap;",
    "let [a, b] = [0_u8; 2];",
    "let a: &'a [u8] = &[1];",
    "assert!(a);",
    "matches!(a, [b, ..] | [c @ .., _]);",
    "#[allow(b)] let a = \"x.unwrap() y[0] panic!()\"; // x.unwrap() y[0]",
    "m! { #[a] in [b] 'c [d] => x }",
];

#[test]
fn each_form_fails_in_each_room_and_only_by_its_own_rule() {
    for room in ROOMS {
        let path = format!("crates/{room}/src/a/b.rs");
        for text in PANICS {
            fails_at(panics, &[(&path, &body(text))], &[&format!("{path}:2")]);
            passes(indexing, &[(&path, &body(text))]);
        }
        for text in INDEXINGS {
            fails_at(indexing, &[(&path, &body(text))], &[&format!("{path}:2")]);
            passes(panics, &[(&path, &body(text))]);
        }
    }
}

#[test]
fn code_that_cannot_panic_passes() {
    for text in FINE {
        passes(panics, &[(PATH, &body(text))]);
        passes(indexing, &[(PATH, &body(text))]);
    }
}

#[test]
fn the_inside_of_macro_rules_is_looked_at() {
    let text = "macro_rules! m {\n    ($a:expr) => {\n        $a.unwrap()[0]\n    };\n}\n";
    fails_at(panics, &[(PATH, text)], &[&format!("{PATH}:3")]);
    fails_at(indexing, &[(PATH, text)], &[&format!("{PATH}:3")]);
}

#[test]
fn methods_in_impls_and_traits_are_looked_at() {
    for head in ["impl A", "impl T for A", "trait T", "mod m"] {
        let text = format!("{head} {{\n    fn f() {{ a[0].unwrap() }}\n}}\n");
        fails_at(panics, &[(PATH, &text)], &[&format!("{PATH}:2")]);
        fails_at(indexing, &[(PATH, &text)], &[&format!("{PATH}:2")]);
    }
}

#[test]
fn tests_may_panic() {
    let bad = body("a[0].unwrap();");
    for path in ["crates/abi/src/kvm/tests.rs", "crates/abi/tests/golden.rs", "crates/abi/benches/exit.rs"] {
        passes(panics, &[(path, &bad)]);
        passes(indexing, &[(path, &bad)]);
    }
    for head in ["#[cfg(test)]", "#[cfg(all(unix, test))]"] {
        passes(panics, &[(PATH, &format!("{head}\nmod tests {{\n{bad}}}\n"))]);
        passes(panics, &[(PATH, &format!("{head}\n{bad}"))]);
        passes(panics, &[(PATH, &format!("impl A {{\n{head}\n{bad}}}\n"))]);
    }
    for head in ["#[cfg(any(test, unix))]", "#[cfg(not(test))]", "#[inline]"] {
        fails_at(panics, &[(PATH, &format!("{head}\n{bad}"))], &[&format!("{PATH}:3")]);
    }
}

#[test]
fn a_file_that_its_parent_keeps_for_tests_may_panic() {
    let bad = body("a.unwrap();");
    let parents = [
        ("crates/abi/src/lib.rs", "crates/abi/src/walks.rs", "crates/abi/src/walks/far.rs"),
        ("crates/abi/src/kvm.rs", "crates/abi/src/kvm/walks.rs", "crates/abi/src/kvm/walks/far.rs"),
        ("crates/abi/src/kvm/mod.rs", "crates/abi/src/kvm/walks.rs", "crates/abi/src/kvm/walks/far.rs"),
    ];
    for (parent, child, below) in parents {
        passes(panics, &[(parent, "#[cfg(test)]\nmod walks;\n"), (child, &bad), (below, &bad)]);
        let files = [(parent, "mod walks;\n"), (child, bad.as_str())];
        fails_at(panics, &files, &[&format!("{child}:2")]);
    }
}

#[test]
fn other_crates_are_free() {
    for path in ["crates/check/src/a.rs", "crates/linux/src/a.rs", "xtask/src/a.rs", "fuzz/a.rs"] {
        passes(panics, &[(path, &body("a[0].unwrap();"))]);
    }
}

#[test]
fn a_value_for_the_compiler_may_panic_but_a_closure_in_it_may_not() {
    for text in [
        "const A: u8 = B[0];\n",
        "static A: u8 = B[0];\n",
        "impl C { const A: u8 = B[0]; }\n",
        "trait C { const A: u8 = B[0]; }\n",
        "fn f() { const { assert!(B[0] == 1) } }\n",
    ] {
        passes(indexing, &[(PATH, text)]);
    }
    fails_at(indexing, &[(PATH, "static A: L = L::new(|| B[0]);\n")], &[&format!("{PATH}:1")]);
    fails_at(indexing, &[(PATH, "const A: u8 = { fn g() { B[0] } g() };\n")], &[&format!("{PATH}:1")]);
}

#[test]
fn an_escape_with_a_reason_excuses_its_line_or_the_next() {
    for text in [
        "a[0]; // tidy: allow(indexing) the length is checked above",
        "// tidy: allow(indexing) the length is checked above\n    a[0];",
        "// tidy: allow(indexing) the length is checked\n    // above\n    a[0];",
    ] {
        passes(indexing, &[(PATH, &body(text))]);
        passes(escapes, &[(PATH, &body(text))]);
    }
    let text = body("// tidy: allow(panics) a table of the model itself\n    a.unwrap();");
    passes(panics, &[(PATH, &text)]);
    passes(escapes, &[(PATH, &text)]);
}

#[test]
fn an_escape_excuses_nothing_else() {
    for (line, text) in [
        (3, "// tidy: allow(panics) another rule\n    a[0];"),
        (3, "b(); // tidy: allow(indexing) another line\n    a[0];"),
        (4, "// tidy: allow(indexing) too far away\n    b();\n    a[0];"),
        (3, "let b = \"// tidy: allow(indexing) in a string\";\n    a[0];"),
    ] {
        fails_at(indexing, &[(PATH, &body(text))], &[&format!("{PATH}:{line}")]);
    }
}

#[test]
fn an_escape_without_a_reason_excuses_nothing_and_is_reported() {
    let text = body("a[0]; // tidy: allow(indexing)");
    fails_at(indexing, &[(PATH, &text)], &[&format!("{PATH}:2")]);
    let found = found(escapes, &[(PATH, &text)]);
    assert_eq!(found, [(format!("{PATH}:2"), "`allow(indexing)` without a reason".to_owned())]);
}

#[test]
fn an_escape_that_is_idle_or_of_another_rule_is_reported() {
    let idle = body("a.get(0); // tidy: allow(indexing) a leftover");
    fails_at(escapes, &[(PATH, &idle)], &[&format!("{PATH}:2")]);
    let other = body("a[0]; // tidy: allow(file-length) it grew");
    fails_at(escapes, &[(PATH, &other)], &[&format!("{PATH}:2")]);
    let free = body("a[0]; // tidy: allow(indexing) not judged in this crate");
    fails_at(escapes, &[("crates/linux/src/a.rs", &free)], &["crates/linux/src/a.rs:2"]);
}
