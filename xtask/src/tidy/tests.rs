use super::tree::Tree;
use super::{Finding, RULES, Rule, files, report, workspace_root};

/// What `check` finds in a tree of these files, as `path:line` and the message.
pub(super) fn found(check: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)]) -> Vec<(String, String)> {
    let tree = Tree::of(files);
    check(&tree).into_iter().map(|f| (format!("{}:{}", f.path, f.line), f.message)).collect()
}

/// Asserts that `check` finds nothing in these files.
#[track_caller]
pub(super) fn passes(check: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)]) {
    assert_eq!(found(check, files), []);
}

/// Asserts that `check` finds something at exactly these places, in this order.
#[track_caller]
pub(super) fn fails_at(check: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)], places: &[&str]) {
    let all = found(check, files);
    let got: Vec<&str> = all.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(got, places, "{all:#?}");
}

#[test]
fn the_workspace_is_tidy() {
    let tree = files::read(&workspace_root()).expect("the workspace can be read");
    let rules: Vec<&Rule> = RULES.iter().collect();
    let lines = report(&tree, &rules);
    assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn the_rules_have_one_name_each_and_stand_in_order() {
    assert!(RULES.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn a_finding_is_printed_as_path_line_rule_message() {
    let rules: Vec<&Rule> = RULES.iter().filter(|rule| rule.name == "file-length").collect();
    let long = "\n".repeat(501);
    let tree = Tree::of(&[("crates/abi/src/b.rs", &long), ("crates/abi/src/a.rs", &long)]);
    let lines = report(&tree, &rules);
    assert_eq!(
        lines,
        [
            "crates/abi/src/a.rs:501: file-length: 501 lines; at most 500, so split it by meaning",
            "crates/abi/src/b.rs:501: file-length: 501 lines; at most 500, so split it by meaning",
        ]
    );
}
