//! `exeunt certs`, with what the model issues.

use super::{Folder, mistake, stdout};
use exeunt_certs::clock::SystemClock;
use exeunt_certs::file::{FileLock, Held, Mode};
use serde_json::Value;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

pub(super) const MILAN: [&str; 3] = ["milan-vcek.der", "milan-ask.der", "milan-ark.der"];

pub(super) fn exeunt(arguments: &[&str]) -> Output {
    super::exeunt(&[&["certs"], arguments].concat())
}

pub(super) fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../certs/tests/data").join(name).to_str().unwrap().into()
}

/// What is printed, with the status that it must come with.
pub(super) fn printed(status: i32, arguments: &[&str]) -> String {
    let output = exeunt(arguments);
    let text = stdout(&output);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}{errors}");
    text
}

/// The table of these certificates in a folder of the test's own.
pub(super) fn table(name: &str, certificates: &[&str]) -> (Folder, String) {
    let folder = Folder::new(&format!("certs-{name}"));
    let path = format!("{}/certs.bin", folder.path());
    build(certificates, &path);
    (folder, path)
}

fn build(certificates: &[&str], path: &str) {
    let files: Vec<_> = certificates.iter().map(|name| data(name)).collect();
    let mut arguments = vec!["build", "-o", path, "--any-root", "--allow-simulated"];
    arguments.extend(files.iter().map(String::as_str));
    printed(0, &arguments);
}

fn lock(path: &str) -> FileLock {
    hold(path, Mode::Exclusive)
}

fn hold(path: &str, mode: Mode) -> FileLock {
    FileLock::acquire(Path::new(path), mode, Duration::from_secs(10), &SystemClock::default()).unwrap()
}

#[test]
fn a_table_that_was_built_is_shown_in_text_and_in_json() {
    let (_folder, path) = table("show", &MILAN);
    let text = printed(0, &["show", &path]);
    assert!(text.contains("certs.bin: 3 certificates in 4138 bytes, which need 2 pages"), "{text}");
    assert!(text.contains("VCEK  63da758d-e664-4564-adc5-f4b93be8accd, 1196 bytes"), "{text}");
    assert!(text.contains("  tcb      bl3.tee0.snp20.ucode209\n"), "{text}");
    assert!(text.contains("  valid    2020-01-01T00:00:00Z to 2049-01-01T00:00:00Z\n"), "{text}");
    let json: Value = serde_json::from_str(&printed(0, &["show", &path, "--format", "json"])).unwrap();
    assert_eq!(json["pages"], 2);
    let kinds: Vec<_> = (0..3).map(|index| json["entries"][index]["kind"].clone()).collect();
    assert_eq!(kinds, ["VCEK", "ASK", "ARK"]);
    assert_eq!(json["entries"][0]["tcb"], "bl3.tee0.snp20.ucode209");
    assert_eq!(json["entries"][0]["chip"].as_str().unwrap().len(), 128);
    assert_eq!(json["entries"][2]["simulated"], true);
    assert!(json["entries"][2].get("tcb").is_none());
}

#[test]
fn a_table_of_something_else_is_shown_with_the_problem() {
    let folder = Folder::new("certs-strange");
    let mut bytes = vec![7; 16];
    bytes.extend_from_slice(&[48, 0, 0, 0, 3, 0, 0, 0]);
    bytes.extend_from_slice(&[0; 24]);
    bytes.extend_from_slice(b"abc");
    let path = folder.file("certs.bin", bytes);
    let text = printed(0, &["show", &path]);
    assert!(text.contains("unknown  07070707-0707-0707-0707-070707070707, 3 bytes\n  problem  "), "{text}");
    let empty = folder.file("empty.bin", [0; 24]);
    assert!(printed(0, &["show", &empty]).contains("0 certificates in 24 bytes, which need 1 page"));
}

