use super::*;

#[test]
fn worlds_without_faults_end_and_break_no_rule() {
    let config = Config { faults: false, ..Config::default() };
    for seed in 0..60 {
        let outcome = explore(seed, &config).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!((outcome.faults, outcome.ended_by_faults), (0, 0));
    }
}

#[test]
fn worlds_with_faults_break_no_rule_and_meet_faults() {
    let outcomes: Vec<_> = (0..120)
        .map(|seed| explore(seed, &Config::default()).unwrap_or_else(|violation| panic!("{violation}")))
        .collect();
    assert!(outcomes.iter().any(|outcome| outcome.faults > 10));
    assert!(outcomes.iter().any(|outcome| outcome.faults == 0));
    assert!(outcomes.iter().any(|outcome| outcome.vcpus == 4));
}

#[test]
fn the_seed_decides_the_trace() {
    for seed in 0..20 {
        let [first, second] = [0; 2].map(|_| explore(seed, &Config::default()));
        assert_eq!(first, second, "seed {seed}");
    }
    let traces: std::collections::BTreeSet<_> = (0..20)
        .map(|seed| explore(seed, &Config::default()).map(|outcome| outcome.trace))
        .filter_map(Result::ok)
        .collect();
    assert_eq!(traces.len(), 20, "no two seeds have one trace");
}

#[test]
fn reports_are_asked_for_while_the_firmware_is_updated_and_always_fit_their_certificates() {
    let outcomes: Vec<_> = (0..160)
        .map(|seed| explore(seed, &Config::default()).unwrap_or_else(|violation| panic!("{violation}")))
        .collect();
    let attesting: Vec<_> = outcomes.iter().filter(|outcome| outcome.reports > 0).collect();
    assert!(attesting.len() > 8, "{}", attesting.len());
    assert!(attesting.iter().all(|outcome| outcome.updates > 3), "{attesting:?}");
}

#[test]
fn each_canary_is_caught() {
    for canary in Canary::ALL {
        let config = Config { faults: false, acts: 80, canary: Some(canary), ..Config::default() };
        // Only worlds with reports can show that certificates do not fit, one in eight.
        let (worlds, least) = if canary == Canary::TakesNoLock { (80, 5) } else { (20, 15) };
        let caught = (0..worlds).filter(|seed| explore(*seed, &config).is_err()).count();
        assert!(caught >= least, "{}: {caught} of {worlds} worlds", canary.name());
        assert_eq!(Canary::from_name(canary.name()), Some(canary));
    }
    assert_eq!(Canary::from_name("yellow"), None);
}

#[test]
fn an_older_kernel_is_explored_as_well() {
    let config = Config { dialect: Dialect::Linux6_12, ..Config::default() };
    for seed in 0..40 {
        explore(seed, &config).unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[test]
fn a_kernel_without_snp_is_refused_with_the_reason() {
    let config = Config { dialect: Dialect::Linux6_1, ..Config::default() };
    let violation = explore(1, &config).unwrap_err();
    assert!(violation.to_string().contains("KVM_CREATE_VM failed with EINVAL"), "{violation}");
}

#[test]
fn a_sweep_finds_the_same_on_any_number_of_threads() {
    let config = Config { canary: Some(Canary::LosesAWord), ..Config::default() };
    let summary = |jobs| sweep(7, 40, jobs, &config, &|_| {});
    let one = summary(1);
    assert_eq!(one, summary(4));
    assert_eq!(one.worlds, 40);
    assert!(one.broken > 16 && one.violations.len() == 16, "{} broken", one.broken);
    assert!(one.violations.iter().all(|violation| violation.what.contains("word")), "{:?}", one.violations);
}
