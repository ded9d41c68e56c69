//! `exeunt explain` on every recorded exit of `vectors/exits.jsonl`.

use serde_json::Value;
use std::process::Command;

const VECTORS: &str = include_str!("../../../vectors/exits.jsonl");

/// What the explanation of a recorded meaning has to say.
fn expected(meaning: &str) -> &str {
    match meaning.split(' ').next().unwrap() {
        "hypercall" => "MAP_GPA_RANGE",
        "memory" => "KVM_EXIT_MEMORY_FAULT",
        "event" => meaning.split(' ').nth(1).unwrap(),
        "vmgexit" => "PSC_REQUEST",
        "io" => "port",
        "again" => "EINTR",
        "failed" => "EFAULT",
        "shutdown" => "KVM_EXIT_SHUTDOWN",
        "hlt" => "KVM_EXIT_HLT",
        other => panic!("no word for {other}"),
    }
}

#[test]
fn every_recorded_exit_is_explained() {
    let mut explained = 0;
    for line in VECTORS.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| row[key].as_str().unwrap();
        let reason = row["reason"].to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_exeunt"))
            .args(["explain", "run-page", text("union"), "--reason", &reason, "--errno", text("rc")])
            .args(["--dialect", text("dialect"), "--arch", text("arch")])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}: {complaint}", text("id"));
        assert!(said.contains(expected(text("exit"))), "{}: {said}", text("id"));
        explained += 1;
    }
    assert_eq!(explained, 35);
}
