//! A report as JUnit XML: a suite for each section of the rules, a case for each rule and scene.
//!
//! JUnit has no warnings: a case whose SHOULD or HAZARD was broken passes, and its output says so.

use super::report::{Report, RuleReport, SceneReport, Word};
use super::text::plain;
use crate::rules;
use std::fmt::Write;

/// The report as one XML document.
#[must_use]
pub fn junit(report: &Report) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let (sums, seconds) = (counts(report.rules.iter()), report.elapsed.as_secs_f64());
    // Writing to a string does not fail, here and below.
    let _ = writeln!(out, "<testsuites name=\"exeunt check\" {sums} time=\"{seconds:.3}\">");
    for section in rules::sections() {
        let rules: Vec<_> = report.rules.iter().filter(|rule| rule.section == section.title).collect();
        if rules.is_empty() {
            continue;
        }
        let sums = counts(rules.iter().copied());
        let _ = writeln!(out, "  <testsuite name=\"{}\" {sums}>", attribute(&section.title));
        properties(&mut out, report);
        for rule in rules {
            rule.scenes.iter().for_each(|scene| case(&mut out, report, rule, scene));
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn counts<'a>(rules: impl Iterator<Item = &'a RuleReport>) -> String {
    let [mut tests, mut failures, mut skipped] = [0usize; 3];
    for scene in rules.flat_map(|rule| &rule.scenes) {
        tests += 1;
        failures += usize::from(scene.verdict == Word::Fail);
        skipped += usize::from(scene.verdict == Word::NotExercised);
    }
    format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"")
}

fn properties(out: &mut String, report: &Report) {
    let about = &report.about;
    let seed = about.seed.to_string();
    let known = [
        ("subject", Some(about.name.as_str())),
        ("stage", about.stage.as_deref()),
        ("dialect", about.dialect.as_deref()),
        ("profile", about.profile.as_deref()),
        ("seed", Some(&seed)),
        ("shard", about.shard.as_deref()),
        ("cut_short", report.cut_short.as_deref()),
    ];
    out.push_str("    <properties>\n");
    for (name, value) in known {
        if let Some(value) = value {
            let value = attribute(value);
            let _ = writeln!(out, "      <property name=\"{name}\" value=\"{value}\"/>");
        }
    }
    out.push_str("    </properties>\n");
}

fn case(out: &mut String, report: &Report, rule: &RuleReport, scene: &SceneReport) {
    let id = attribute(&rule.rule.id);
    let name = attribute(&scene.scene);
    let _ = write!(out, "    <testcase classname=\"{id}\" name=\"{name}\"");
    // A scene is played once for all of its rules, so its time belongs to the first.
    let is_first = report.rules.iter().find(|other| other.scenes.iter().any(|it| it.scene == scene.scene));
    let is_first = is_first.is_some_and(|first| first.rule.id == rule.rule.id);
    let seconds = report.time_of(&scene.scene).filter(|_| is_first).unwrap_or_default().as_secs_f64();
    let _ = write!(out, " time=\"{seconds:.3}\"");
    let finding = scene.finding.as_ref();
    let message = finding.map(|it| attribute(&format!("expected: {}; seen: {}", it.expected, it.seen)));
    match (scene.verdict, message) {
        (Word::Fail, message) => {
            let severity = rule.rule.severity;
            let message = message.unwrap_or_default();
            let details = content(&details(rule, scene));
            let _ = writeln!(
                out,
                ">\n      <failure type=\"{severity}\" message=\"{message}\">{details}</failure>\n    </testcase>"
            );
        }
        (Word::Warn, _) => {
            let details = content(&details(rule, scene));
            let _ = writeln!(out, ">\n      <system-out>{details}</system-out>\n    </testcase>");
        }
        (Word::NotExercised, _) => {
            let why = attribute(scene.why.as_deref().unwrap_or_default());
            let _ = writeln!(out, ">\n      <skipped message=\"{why}\"/>\n    </testcase>");
        }
        (Word::Pass, _) => out.push_str("/>\n"),
    }
}

fn details(rule: &RuleReport, scene: &SceneReport) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{} {}: {}", scene.verdict, rule.rule.id, plain(&rule.rule.text));
    super::text::found(&mut text, scene);
    let _ = writeln!(text, "  source     {}", plain(&rule.rule.source));
    text
}

/// What may stand between quotes.
pub(super) fn attribute(text: &str) -> String {
    content(text).replace('"', "&quot;").replace('\'', "&#39;").replace('\n', "&#10;").replace('\t', "&#9;")
}

/// What may stand between tags. Characters that no XML document can hold, not even by number, become a mark.
fn content(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' | '\t' => out.push(letter),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                out.push('\u{fffd}');
            }
            letter => out.push(letter),
        }
    }
    out
}
