use super::super::tests::{fails_at, passes};
use super::{FORBIDDING, check};

const OPEN: &str = "crates/linux/src/mmap.rs";
const QUARANTINE: &str = "crates/linux/src/mmap_unsafe.rs";

#[test]
fn the_keyword_outside_of_the_quarantine_fails_in_every_form() {
    for text in [
        "fn f() { unsafe { g() } }",
        "unsafe fn f() {}",
        "trait T { unsafe fn f(); }",
        "unsafe impl Send for A {}",
        "unsafe extern \"C\" {}",
        "#[unsafe(no_mangle)] fn f() {}",
        "fn f() { assert!(unsafe { g() }); }",
        "macro_rules! m { () => { unsafe { g() } }; }",
    ] {
        fails_at(check, &[(OPEN, text)], &[&format!("{OPEN}:1")]);
    }
}

#[test]
fn the_word_in_strings_comments_and_other_names_passes() {
    let text =
        "#![deny(unsafe_code)]\n// unsafe\n/// unsafe\nconst A: &str = \"unsafe {\";\nfn not_unsafe() {}\n";
    passes(check, &[(OPEN, text)]);
}

#[test]
fn a_block_with_its_reason_passes() {
    for text in [
        "fn f() {\n    // SAFETY: it is ours.\n    unsafe { g() }\n}\n",
        "fn f() {\n    // SAFETY: it is ours\n    // for good.\n    let a =\n        unsafe { g() };\n}\n",
        "fn f() {\n    let a =\n        // SAFETY: it is ours.\n        unsafe { g() };\n}\n",
        "fn f() {\n    // SAFETY: ours.\n    #[allow(unused)]\n    let a = unsafe { g() };\n}\n",
        "fn f() {\n    /* SAFETY: it is ours. */ unsafe { g() }\n}\n",
        "fn f() {\n    // SAFETY: it is ours.\n    assert!(\n        unsafe { g() }\n    );\n}\n",
        "fn f() {\n    match a {\n        // SAFETY: it is ours.\n        B => unsafe { g() },\n    }\n}\n",
        "// SAFETY: it is ours.\nunsafe impl Send for A {}\n",
    ] {
        passes(check, &[(QUARANTINE, text)]);
    }
}

#[test]
fn a_block_or_impl_without_its_reason_fails() {
    for (line, text) in [
        (2, "fn f() {\n    unsafe { g() }\n}\n"),
        (3, "fn f() {\n    // SAFETY:\n    unsafe { g() }\n}\n"),
        (3, "fn f() {\n    // It is fine.\n    unsafe { g() }\n}\n"),
        (4, "fn f() {\n    // SAFETY: it is ours.\n    h();\n    unsafe { g() }\n}\n"),
        (4, "fn f() {\n    // SAFETY: it is ours.\n\n    unsafe { g() }\n}\n"),
        (3, "// SAFETY: it is ours.\nfn f() {\n    unsafe { g() }\n}\n"),
        (1, "const A: &str = \"SAFETY: no\"; unsafe impl Send for A {}\n"),
        (2, "fn f() {\n    assert!(unsafe { g() });\n}\n"),
    ] {
        fails_at(check, &[(QUARANTINE, text)], &[&format!("{QUARANTINE}:{line}")]);
    }
}

#[test]
fn an_unsafe_function_needs_its_section() {
    let with = |head: &str| {
        let free = format!("{head}unsafe fn f() {{}}\n");
        format!("{free}impl A {{\n{free}}}\ntrait T {{\n{head}unsafe fn f();\n}}\n")
    };
    passes(check, &[(QUARANTINE, &with("/// Frees.\n///\n/// # Safety\n///\n/// Once only.\n"))]);
    let places = [1, 3, 6].map(|line| format!("{QUARANTINE}:{line}"));
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    fails_at(check, &[(QUARANTINE, &with(""))], &places);
}

#[test]
fn the_method_of_a_trait_is_documented_in_the_trait() {
    let text = "// SAFETY: it is ours.\nunsafe impl T for A {\n    unsafe fn f() {}\n}\n";
    passes(check, &[(QUARANTINE, text)]);
}

#[test]
fn the_crates_without_unsafe_code_forbid_it() {
    for room in FORBIDDING {
        let root = format!("crates/{room}/src/lib.rs");
        passes(check, &[(&root, "#![no_std]\n#![forbid(unsafe_code)]\n")]);
        for text in ["", "#![deny(unsafe_code)]\n", "#![forbid(missing_docs)]\n"] {
            fails_at(check, &[(&root, text)], &[&format!("{root}:1")]);
        }
    }
    passes(check, &[("crates/linux/src/lib.rs", ""), ("crates/abi/src/kvm/lib_x.rs", "")]);
}
