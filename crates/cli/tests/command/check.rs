//! `exeunt check`: who is judged, by what, and with which exit status.

use crate::{exeunt, mistake, stdout};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

fn document(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = exeunt(&[&["check", "--format", "json"], arguments].concat());
    (output.status.code(), serde_json::from_str(&stdout(&output)).unwrap())
}

/// Rule and scene of all verdicts.
fn verdicts(document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let rules = document["rules"].as_array().unwrap().iter();
    rules
        .flat_map(|rule| {
            let scenes = rule["scenes"].as_array().unwrap().iter();
            scenes.map(|scene| (text(&rule["id"]), text(&scene["scene"])))
        })
        .collect()
}

#[test]
fn our_half_is_judged_by_all_rules_in_less_than_5_seconds_and_breaks_none() {
    let started = Instant::now();
    let output = exeunt(&["check"]);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(output.status.code(), Some(0));
    let rules = exeunt_check::rules::all().count();
    let text = stdout(&output);
    let expected = format!("exeunt's VMM half: {rules} passed, 0 failed, 0 warned, 0 not exercised; ");
    assert!(text.lines().last().unwrap().starts_with(&expected), "{text}");
    assert!(output.stderr.is_empty(), "no progress where nobody looks at a terminal");
}

#[test]
fn our_half_passes_with_other_seeds_and_on_each_kernel() {
    for arguments in
        [["--seed", "7"], ["--dialect", "linux-5.17"], ["--dialect", "linux-7.2"], ["--rule", "td"]]
    {
        let (status, document) = document(&arguments);
        assert_eq!(status, Some(0), "{arguments:?}");
        assert_eq!(document["summary"]["failed"], 0, "{arguments:?}");
        assert_ne!(document["summary"]["passed"], 0, "{arguments:?}");
    }
}

