//! The command as a caller sees it: what it prints, and the exit code that scripts rely on.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

fn tidy(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("tidy").args(args).output().expect("xtask starts")
}

/// A tree of its own for one test, with these files.
fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    if root.exists() {
        fs::remove_dir_all(&root).expect("the old tree goes away");
    }
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("the directory is made");
        fs::write(path, text).expect("the file is written");
    }
    root
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("tidy prints UTF-8")
}

#[test]
fn a_finding_is_one_line_before_the_sum_and_leaves_with_1() {
    let root = tree("finding", &[("src/util.rs", "fn f() {}\n"), ("target/debug/util.rs", "fn (\n")]);
    let output = tidy(&["--rule", "names", "--root", root.to_str().expect("a UTF-8 path")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        printed(&output),
        "src/util.rs:1: names: the name `util.rs` does not say what is inside\n\
         tidy: 1 finding; 1 rules over 1 files\n"
    );
}

#[test]
fn a_tree_without_findings_leaves_with_0() {
    let root = tree("clean", &[("src/page.rs", "fn f() {}\n")]);
    let output =
        tidy(&["--rule", "names", "--rule", "syntax", "--root", root.to_str().expect("a UTF-8 path")]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(printed(&output), "tidy: 0 findings; 2 rules over 1 files\n");
}

#[test]
fn a_wrong_command_line_or_an_unreadable_tree_leaves_with_2() {
    assert_eq!(tidy(&["--rule", "nonsense"]).status.code(), Some(2));
    assert_eq!(tidy(&["--nonsense"]).status.code(), Some(2));
    assert_eq!(tidy(&["--list", "--rule", "names"]).status.code(), Some(2));
    assert_eq!(tidy(&["--root", "does/not/exist"]).status.code(), Some(2));
}

#[test]
fn help_and_the_list_leave_with_0_and_name_the_rules() {
    for option in ["--help", "--list"] {
        let output = tidy(&[option]);
        assert_eq!(output.status.code(), Some(0));
        assert!(printed(&output).contains("function-length"), "{option}");
    }
}
