//! `exeunt run`, and what belongs to no subcommand: completions and manual pages.

use super::{Folder, exeunt, stdout};
use serde_json::Value;
use std::process::Command;

fn mistake(arguments: &[&str]) -> String {
    super::mistake(arguments, &exeunt(arguments))
}

const SCENARIO: &str = r#"
title = "mine"
[vm]
type = "default"
memory = 0x1000
[[case]]
title = "halts"
guest = "hlt"
expect = { end = "halted" }
"#;

#[test]
fn without_arguments_all_scenarios_run_on_the_model_and_pass() {
    let output = exeunt(&["run"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for name in ["system-event", "abi-compat", "triple-fault-migration", "page-state-change", "certificates"]
    {
        assert!(text.contains(&format!("\n{name}: ")) || text.starts_with(&format!("{name}: ")), "{name}");
    }
    let sum = text.lines().last().unwrap();
    assert!(sum.starts_with("9 scenarios: ") && sum.ends_with(" passed, 0 failed, 0 skipped"), "{sum}");
}

#[test]
fn the_same_seed_prints_the_same_and_json_is_one_document() {
    let arguments = ["run", "page-state-change", "--seed", "9", "--format", "json"];
    let first = exeunt(&arguments);
    assert_eq!(first.stdout, exeunt(&arguments).stdout);
    let report: Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!((&report["seed"], &report["kernel"]), (&Value::from(9), &Value::from("model")));
    assert_eq!(report["summary"]["failed"], 0);
    let events = report["scenarios"][0]["cases"][0]["events"].as_array().unwrap();
    let kernel = events.iter().find(|event| event["who"] == "kernel").unwrap();
    assert!(kernel["bytes"].as_str().unwrap().starts_with("0c00000000000000 "), "{kernel}");
}

#[test]
fn a_scenario_that_sees_something_else_ends_with_status_1() {
    let folder = Folder::new("run-unmet");
    let file = folder.file("unmet.toml", SCENARIO.replace("\"halted\"", "\"shutdown\""));
    let output = exeunt(&["run", &file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("FAIL     the end should be 'shutdown' and is 'halted'"));
}

#[test]
fn a_file_of_the_users_own_runs_under_its_name() {
    let folder = Folder::new("run-own");
    let output = exeunt(&["run", &folder.file("my-own.toml", SCENARIO)]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).starts_with("my-own: mine\n"));
}

#[test]
fn each_mistake_in_a_scenario_is_one_line_and_status_2() {
    let folder = Folder::new("run-mistakes");
    let cases = [
        ("key.toml", SCENARIO.replace("guest", "geust"), "key.toml:8: unknown field `geust`"),
        ("toml.toml", SCENARIO.replace("[vm]", "[vm"), "toml.toml:3: "),
        ("memory.toml", SCENARIO.replace("0x1000", "0x1001"), "multiple of 4096 bytes"),
        (
            "certs.toml",
            SCENARIO.replace("\"hlt\"", "\"hlt\"\ncertificates = { file = \"missing.certs\" }"),
            "cannot read the certificate file",
        ),
    ];
    for (name, text, expected) in cases {
        let line = mistake(&["run", &folder.file(name, &text)]);
        assert!(line.contains(expected), "{line}");
    }
    assert!(
        mistake(&["run", "no-such"]).contains("no scenario is named 'no-such'; shipped are system-event")
    );
    assert!(mistake(&["run", "./no-such.toml"]).contains("cannot read the scenario ./no-such.toml"));
    // The first of two is good, and still nothing runs.
    let good = folder.file("good.toml", SCENARIO);
    assert!(mistake(&["run", &good, "no-such"]).contains("no-such"));
}

#[test]
fn a_dialect_that_lacks_the_guest_is_an_error_that_says_so() {
    let line = mistake(&["run", "memory-fault", "--dialect", "linux-5.17"]);
    assert!(line.contains("linux-5.17 has no VM of type snp"), "{line}");
    // The others that were asked for run all the same, and the status says that one did not.
    let output = exeunt(&["run", "memory-fault", "plain-exits", "--dialect", "linux-5.17"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&output).contains("1 scenario: 0 cases passed, 0 failed, 0 skipped, 4 not judged"));
    let unknown = exeunt(&["run", "--dialect", "linux-1.0"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("linux-5.10, linux-5.17"));
}

#[test]
fn options_that_do_not_fit_are_refused() {
    assert!(mistake(&["run", "--kernel", "kvm", "--dialect", "linux-6.1"]).contains("for the model"));
    let line = mistake(&["run", "certificates", "--without-capability"]);
    assert!(line.contains("'certificates' has no case without a capability"), "{line}");
}

#[test]
fn without_the_capability_only_the_loss_is_shown() {
    let output = exeunt(&["run", "triple-fault-migration", "--without-capability"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("never learns of the triple fault") && !text.contains("KVM_EXIT_SHUTDOWN (8)"));
}

#[test]
fn completions_and_manual_pages_are_printed_and_written() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(stdout(&exeunt(&["completions", shell])).contains("exeunt"), "{shell}");
    }
    assert!(stdout(&exeunt(&["man"])).contains(".TH exeunt 1"));
    let folder = Folder::new("run-man");
    assert_eq!(exeunt(&["man", "--to", folder.path()]).status.code(), Some(0));
    assert!(folder.0.join("exeunt-run.1").exists());
    assert!(mistake(&["man", "--to", "/no/such/folder"]).contains("cannot write manual pages"));
}

#[test]
fn the_list_names_every_shipped_scenario() {
    assert_eq!(stdout(&exeunt(&["run", "--list"])).lines().count(), 9);
}

#[test]
fn a_full_output_is_an_error_and_a_reader_that_leaves_is_not() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeunt"));
    let output = command.args(["run", "plain-exits"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));
}
