//! `exeunt explore`.

use crate::{exeunt, mistake, stdout};

#[test]
fn worlds_run_and_the_summary_says_how_many() {
    let output = exeunt(&["explore", "--seeds", "20", "--jobs", "2"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("20 worlds, ") && text.contains(", 0 worlds broke a rule ("), "{text}");
}

#[test]
fn a_canary_is_caught_and_the_line_that_shows_it_again_does() {
    let canary = ["explore", "--seeds", "40", "--canary", "converts-too-much", "--acts", "60"];
    let output = exeunt(&canary);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let again = text.lines().find_map(|line| line.strip_prefix("  again: exeunt ")).unwrap();
    let arguments: Vec<&str> = again.split(' ').collect();
    let first = text.lines().next().unwrap();
    let repeated = exeunt(&arguments);
    assert_eq!(repeated.status.code(), Some(1));
    assert_eq!(stdout(&repeated).lines().next(), Some(first));
}

#[test]
fn json_says_the_same_whatever_the_number_of_threads() {
    let of = |jobs| stdout(&exeunt(&["explore", "--seeds", "30", "--format", "json", "--jobs", jobs]));
    let one = of("1");
    assert_eq!(one, of("3"));
    let summary: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!((summary["worlds"].as_u64(), summary["broken"].as_u64()), (Some(30), Some(0)));
    assert!(summary["faults"].as_u64() > Some(0));
}

#[test]
fn a_mistake_is_one_line_and_status_2() {
    let old = ["explore", "--dialect", "linux-6.1"];
    assert!(mistake(&old, &exeunt(&old)).contains("no SNP guests"));
    for wrong in [
        &["explore", "--canary", "yellow"][..],
        &["explore", "--vcpus", "0"],
        &["explore", "--jobs", "0"],
        &["explore", "--seeds", "many"],
    ] {
        let output = exeunt(wrong);
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), String::new()), "{wrong:?}");
    }
}
