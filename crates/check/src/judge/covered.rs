//! `docs/rules-covered.md`: each rule, the scenarios that drive a VMM to it, and the wrong VMMs that it catches.

use super::variants;
use super::verdict::{JudgeError, judge_variant};
use crate::rules;
use exeunt_scenes::situations;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The page, and what is in it.
pub(super) struct Covered {
    pub(super) page: String,
    /// The rules that each wrong VMM was caught by, by its name.
    pub(super) caught: BTreeMap<&'static str, Vec<&'static str>>,
}

/// Judges all wrong VMMs by all rules.
///
/// # Errors
///
/// A scenario cannot be set up.
pub(super) fn covered() -> Result<Covered, JudgeError> {
    let situations = situations::all();
    let mut caught: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut rows: BTreeMap<&str, String> = BTreeMap::new();
    let right = judge_variant(None, &situations, |_| true, 0)?;
    for variant in variants::all() {
        let rules = caught.entry(variant.name).or_default();
        for judged in judge_variant(Some(variant), &situations, |_| true, 0)? {
            if judged.finding().is_none() || rules.contains(&judged.rule) {
                continue;
            }
            rules.push(judged.rule);
            let Some(rule) = rules::find(judged.rule) else { continue };
            let is_right =
                |ours: &&super::Judged| ours.rule == judged.rule && ours.scenario == judged.scenario;
            let right = right.iter().find(is_right).map_or("-", |ours| match ours.verdict {
                super::Verdict::Passed => "passes",
                _ => "does not pass",
            });
            // Writing to a string does not fail.
            let _ = writeln!(
                rows.entry(judged.rule).or_default(),
                "| {} | {} | {} | {right} | `{}` {} | {} |",
                rule.id,
                rule.severity,
                judged.scenario,
                variant.name,
                variant.what,
                judged.rule,
            );
        }
    }
    let mut page = head(situations.len(), caught.len(), rows.len());
    for rule in rules::all() {
        page.push_str(rows.get(rule.id.as_str()).map_or("", String::as_str));
    }
    Ok(Covered { page, caught })
}

fn head(scenarios: usize, variants: usize, rules: usize) -> String {
    let all = rules::all().count();
    format!(
        "# Rules covered\n\n\
         A test makes this page: it runs our VMM half and {variants} VMMs that are wrong on purpose through {scenarios} scenarios, and judges \
         each by\nwhat crosses the boundary. {rules} of {all} rules have a scenario in which ours passes and a wrong VMM that the rule catches; no wrong \
         VMM\nis caught by a rule that it does not break. `exeunt check --rule ID --scene SCENARIO --vmm NAME` shows a row\nagain.\n\n\
         | rule | | scenario | ours | wrong VMM | caught by |\n|---|---|---|---|---|---|\n"
    )
}
