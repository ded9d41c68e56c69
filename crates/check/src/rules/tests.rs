use super::*;
use std::collections::BTreeSet;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rules.md");

#[test]
fn every_rule_is_complete_and_no_id_is_used_twice() {
    let sections = parse(TEXT).unwrap();
    let rules: Vec<_> = sections.iter().flat_map(|section| &section.rules).collect();
    assert_eq!(rules.len(), 55);
    assert_eq!(rules.iter().map(|rule| &rule.id).collect::<BTreeSet<_>>().len(), rules.len());
    for Rule { id, text, source, scenarios, .. } in rules {
        assert!(!text.is_empty() && !source.is_empty() && !scenarios.is_empty(), "{id}");
        let (group, number) = id.split_once('-').unwrap();
        assert!(group.len() == 2 && number.parse::<u8>().is_ok(), "{id}");
    }
}

#[test]
fn ids_are_numbered_without_a_gap_so_that_none_is_reused() {
    let mut last: Option<(&str, u8)> = None;
    for rule in all() {
        let (group, number) = rule.id.split_once('-').unwrap();
        let number: u8 = number.parse().unwrap();
        let expected = last.filter(|(before, _)| *before == group).map_or(1, |(_, before)| before + 1);
        assert_eq!(number, expected, "{}", rule.id);
        last = Some((group, number));
    }
}

#[test]
fn a_rule_holds_from_its_release_on_and_not_for_the_proposals_that_it_excludes() {
    let holds = |id: &str| {
        let rule = find(id).unwrap();
        Dialect::all().filter(|dialect| rule.holds_for(*dialect)).map(Dialect::name).collect::<Vec<_>>()
    };
    assert_eq!(holds("RC-3"), ["linux-7.2"]);
    assert_eq!(holds("mf-1"), ["linux-6.12", "linux-7.2", "vmgexit-v10", "coco-v1"]);
    assert_eq!(holds("TF-2"), ["linux-6.1", "linux-6.12", "linux-7.2", "vmgexit-v10", "coco-v1"]);
    assert_eq!(holds("RN-1").len(), Dialect::all().count());
    assert_eq!(find("RN-99"), None);
}

#[test]
fn a_release_or_dialect_that_is_none_is_refused() {
    let rule = |since: &str, not_for: &str| {
        format!(
            "[[section]]\ntitle = ''\n[[section.rule]]\nid = 'X-1'\nseverity = 'MUST'\ntext = ''\nsource = ''\n\
             since = '{since}'\nnot-for = [{not_for}]\nscenarios = []"
        )
    };
    assert!(parse(&rule("6.12", "'coco-v1'")).is_ok());
    for (since, not_for, says) in
        [("6", "", "'6' is no release"), ("six.1", "", "no release"), ("6.1", "'linux-9'", "no dialect")]
    {
        let error = parse(&rule(since, not_for)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn the_page_in_the_documentation_is_made_of_the_rules() {
    if std::env::var_os("EXEUNT_BLESS").is_some() {
        std::fs::write(DOCUMENT, document()).unwrap();
    }
    let stored = std::fs::read_to_string(DOCUMENT).unwrap();
    assert!(stored == document(), "docs/rules.md is not made of rules.toml; EXEUNT_BLESS=1 writes it anew");
}