#[test]
fn a_wrong_vmm_fails_by_the_rule_that_it_breaks_and_the_line_that_shows_it_again_does() {
    let output = exeunt(&["check", "--rule", "hc", "--vmm", "negative-errno", "--seed", "5"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL HC-2 MUST: ") && text.contains(", 1 failed, 0 warned"), "{text}");
    assert!(text.contains("eaffffffffffffff"), "the bytes of the answer: {text}");
    let again = text.lines().find_map(|line| line.strip_prefix("  again      exeunt ")).unwrap();
    assert_eq!(again, "check --rule HC-2 --scene conversion-that-fails --seed 5 --vmm negative-errno");
    let again = exeunt(&again.split(' ').collect::<Vec<_>>());
    assert_eq!(again.status.code(), Some(1));
    let block = |text: &str| text.split("\n\n").next().unwrap().to_string();
    assert_eq!(block(&stdout(&again)), block(&text));
}

#[test]
fn a_broken_should_warns_and_does_not_fail() {
    let output = exeunt(&["check", "--rule", "HC-8", "--vmm", "discards-nothing"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("0 failed, 1 warned"));
}

#[test]
fn a_rule_that_nothing_drove_to_is_not_exercised_and_says_why_and_alone_it_is_no_success() {
    let (status, whole) = document(&["--vmm", "certificates-by-the-posting"]);
    assert_eq!(status, Some(1));
    let rule = whole["rules"].as_array().unwrap().iter().find(|rule| rule["id"] == "RC-7").unwrap();
    assert_eq!(rule["verdict"], "not-exercised");
    let why = rule["scenes"][0]["why"].as_str().unwrap();
    assert!(why.starts_with("the VMM did not get to where the rule bites: "), "{why}");
    let output = exeunt(&["check", "--vmm", "certificates-by-the-posting", "--rule", "RC-7"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&output).contains("0 passed, 0 failed, 0 warned, 1 not exercised"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing is known"));
}

#[test]
fn the_demo_shows_a_pass_and_five_catches() {
    let output = exeunt(&["check", "--demo"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("pass  our own VMM half: "), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("caught  ")).count(), 5, "{text}");
    assert!(
        text.lines().any(|line| line.starts_with("FAIL "))
            && text.lines().any(|line| line.starts_with("WARN "))
    );
    for line in text.lines().filter_map(|line| line.strip_prefix("  again      exeunt ")) {
        let again = exeunt(&line.split(' ').collect::<Vec<_>>());
        let shown = stdout(&again);
        assert!(shown.starts_with("FAIL ") || shown.starts_with("WARN "), "{line}: {shown}");
    }
}

#[test]
fn the_shards_of_a_check_have_each_verdict_once() {
    let whole = verdicts(&document(&[]).1);
    let scenes = exeunt_check::judge::scenes().count();
    for count in [1, 2, 3, 7, scenes, scenes + 1] {
        let mut parts = Vec::new();
        for index in 1..=count {
            let (status, part) = document(&["--shard", &format!("{index}/{count}")]);
            assert_eq!(status, Some(0), "{index}/{count}");
            parts.extend(verdicts(&part));
        }
        assert_eq!(parts.len(), whole.len(), "{count}");
        assert_eq!(BTreeSet::from_iter(parts), BTreeSet::from_iter(whole.clone()), "{count}");
    }
}

#[test]
fn a_shard_is_the_same_whatever_the_seed_is() {
    let first = verdicts(&document(&["--shard", "2/3"]).1);
    assert_eq!(first, verdicts(&document(&["--shard", "2/3", "--seed", "99"]).1));
}

#[test]
fn a_list_names_what_would_be_played_and_plays_nothing() {
    let output = exeunt(&["check", "--list", "--rule", "HC-2", "--rule", "se"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text.lines().any(|line| line.starts_with("conversion-that-fails ") && line.ends_with(" HC-2")),
        "{text}"
    );
    assert!(!text.contains("RC-") && !text.contains("HC-3"), "{text}");
    let rows: Value =
        serde_json::from_str(&stdout(&exeunt(&["check", "--list", "--format", "json", "--shard", "1/2"])))
            .unwrap();
    assert_eq!(rows.as_array().unwrap().len(), exeunt_check::judge::scenes().count().div_ceil(2));
    assert!(rows.as_array().unwrap().iter().all(|row| row["scene"].is_string() && row["rules"].is_array()));
}

#[test]
fn profiles_are_listed_and_those_that_nobody_tried_say_so() {
    let text = stdout(&exeunt(&["check", "--profiles"]));
    let line = |name: &str| text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
    assert!(line("kvmtool").contains("untested"), "{text}");
    let rows: Value =
        serde_json::from_str(&stdout(&exeunt(&["check", "--profiles", "--format", "json"]))).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), text.lines().count());
}

#[test]
fn a_mistake_is_one_line_that_names_it() {
    for (arguments, part) in [
        (vec!["--rule", "XX-1"], "no rule is named 'XX-1'"),
        (vec!["--rule", "HC-99"], "no rule is named 'HC-99'"),
        (vec!["--rule", "a\u{1b}[2Jb"], r"no rule is named 'a\u{1b}[2Jb'"),
        (vec!["--scene", "nowhere"], "no scene is named 'nowhere'"),
        (vec!["--rule", "SE-1", "--scene", "conversion-that-fails"], "no scene is left"),
        (vec!["--rule", "RC", "--dialect", "linux-5.10"], "no scene is left"),
        (vec!["--vmm", "perfect"], "no VMM is named 'perfect'"),
        (vec!["--stage", "scripted"], "--stage is for a VMM"),
        (vec!["--via", "shim"], "--via is for a VMM"),
        (vec!["--timeout", "5"], "--timeout is for a VMM"),
        (vec!["--profile", "nobody"], "nobody"),
        (vec!["--profile", "/nowhere/mine.toml", "--", "true"], "/nowhere/mine.toml"),
    ] {
        let arguments = [&["check"], arguments.as_slice()].concat();
        let text = mistake(&arguments, &exeunt(&arguments));
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn options_that_make_no_sense_are_refused_with_what_would() {
    for (arguments, part) in [
        (vec!["--shard", "0/0"], "a shard is I/N"),
        (vec!["--shard", "3/2"], "a shard is I/N"),
        (vec!["--shard", "1"], "a shard is I/N"),
        (vec!["--dialect", "linux-1.0"], "there are linux-5.10"),
        (vec!["--stage", "theatre"], "observe"),
        (vec!["--seed=-1"], "--seed"),
        (vec!["--timeout", "0", "--", "true"], "--timeout"),
        (vec!["--vmm", "negative-errno", "--", "true"], "cannot be used with"),
        (vec!["--demo", "--format", "json"], "cannot be used with"),
        (vec!["qemu"], "'qemu'"),
    ] {
        let output = exeunt(&[&["check"], arguments.as_slice()].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod foreign {
    use super::*;
    use crate::Folder;
    use rustix::process::{Pid, Signal, kill_process};
    use std::process::{Command, Stdio};

    #[test]
    fn what_cannot_be_a_vmm_is_a_mistake_and_no_verdict() {
        let folder = Folder::new("check-foreign");
        let script = folder.file("vmm", "#!/bin/sh\nexit 0\n");
        for (command, part) in [
            ("/nowhere/vmm", "/nowhere/vmm"),
            ("no-such-program-anywhere", "no-such-program-anywhere"),
            (folder.path(), folder.path()),
            (script.as_str(), "may not be executed"),
            ("true", "made no VM"),
            ("false", "made no VM"),
        ] {
            let arguments = ["check", "--scene", "unknown-event", "--", command];
            let text = mistake(&arguments, &exeunt(&arguments));
            assert!(text.contains(part), "{command}: {text}");
        }
    }

    #[test]
    fn a_scene_that_there_is_not_and_a_rule_without_a_scene_are_mistakes() {
        for arguments in [["--scene", "nowhere"], ["--rule", "XX-1"]] {
            let arguments = [&["check"], arguments.as_slice(), &["--", "true"]].concat();
            mistake(&arguments, &exeunt(&arguments));
        }
    }

    #[test]
    fn a_list_says_which_scenes_would_not_be_played_and_why() {
        let text = stdout(&exeunt(&["check", "--list", "--stage", "scripted", "--", "true", "argument"]));
        assert!(
            text.lines().any(|line| line.starts_with("unknown-event ") && line.contains(" scripted ")),
            "{text}"
        );
        let place = text.lines().position(|line| line.starts_with("event-with-flag ")).unwrap();
        let why = text.lines().nth(place + 1).unwrap();
        assert!(why.starts_with("  not played: ") && why.contains("another architecture"), "{why}");
    }

    #[test]
    fn an_interrupt_ends_the_vmm_and_the_check_and_the_report_says_that_it_is_not_whole() {
        let folder = Folder::new("check-interrupt");
        let page = format!("{}/r.html", folder.path());
        let json = format!("{}/out.json", folder.path());
        // Nobody else sleeps for so long.
        let seconds = format!("86{}", std::process::id());
        let mut check = Command::new(env!("CARGO_BIN_EXE_exeunt"))
            .args(["check", "--format", "json", "--html", &page, "--", "sleep", &seconds])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&json).unwrap())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_running(&seconds) {
            assert!(Instant::now() < deadline, "the VMM is not started");
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_process(Pid::from_child(&check), Signal::INT).unwrap();
        assert_eq!(check.wait().unwrap().code(), Some(130));
        assert!(!is_running(&seconds), "an orphan");
        let document: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
        assert_eq!(document["complete"], false);
        assert!(document["cut_short"].as_str().unwrap().starts_with("interrupted after 0 of "));
        assert!(std::fs::read_to_string(&page).unwrap().contains("This is not all that was to be judged"));
    }

    /// Whether a `sleep` with this argument lives.
    fn is_running(seconds: &str) -> bool {
        let argument = format!("\0{seconds}\0");
        let is_it = |entry: std::fs::DirEntry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.starts_with(b"sleep\0") && String::from_utf8_lossy(&line).ends_with(&argument)
        };
        std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(is_it)
    }
}