#[test]
fn a_chain_is_verified_against_the_root_the_report_and_the_tcb() {
    let (_folder, path) = table("verify", &MILAN);
    let (ark, report, other) = (data("milan-ark.der"), data("milan-report.bin"), data("turin-report.bin"));
    let trusted = ["verify", &path, "--root", &ark, "--allow-simulated"];
    let with = |status, more: &[&str]| printed(status, &[&trusted[..], more].concat());
    let text = printed(0, &trusted);
    assert!(
        text.starts_with(&format!("{path}: holds\nVCEK of Milan, TCB bl3.tee0.snp20.ucode209\n")),
        "{text}"
    );
    assert!(text.contains("note: the certificate of the ARK is SIMULATED"), "{text}");
    with(0, &["--report", &report, "--tcb", "bl3.tee0.snp20.ucode209"]);
    let text = with(1, &["--tcb", "bl3.tee0.snp21.ucode209"]);
    assert!(text.contains("does not hold: the certificate is for the TCB bl3.tee0.snp20.ucode209"), "{text}");
    assert!(with(1, &["--report", &other]).contains("the reported one is fmc1.bl1.tee1.snp4.ucode72"));
    let text = printed(1, &["verify", &path, "--root", &data("turin-ark.der"), "--allow-simulated"]);
    assert!(text.contains("is not the trusted one"), "{text}");
    let text = printed(1, &["verify", &path, "--root", &ark]);
    assert!(text.contains("SIMULATED and vouches for nothing"), "{text}");
    let shown: Value = serde_json::from_str(&printed(0, &["show", &path, "--format", "json"])).unwrap();
    let fingerprint = shown["entries"][2]["sha256"].as_str().unwrap();
    printed(0, &["verify", &path, "--root-sha256", fingerprint, "--allow-simulated", "--check-dates"]);
    let json = with(0, &["--report", &report, "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["holds"], &json["report"]["tcb"]), (&true.into(), &"bl3.tee0.snp20.ucode209".into()));
    assert_eq!(json["chains"][0]["root"], fingerprint);
}

#[test]
fn a_vlek_chain_is_verified_with_the_report_that_it_signed() {
    let (_folder, path) = table("vlek", &["milan-vlek.der", "milan-asvk.der", "milan-ark.der"]);
    let trusted = ["verify", &path, "--any-root", "--allow-simulated", "--report"];
    let text = printed(0, &[&trusted[..], &[&data("milan-vlek-report.bin")]].concat());
    assert!(text.contains("VLEK of Milan") && text.contains("  csp      SIMULATED"), "{text}");
    assert!(text.contains("note: any root was taken"), "{text}");
    printed(1, &[&trusted[..], &[&data("milan-report.bin")]].concat());
}

#[test]
fn what_does_not_hold_is_not_built_and_the_old_table_stays() {
    let (folder, path) = table("refuse", &MILAN);
    let before = std::fs::read(&path).unwrap();
    let [vcek, ask, ark] = MILAN.map(data);
    let mut forged = std::fs::read(&vcek).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    let forged = folder.file("forged.der", forged);
    let to = ["build", "-o", &path, "--root", &ark, "--allow-simulated"];
    for (files, reason) in [
        ([&forged, &ask, &ark], "the certificate of the VCEK is not signed by the one above it"),
        ([&data("turin-vcek.der"), &ask, &ark], "there is no certificate of the ASK"),
        ([&ask, &ask, &ark], "there is no certificate of the VCEK"),
    ] {
        let text = printed(1, &[&to[..], &files.map(String::as_str)].concat());
        assert!(text.starts_with("not written: ") && text.contains(reason), "{text}");
    }
    let strict = ["build", "-o", &path, "--root", &ark, &vcek, &ask, &ark];
    assert!(printed(1, &strict).contains("SIMULATED"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn every_mistake_is_one_line_with_status_2() {
    let (folder, path) = table("mistakes", &MILAN);
    let any = ["--any-root", "--allow-simulated"];
    let missing = format!("{}/missing", folder.path());
    let truncated = folder.file("truncated.bin", &std::fs::read(&path).unwrap()[..100]);
    let cases: &[(&[&str], &str)] = &[
        (&["show", &missing], "there is no file"),
        (&["show", folder.path()], "is a folder and not a regular file"),
        (&["show", "/dev/zero"], "is a device and not a regular file"),
        (&["show", &truncated], "is no certificate table"),
        (&["verify", &path], "which root is trusted?"),
        (&["verify", &path, "--root", &missing], "there is no file"),
        (&["verify", &path, "--root", &data("milan-ask.der")], "there is no ARK in it"),
        (&["verify", &path, "--root", &path], "not an X.509 certificate"),
        (&["verify", &path, "--root-sha256", "12"], "64 hex digits"),
        (&["verify", &path, any[0], "--report", &path], "reports of version"),
        (&["verify", &path, any[0], "--report", "/dev/zero"], "not a regular file"),
        (&["build", "-o", &path, any[0], "/dev/zero"], "not a regular file"),
        (&["build", "-o", &path, any[0], &truncated], "not an X.509 certificate"),
        (&["lock", &missing, "--", "true"], "there is no file"),
        (&["lock", &path, "--", "/no/such/command"], "cannot run /no/such/command"),
    ];
    for (arguments, text) in cases {
        let line = mistake(arguments, &exeunt(arguments));
        assert!(line.contains(text), "{arguments:?}: {line}");
    }
}

#[test]
fn a_locked_table_is_neither_read_nor_written_and_says_so_in_time() {
    let (_folder, path) = table("locked", &MILAN);
    let _lock = lock(&path);
    let files = MILAN.map(data);
    let mut build = vec!["build", "-o", &path, "--any-root", "--allow-simulated", "--timeout", "0"];
    build.extend(files.iter().map(String::as_str));
    let cases = [
        build,
        vec!["show", &path, "--timeout", "0"],
        vec!["verify", &path, "--any-root", "--timeout", "0"],
        vec!["lock", &path, "--timeout", "0", "--", "true"],
    ];
    for arguments in cases {
        let line = mistake(&arguments, &exeunt(&arguments));
        assert!(line.contains("was locked by another for"), "{line}");
        assert!(line.contains("--timeout waits longer"), "{line}");
    }
}

#[test]
fn a_command_under_the_lock_passes_on_its_status_and_its_signal() {
    let (_folder, path) = table("status", &MILAN);
    for status in [0, 1, 7, 255] {
        let command = format!("exit {status}");
        assert_eq!(exeunt(&["lock", &path, "--", "sh", "-c", &command]).status.code(), Some(status));
    }
    assert_eq!(exeunt(&["lock", &path, "--", "sh", "-c", "kill -TERM $$"]).status.signal(), Some(15));
    assert_eq!(stdout(&exeunt(&["lock", &path, "--", "printf", "%s", "--help"])), "--help");
    drop(lock(&path));
}

#[test]
fn the_lock_lasts_until_all_that_the_command_started_has_ended() {
    let (folder, path) = table("killed", &MILAN);
    let started = format!("{}/started", folder.path());
    let script = format!("touch {started}; sleep 5");
    // The shell starts `sleep` as a process of its own, which holds the lock as well.
    let mut child = Command::new(env!("CARGO_BIN_EXE_exeunt"))
        .args(["certs", "lock", &path, "--", "sh", "-c", &script])
        .spawn()
        .unwrap();
    while !Path::new(&started).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    mistake(&["show"], &exeunt(&["show", &path, "--timeout", "0"]));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(exeunt(&["show", &path, "--timeout", "0"]).status.code() == Some(2), "`sleep` holds it");
}

#[test]
fn a_table_is_built_under_the_lock_of_the_command_around_it() {
    let (_folder, path) = table("around", &MILAN);
    let exe = env!("CARGO_BIN_EXE_exeunt");
    let [vcek, ask, ark] = ["turin-vcek.der", "turin-ask.der", "turin-ark.der"].map(data);
    let script = format!(
        "{exe} certs build -o {path} --timeout 0 --any-root --allow-simulated {vcek} {ask} {ark} && \
         {exe} certs show {path} --timeout 0"
    );
    let text = printed(0, &["lock", &path, "--", "sh", "-c", &script]);
    assert!(text.contains("product  Turin"), "{text}");
    // When nobody holds the lock any more, the value in the environment is worth nothing: the reader is waited for.
    let held = Held::by(&lock(&path)).to_value();
    let _reader = hold(&path, Mode::Shared);
    let output = Command::new(exe)
        .args(["certs", "build", "-o", &path, "--timeout", "0", "--any-root", "--allow-simulated"])
        .args(MILAN.map(data))
        .env(Held::VARIABLE, held)
        .output()
        .unwrap();
    assert!(mistake(&["build"], &output).contains("was locked by another"));
}
