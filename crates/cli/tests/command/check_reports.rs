//! The reports of `exeunt check` in files: whole or not there, and a file that cannot be written is found first.

use crate::{Folder, exeunt, mistake, stdout};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Output, Stdio};

const WRONG: [&str; 3] = ["check", "--vmm", "negative-errno"];

fn names(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn all_reports_of_one_check_are_written_and_nothing_else_is_left() {
    let folder = Folder::new("check-reports");
    let path = |name: &str| format!("{}/{name}", folder.path());
    let [junit, sarif, html] = ["r.xml", "r.sarif", "r.html"].map(path);
    fs::write(&html, "old").unwrap();
    let output =
        exeunt(&[WRONG.as_slice(), &["--junit", &junit, "--sarif", &sarif, "--html", &html]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(names(&folder), ["r.html", "r.sarif", "r.xml"]);
    let xml = fs::read_to_string(&junit).unwrap();
    assert!(xml.starts_with("<?xml ") && xml.trim_end().ends_with("</testsuites>"));
    assert!(xml.contains(r#"<testcase classname="HC-2" name="conversion-that-fails""#));
    let log: serde_json::Value = serde_json::from_str(&fs::read_to_string(&sarif).unwrap()).unwrap();
    assert_eq!(log["runs"][0]["results"][0]["ruleId"], "HC-2");
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
}

#[test]
fn a_file_that_cannot_be_written_is_found_before_anything_runs() {
    let folder = Folder::new("check-unwritable");
    let inside = folder.file("file", "x");
    for path in [
        "/nowhere/at/all.xml".to_string(),
        folder.path().to_string(),
        format!("{inside}/below.xml"),
        "/proc/exeunt.xml".to_string(),
        ".".to_string(),
        "a\u{1b}[2J/b.xml".to_string(),
    ] {
        for option in ["--junit", "--sarif", "--html"] {
            let arguments = [WRONG.as_slice(), &[option, &path]].concat();
            // With nothing on standard output: it was not judged.
            let text = mistake(&arguments, &exeunt(&arguments));
            assert!(text.contains("cannot write ") && !text.contains('\u{1b}'), "{text}");
        }
    }
    assert_eq!(names(&folder), ["file"]);
}

#[test]
fn a_folder_or_file_without_the_right_to_write_is_found_before_anything_runs() {
    let folder = Folder::new("check-rights");
    let file = folder.file("closed/report.xml", "old");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(format!("{}/closed", folder.path()), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(&file, "old").is_ok() {
        println!("skipped: this user may write everywhere");
        return;
    }
    for path in [file.clone(), format!("{}/closed/new.xml", folder.path())] {
        let arguments = [WRONG.as_slice(), &["--junit", &path]].concat();
        let text = mistake(&arguments, &exeunt(&arguments));
        assert!(text.contains("Permission denied"), "{text}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_half_report() {
    let arguments = [WRONG.as_slice(), &["--html", "/dev/full"]].concat();
    let text = not_written(&exeunt(&arguments));
    assert!(text.contains("cannot write /dev/full: No space left on device"), "{text}");
    let output = Command::new(env!("CARGO_BIN_EXE_exeunt"))
        .args(WRONG)
        .stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));

    let folder = Folder::new("check-full");
    let mounted = format!("{}/disk", folder.path());
    fs::create_dir(&mounted).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=16k", "exeunt-check", &mounted];
    let mount = Command::new("mount").args(mount).stderr(Stdio::null()).status();
    if !mount.is_ok_and(|status| status.success()) {
        println!("skipped: a small disk cannot be mounted here");
        return;
    }
    let report = format!("{mounted}/r.html");
    fs::write(&report, "old").unwrap();
    let arguments = [WRONG.as_slice(), &["--html", &report]].concat();
    let output = exeunt(&arguments);
    let left = fs::read_to_string(&report);
    let entries = fs::read_dir(&mounted).unwrap().count();
    assert!(Command::new("umount").arg(&mounted).status().unwrap().success());
    let text = not_written(&output);
    assert!(text.contains("No space left on device"), "{text}");
    assert_eq!((left.unwrap().as_str(), entries), ("old", 1));
}

/// What is said of a report that cannot be written. The verdicts are on the terminal all the same.
fn not_written(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{text}");
    assert!(stdout(output).contains("negative-errno: 54 passed, 1 failed"), "{}", stdout(output));
    text
}

#[test]
fn two_reports_are_not_written_to_one_file() {
    let folder = Folder::new("check-twice");
    let path = folder.file("r", "old");
    let link = format!("{}/link", folder.path());
    symlink(&path, &link).unwrap();
    for other in [path.clone(), link, format!("{}/./r", folder.path())] {
        let arguments = [WRONG.as_slice(), &["--junit", &path, "--html", &other]].concat();
        let text = mistake(&arguments, &exeunt(&arguments));
        assert!(text.contains("two reports would be one file"), "{text}");
    }
}

#[test]
fn a_link_stays_a_link_and_a_stream_stays_a_stream() {
    let folder = Folder::new("check-link");
    let path = folder.file("r.xml", "old");
    let link = format!("{}/link.xml", folder.path());
    symlink(&path, &link).unwrap();
    exeunt(&[WRONG.as_slice(), &["--junit", &link]].concat());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&path).unwrap().starts_with("<?xml "));
    let output = exeunt(&[WRONG.as_slice(), &["--quiet", "--junit", "/dev/stdout"]].concat());
    assert!(stdout(&output).starts_with("<?xml "), "{}", stdout(&output));
    exeunt(&[WRONG.as_slice(), &["--junit", "/dev/null"]].concat());
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn quiet_prints_what_was_broken_and_nothing_where_nothing_was() {
    let text = stdout(&exeunt(&[WRONG.as_slice(), &["-q"]].concat()));
    assert!(text.starts_with("FAIL HC-2 ") && !text.contains("passed"), "{text}");
    assert_eq!(stdout(&exeunt(&["check", "-q"])), "");
}
