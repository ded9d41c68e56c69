//! The examples run and say what they are to say, and stay short enough to be read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An example as cargo has built it with the tests.
fn example(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.ancestors().nth(2).unwrap().join("examples").join(name)
}

fn run(name: &str, status: i32) -> String {
    let Output { status: got, stdout, stderr } = Command::new(example(name)).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(got.code(), Some(status), "{name}\n{stdout}{stderr}");
    stdout.into_owned()
}

#[test]
fn every_example_has_less_than_60_lines() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|ext| ext == "rs")).collect();
    assert_eq!(files.len(), 3);
    for file in files {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines < 60, "{} has {lines}", file.display());
    }
}

#[test]
fn kvm_ioctls_runs_a_guest_to_its_triple_fault() {
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        eprintln!("skipped: a VMM on kvm-ioctls: /dev/kvm: {error}");
        return;
    }
    let end = "warning: triple_fault: the guest was shut down by a triple fault (exit status 20)\n";
    assert_eq!(run("kvm_ioctls", 20), format!("hi\n{end}"));
}

#[test]
fn raw_converts_two_pages_and_answers() {
    let said = run("raw_unsafe", 0);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].contains("SetAttributes") && lines[1].contains("Discard"), "{said}");
    assert_eq!(lines[2], "answered, enter again");
}

#[test]
fn observe_prints_what_was_counted() {
    let said = run("observe", 0);
    for line in [
        "exeunt_exits_total{kind=\"hypercall\"} 3",
        "exeunt_exit_errors_total{kind=\"hypercall\"} 3",
        "exeunt_effects_total{effect=\"make_private\",result=\"ok\"} 3",
        "exeunt_effects_total{effect=\"discard_shared\",result=\"error\"} 3",
        "exeunt_exit_handling_seconds_count{kind=\"hypercall\"} 3",
    ] {
        assert!(said.lines().any(|other| other == line), "{line}\n{said}");
    }
}
