//! The timeline as text.

use super::Summary;
use crate::runner::{CaseReport, ScenarioReport, Verdict};
use crate::timeline::Event;
use std::fmt::Write;

/// Hex words on one line.
const WORDS_PER_LINE: usize = 4;

/// A scenario with all that happened in it.
#[must_use]
pub fn scenario_text(scenario: &ScenarioReport) -> String {
    let mut out = String::new();
    let mail = scenario.mail.as_ref().map_or_else(String::new, |mail| format!("\n  after {mail}"));
    line(&mut out, 0, &format!("{}: {}{mail}", scenario.name, scenario.title));
    for case in &scenario.cases {
        case_text(&mut out, case);
    }
    out
}

fn case_text(out: &mut String, case: &CaseReport) {
    out.push('\n');
    line(out, 2, &format!("case: {} [{}]", case.title, case.dialect));
    for event in &case.events {
        event_text(out, event);
    }
    if let Some(end) = &case.end {
        entry(out, "end", &format!("{}: {}", end.keyword, end.text));
    }
    match &case.verdict {
        Verdict::Passed => entry(out, "PASS", &format!("as expected, {} exits", case.exits)),
        Verdict::Failed { unmet } => unmet.iter().for_each(|unmet| entry(out, "FAIL", unmet)),
        Verdict::NotJudged { reason } => entry(out, "note", &format!("not judged: {reason}")),
        Verdict::Skipped { reason } => entry(out, "skip", reason),
    }
}

fn event_text(out: &mut String, event: &Event) {
    match event {
        Event::Vmm { text } => entry(out, "vmm", text),
        Event::Guest { vcpu, text } => entry(out, &format!("guest {vcpu}"), text),
        Event::Saw { vcpu, text } => entry(out, &format!("guest {vcpu}"), &format!("  sees {text}")),
        Event::Kernel { result, reason, bytes, meaning } => {
            entry(out, "kernel", &format!("KVM_RUN = {result}, {reason}: {meaning}"));
            let words: Vec<_> = bytes.split_whitespace().collect();
            for (row, words) in words.chunks(WORDS_PER_LINE).enumerate() {
                let offset = 0x20 + row * WORDS_PER_LINE * 8;
                entry(out, "", &format!("  @{offset:#04x}  {}", words.join(" ")));
            }
        }
        Event::Plan { text } => entry(out, "plan", text),
        Event::Effect { text, result } => entry(out, "effect", &format!("{text}: {result}")),
        Event::Reply { text } => entry(out, "reply", text),
        Event::Read { reader, text } => entry(out, "reader", &format!("{reader}: {text}")),
    }
}

fn entry(out: &mut String, who: &str, text: &str) {
    line(out, 4, &format!("{who:<8} {text}"));
}

fn line(out: &mut String, indent: usize, text: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{:indent$}{}", "", text.trim_end());
}

/// One line of sums.
#[must_use]
pub fn summary_text(scenarios: usize, summary: &Summary) -> String {
    let plural = if scenarios == 1 { "" } else { "s" };
    let mut text = format!(
        "{scenarios} scenario{plural}: {} cases passed, {} failed, {} skipped",
        summary.passed, summary.failed, summary.skipped
    );
    if summary.not_judged > 0 {
        let _ = write!(text, ", {} not judged", summary.not_judged);
    }
    text
}
