//! Unmodified QEMUs before the judge: what `docs/findings.md` says of them is seen, and nothing else.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use exeunt_check::foreign::{Choice, Profile, Stage, Subject, judge};
use exeunt_check::judge::{Judged, Verdict};
use exeunt_check::profile::ProfileError;
use exeunt_check::rules;
use exeunt_linux::{print_skip, probe};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The QEMU that is installed, and the one that `cargo xtask foreign-vmm` fetched.
fn programs() -> Vec<OsString> {
    let fetched = std::env::var_os("HOME").map(|home| {
        Path::new(&home).join(".cache/exeunt/qemu-snp/usr/bin/qemu-system-x86_64").into_os_string()
    });
    fetched.into_iter().chain(["qemu-system-x86_64".into()]).collect()
}

/// What came of the rules with each QEMU that can be started by a profile.
fn judged(profile: &str, stage: Stage) -> Vec<Vec<Judged>> {
    let profile = Profile::load(profile).unwrap();
    let mut all = Vec::new();
    for program in programs() {
        match profile.command(Some(&program), &[]) {
            Ok(_) if profile.probe.is_none() || suits(&profile, &program) => {}
            Err(ProfileError::NoFile { .. } | ProfileError::NoProgram { .. }) | Ok(_) => continue,
            Err(error) => panic!("{error}"),
        }
        let subject = Subject { command: vec![program], profile: Some(profile.clone()), via: None };
        let choice = Choice {
            rules: rules::all().map(|rule| rule.id.as_str()).collect(),
            dialect: None,
            stage: Some(stage),
            scene: None,
            seed: 0,
            timeout: Duration::from_secs(20),
            shard: None,
            stop: Arc::new(AtomicBool::new(false)),
        };
        all.push(judge(&subject, &choice, &mut |_| {}).unwrap());
    }
    if all.is_empty() {
        print_skip(&format!("the profile {}", profile.name), "no QEMU here suits it");
    }
    all
}

fn suits(profile: &Profile, program: &OsString) -> bool {
    let chosen = exeunt_check::profile::for_program(Path::new(program), Some(Stage::Scripted));
    chosen.is_some_and(|chosen| chosen == *profile)
}

fn ids(judged: &[Judged], is: impl Fn(&Verdict) -> bool) -> BTreeSet<&'static str> {
    judged.iter().filter(|judged| is(&judged.verdict)).map(|judged| judged.rule).collect()
}

fn broken(judged: &[Judged]) -> BTreeSet<&'static str> {
    ids(judged, |verdict| matches!(verdict, Verdict::Failed(_)))
}

fn passed(judged: &[Judged]) -> BTreeSet<&'static str> {
    ids(judged, |verdict| matches!(verdict, Verdict::Passed))
}

#[test]
fn an_ordinary_run_of_qemu_breaks_no_rule() {
    if let Err(reason) = probe() {
        print_skip("ordinary runs of QEMU", reason);
        return;
    }
    for judged in judged("qemu", Stage::Observe) {
        assert_eq!(broken(&judged), BTreeSet::new(), "{judged:#?}");
        assert!(!passed(&judged).is_empty(), "{judged:#?}");
    }
}

#[test]
fn qemu_between_the_exits_of_the_real_kernel_breaks_only_what_is_known_of_it() {
    if let Err(reason) = probe() {
        print_skip("QEMU under overlay", reason);
        return;
    }
    for judged in judged("qemu", Stage::Overlay) {
        assert_eq!(broken(&judged), BTreeSet::from(["RN-1", "SE-4"]), "{judged:#?}");
    }
}

#[test]
fn qemu_with_a_plain_guest_of_the_model_breaks_only_what_is_known_of_it() {
    for judged in judged("qemu", Stage::Scripted) {
        assert_eq!(broken(&judged), BTreeSet::from(["RN-1", "SE-4"]), "{judged:#?}");
        assert!(passed(&judged).contains("RN-4"), "{judged:#?}");
    }
}

#[test]
fn qemu_with_an_snp_guest_breaks_only_what_is_known_of_it() {
    for judged in judged("qemu-snp", Stage::Scripted) {
        let mut broken = broken(&judged);
        // Whether two threads meet depends on time.
        broken.remove("HC-13");
        assert_eq!(broken, BTreeSet::from(["HC-3", "HC-5"]), "{judged:#?}");
        let passed = passed(&judged);
        for rule in ["HC-1", "HC-4", "HC-6", "HC-8", "HC-9", "HC-10", "HC-11", "HC-12", "RN-2"] {
            assert!(passed.contains(rule), "{rule}: {judged:#?}");
        }
        for rule in ["MF-1", "MF-2", "MF-4", "MF-5", "MF-6"] {
            assert!(passed.contains(rule), "{rule}: {judged:#?}");
        }
    }
}

#[test]
fn qemu_with_an_sev_es_guest_breaks_no_rule() {
    for judged in judged("qemu-sev-es", Stage::Scripted) {
        assert_eq!(broken(&judged), BTreeSet::new(), "{judged:#?}");
        assert!(passed(&judged).contains("HC-15"), "{judged:#?}");
    }
}
