//! The decision pages are a numbered series, so that a comment can cite one by its number for good.

use std::collections::BTreeMap;

use super::Finding;
use super::tree::Tree;

pub(super) const HOLDS: &str =
    "docs/decisions/NNNN-kebab.md: numbers from 1 without gaps or repeats, first line `# N. Title`";

const DIR: &str = "docs/decisions/";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut pages: BTreeMap<usize, &str> = BTreeMap::new();
    for file in tree.files() {
        let Some(name) = file.path.strip_prefix(DIR) else { continue };
        let Some(number) = number(name) else {
            findings.push(Finding::new(&file.path, 1, "the name is not of the form NNNN-kebab-case.md"));
            continue;
        };
        if let Some(other) = pages.insert(number, &file.path) {
            findings.push(Finding::new(&file.path, 1, format!("{other} has the same number")));
        }
        let first = file.text.lines().next().unwrap_or("");
        let title = first.strip_prefix(&format!("# {number}. "));
        if title.is_none_or(|title| title.trim().is_empty()) {
            findings.push(Finding::new(&file.path, 1, format!("the first line is not `# {number}. Title`")));
        }
    }
    let mut expected = 1;
    for (&number, path) in &pages {
        if number != expected {
            findings.push(Finding::new(path, 1, format!("the number {expected:04} before it is missing")));
        }
        expected = number + 1;
    }
    findings
}

/// The number in a well-formed name.
fn number(name: &str) -> Option<usize> {
    let (digits, title) = name.strip_suffix(".md")?.split_once('-')?;
    let is_kebab = title.split('-').all(|word| {
        let mut letters = word.chars();
        !word.is_empty() && letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
    });
    let is_number = digits.len() == 4 && digits.chars().all(|digit| digit.is_ascii_digit());
    if is_number && is_kebab { digits.parse().ok().filter(|&number| number > 0) } else { None }
}

#[cfg(test)]
mod tests;
