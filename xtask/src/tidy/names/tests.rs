use super::super::tests::{fails_at, passes};
use super::{EMPTY_NAMES, check};

#[test]
fn each_empty_name_fails_as_file_directory_and_module() {
    for name in EMPTY_NAMES {
        let file = format!("crates/abi/src/{name}.rs");
        fails_at(check, &[(&file, "")], &[&format!("{file}:1")]);
        let (first, second) = (format!("docs/{name}/a.md"), format!("docs/{name}/b.md"));
        fails_at(check, &[(&first, ""), (&second, "")], &[&format!("{first}:1")]);
        let inline = format!("mod outer {{\n    mod {name} {{}}\n}}\n");
        fails_at(check, &[("a.rs", &inline)], &["a.rs:2"]);
        fails_at(check, &[("a.rs", &format!("#[path = \"b.rs\"]\nmod {name};\n"))], &["a.rs:2"]);
    }
}

#[test]
fn a_name_that_merely_contains_one_passes() {
    passes(check, &[("docs/database.md", ""), ("src/common_name.rs", "mod basement { mod rebase {} }")]);
    // The file itself is reported, so its declaration is not.
    passes(check, &[("src/lib.rs", "mod util;\n")]);
}
