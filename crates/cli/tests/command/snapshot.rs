//! `exeunt snapshot`.

use crate::{Folder, exeunt, mistake, stdout};
use exeunt::snapshot::container::MUST_UNDERSTAND;
use exeunt::snapshot::{Limits, Reader, Writer};

/// A file with a snapshot, made with these options.
fn save(folder: &Folder, options: &[&str]) -> String {
    let file = format!("{}/vm", folder.path());
    let output = exeunt(&[&["snapshot", "save", &file], options].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

#[test]
fn a_restored_vm_goes_on_where_it_was_saved_again_and_again() {
    let folder = Folder::new("snapshot-restore");
    let file = save(&folder, &["--type", "sw-protected", "--values", "4"]);
    for _ in 0..2 {
        let output = exeunt(&["snapshot", "restore", &file, "--values", "3"]);
        // What the guest said before was not released by anyone, and belongs to the snapshot.
        assert_eq!(stdout(&output), "0\n1\n2\n3\n4\n5\n6\n");
    }
    let file = save(&folder, &["--values", "2", "--triple-fault"]);
    assert_eq!(stdout(&exeunt(&["snapshot", "restore", &file])), "0\n1\nshutdown\n");
}

#[test]
fn a_snapshot_is_shown_with_its_unknown_sections_and_the_bytes_of_those() {
    let folder = Folder::new("snapshot-show");
    let file = save(&folder, &["--type", "sw-protected", "--triple-fault"]);
    let shown = stdout(&exeunt(&["snapshot", "show", &file]));
    for part in [
        "a sw-protected VM of x86_64, on linux-7.2, Complete",
        "needs x86-triple-fault-event (218) with 0x1: a triple fault is pending",
        "memory at [0x0-0x1ffff], with a private half",
        "vCPU 0: mp_state 0 (RUNNABLE)",
        "a triple fault is pending",
        "area 6 (REGS): 144 bytes",
        "device console",
        "complete: ",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let bytes = std::fs::read(&file).unwrap();
    let mut reader = Reader::new(bytes.as_slice(), Limits::default()).unwrap();
    let mut writer = Writer::new(Vec::new()).unwrap();
    while let Some(section) = reader.section().unwrap() {
        writer.section(section.id, section.flags, &section.payload).unwrap();
    }
    writer.section(0x4e45_5721, 0, b"new").unwrap();
    let newer = folder.file("newer", writer.finish().unwrap().0);
    let shown = stdout(&exeunt(&["snapshot", "show", &newer]));
    assert!(shown.contains("section 0x4e455721 unknown: 3 bytes, may be skipped\n  6e6577\n"), "{shown}");
    assert!(exeunt(&["snapshot", "verify", &newer]).status.success(), "it may be skipped");
    let json = stdout(&exeunt(&["snapshot", "show", &newer, "--format", "json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let sections = json["sections"].as_array().unwrap();
    assert_eq!(sections.last().unwrap()["hex"], "6e6577");
    assert_eq!(sections[0]["name"], "origin");
    assert!(json["error"].is_null() && json["digest"].is_string());
}

#[test]
fn damage_and_newer_formats_are_named_and_nothing_runs() {
    let folder = Folder::new("snapshot-damage");
    let file = save(&folder, &[]);
    let bytes = std::fs::read(&file).unwrap();
    let judged = |bytes: &[u8], what: &str| {
        let damaged = folder.file("damaged", bytes);
        for command in ["show", "verify", "restore"] {
            let output = exeunt(&["snapshot", command, &damaged]);
            let text = stdout(&output);
            assert_eq!(output.status.code(), Some(1), "{command}: {text}");
            assert!(text.contains(what), "{command}: {text}");
        }
    };
    judged(&bytes[..bytes.len() - 1], "cut off");
    judged(b"#!/bin/sh\nexit 0\n", "not a snapshot");
    let mut newer = bytes.clone();
    newer[8] = 2;
    judged(&newer, "format 2.0");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 4;
    judged(&flipped, "checksum");
    judged(&[bytes.as_slice(), b"x"].concat(), "bytes follow the end");
    let mut writer = Writer::new(Vec::new()).unwrap();
    writer.section(0x99, MUST_UNDERSTAND, b"").unwrap();
    let strange = folder.file("strange", writer.finish().unwrap().0);
    let output = exeunt(&["snapshot", "verify", &strange]);
    assert!(stdout(&output).contains("must be understood"), "{}", stdout(&output));
}

#[test]
fn a_kernel_that_cannot_take_a_snapshot_is_told_why() {
    let folder = Folder::new("snapshot-verify");
    let verify = |file: &str, dialect: &str| {
        let output = exeunt(&["snapshot", "verify", file, "--dialect", dialect]);
        (output.status.code(), stdout(&output))
    };
    let file = save(&folder, &["--triple-fault"]);
    let (code, text) = verify(&file, "linux-5.17");
    assert_eq!(code, Some(1));
    assert!(text.contains("lacks x86-triple-fault-event (218)"), "{text}");
    assert_eq!(verify(&file, "linux-6.1"), (Some(0), "the target can take it\n".into()));
    let file = save(&folder, &[]);
    assert_eq!(verify(&file, "linux-5.17").0, Some(0), "nothing is pending that it lacks the means for");
    let file = save(&folder, &["--type", "sw-protected"]);
    let (code, text) = verify(&file, "linux-6.1");
    assert_eq!(code, Some(1));
    assert!(text.contains("no VM of type sw-protected"), "{text}");
}

#[test]
fn a_mistake_is_one_line_and_status_2() {
    let folder = Folder::new("snapshot-mistakes");
    let file = format!("{}/vm", folder.path());
    let save = ["snapshot", "save", &file, "--type", "snp"];
    assert!(mistake(&save, &exeunt(&save)).contains("a snp VM cannot be migrated"));
    let missing = ["snapshot", "show", &file];
    assert!(mistake(&missing, &exeunt(&missing)).contains("cannot open"));
}
