//! `exeunt rules`.

use crate::{exeunt, mistake, stdout};
use std::collections::BTreeSet;

fn printed(arguments: &[&str]) -> String {
    let output = exeunt(&[&["rules"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    stdout(&output)
}

#[test]
fn all_are_listed_one_line_each_and_a_group_is_a_part_of_them() {
    let all = printed(&[]);
    assert_eq!(all.lines().count(), exeunt_check::rules::all().count());
    let group = printed(&["hc"]);
    assert_eq!(group.lines().count(), 15);
    assert!(group.lines().all(|line| line.starts_with("HC-") && all.contains(line)), "{group}");
}

#[test]
fn one_is_shown_with_source_release_proposals_and_scenarios() {
    let text = printed(&["rc-3"]);
    for part in ["RC-3 MUST: ret is one of 0", "svm/sev.c", "Linux 7.0", "coco-v1", "scenario  certs-"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn json_has_the_same_rules_and_a_dialect_leaves_out_those_that_do_not_hold() {
    let ids = |arguments: &[&str]| -> BTreeSet<String> {
        let rules: serde_json::Value = serde_json::from_str(&printed(arguments)).unwrap();
        let rules = rules.as_array().unwrap().iter();
        rules.map(|rule| rule["id"].as_str().unwrap().to_string()).collect()
    };
    let all = ids(&["--format", "json"]);
    assert_eq!(all.len(), exeunt_check::rules::all().count());
    let old = ids(&["--format", "json", "--dialect", "linux-5.10"]);
    assert!(old.contains("RN-1") && !old.contains("RC-3") && old.is_subset(&all));
}

#[test]
fn an_id_that_is_none_or_does_not_hold_is_a_mistake() {
    let arguments = ["rules", "XX-1"];
    let unknown = mistake(&arguments, &exeunt(&arguments));
    assert!(unknown.contains("no rule is named 'XX-1'"), "{unknown}");
    let arguments = ["rules", "RC-3", "--dialect", "coco-v1"];
    let old = mistake(&arguments, &exeunt(&arguments));
    assert!(old.contains("'RC-3' does not hold for coco-v1"), "{old}");
}

#[test]
fn every_wrong_vmm_is_listed_with_the_rules_that_it_breaks() {
    let all = printed(&["--vmms"]);
    assert_eq!(all.lines().count(), exeunt_check::judge::wrong_vmms().count());
    let some = printed(&["TD-3", "--vmms"]);
    assert!(some.lines().count() < 5 && some.lines().all(|line| line.contains(" TD-3 ")), "{some}");
}

/// What looks like the id of a rule.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| {
        word.split_once('-').is_some_and(|(group, number)| {
            matches!(group, "SE" | "HC" | "MF" | "RC" | "TF" | "TD" | "RN" | "AB")
                && number.parse::<u8>().is_ok()
        })
    })
}

#[test]
fn every_rule_that_explain_names_is_there() {
    let mut named = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/explain")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        for id in ids(&std::fs::read_to_string(&path).unwrap()) {
            assert!(exeunt_check::rules::find(id).is_some(), "{}: {id}", path.display());
            named += 1;
        }
    }
    assert!(named > 50, "{named}");
}
