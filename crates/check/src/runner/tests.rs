use super::*;
use crate::report::{Summary, scenario_text};
use crate::scenario::{NAMES, shipped};

fn on_model(name: &str, seed: u64) -> ScenarioReport {
    run(&shipped(name).unwrap(), &Options { seed, ..Options::default() })
}

#[test]
fn every_shipped_scenario_passes_on_the_model_with_any_seed() {
    for name in NAMES {
        for seed in 0..8 {
            let report = on_model(name, seed);
            for case in &report.cases {
                assert_eq!(case.verdict, Verdict::Passed, "{name}, seed {seed}, case '{}'", case.title);
            }
        }
    }
}

#[test]
fn the_seed_decides_every_byte_of_the_timeline() {
    for name in NAMES {
        assert_eq!(scenario_text(&on_model(name, 7)), scenario_text(&on_model(name, 7)));
    }
    let order = |seed| scenario_text(&on_model("page-state-change", seed));
    assert!((0..8).any(|seed| order(seed) != order(8)), "two vCPUs run in another order");
}

#[test]
fn an_expectation_that_is_not_met_fails_the_case() {
    let mut scenario = shipped("plain-exits").unwrap();
    scenario.cases[0].expect.end = Some("shutdown".into());
    let report = run(&scenario, &Options::default());
    assert!(matches!(&report.cases[0].verdict, Verdict::Failed { unmet } if unmet.len() == 1));
    let mut summary = Summary::default();
    summary.add(&report);
    assert_eq!((summary.failed, summary.ran()), (1, report.cases.len()));
}

#[test]
fn another_dialect_runs_and_is_not_judged_or_says_what_it_lacks() {
    let options = Options { dialect: Some(Dialect::Linux6_1), ..Options::default() };
    let report = run(&shipped("plain-exits").unwrap(), &options);
    assert!(report.cases.iter().all(|case| matches!(case.verdict, Verdict::NotJudged { .. })));
    let report = run(&shipped("page-state-change").unwrap(), &options);
    let Verdict::Skipped { reason } = &report.cases[0].verdict else {
        panic!("{:?}", report.cases[0].verdict)
    };
    assert!(reason.contains("linux-6.1 has no VM of type snp"), "{reason}");
}

#[test]
fn without_the_capability_only_the_lost_event_is_shown() {
    let options = Options { without_capability: true, ..Options::default() };
    let report = run(&shipped("triple-fault-migration").unwrap(), &options);
    assert_eq!(report.cases.len(), 2, "a release, and the proposal that reports nothing");
    assert!(report.cases.iter().all(|case| case.verdict == Verdict::Passed));
    assert_eq!(scenario_text(&report).matches("never learns of the triple fault").count(), 2);
}

#[test]
fn a_guest_that_never_ends_is_cut_off() {
    let mut scenario = shipped("plain-exits").unwrap();
    scenario.cases.truncate(1);
    scenario.cases[0].guest = "hyperv-reset".into();
    scenario.cases[0].reset = exeunt::policy::EventPolicy::Ignore;
    scenario.cases[0].expect = crate::scenario::Expect::default();
    let report = run(&scenario, &Options::default());
    assert_eq!(
        report.cases[0].end.as_ref().map(|end| end.keyword),
        Some("halted"),
        "an ignored reset runs on"
    );
    scenario.cases[0].guest = "spin".into();
    scenario.cases[0].interrupts = (1..20_000).collect();
    let report = run(&scenario, &Options::default());
    assert_eq!(report.cases[0].end.as_ref().map(|end| end.keyword), Some("no-progress"));
    assert_eq!(report.cases[0].exits, 10_000);
}
