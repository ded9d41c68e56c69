//! `log`: lines of QEMU, of the kernel and of strace, each explained that says something about the boundary.

mod lines;

use super::explanation::Explanation;
use super::input::{self, Input};
use super::{Settings, hex, kinds, print, run_page};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt::Write as _;

/// Numbers of lines that are listed for one finding.
const LISTED: usize = 8;
/// Different things that are explained; what a log says beyond them is counted.
const MAX_FINDINGS: usize = 500;
/// Letters of a line that are looked at: no message is longer.
const LINE_LETTERS: usize = 4096;

/// What was found in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Log {
    kind: &'static str,
    input: String,
    title: String,
    /// Lines that something is known of.
    known: usize,
    /// Lines that nothing is known of, without the empty ones.
    unknown: usize,
    /// One for each thing that is said, in the order of the first line that says it.
    findings: Vec<Finding>,
    /// Where a thing is in the findings, by kind and title.
    #[serde(skip)]
    index: HashMap<(&'static str, String), usize>,
}

/// One thing, and the lines that say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    lines: Vec<usize>,
    /// The first of the lines.
    text: String,
    reading: Explanation,
}

/// Reads a log.
pub(super) fn read(input: &Input, settings: &Settings) -> Log {
    let text = String::from_utf8_lossy(&input.bytes);
    let mut log = Log {
        kind: "log",
        input: input.name.clone(),
        title: String::new(),
        known: 0,
        unknown: 0,
        findings: Vec::new(),
        index: HashMap::new(),
    };
    let mut dump: Vec<(usize, &str)> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        if hex::row(line).is_some() || (line.trim() == "*" && !dump.is_empty()) {
            dump.push((index + 1, line));
            continue;
        }
        log.add_dump(&std::mem::take(&mut dump), settings);
        log.add_line(index + 1, line, settings);
    }
    log.add_dump(&dump, settings);
    let total = log.known + log.unknown;
    log.title = format!("{} of {total} lines explained, {} not known", log.known, log.unknown);
    if log.index.len() > MAX_FINDINGS {
        let _ =
            write!(log.title, "; the first {MAX_FINDINGS} of {} different things follow", log.index.len());
    }
    log
}

impl Log {
    fn add_line(&mut self, number: usize, line: &str, settings: &Settings) {
        let line =
            line.char_indices().nth(LINE_LETTERS).map_or(line, |(end, _)| line.get(..end).unwrap_or(line));
        let readings = lines::readings(line, settings);
        self.count(1, !readings.is_empty());
        for reading in readings {
            self.find(number, line, reading);
        }
    }

    /// A hex dump that may be a run page: the lines of one block, whose offsets begin anew at each page.
    fn add_dump(&mut self, rows: &[(usize, &str)], settings: &Settings) {
        let Some((number, first)) = rows.first().copied() else { return };
        let text: Vec<&str> = rows.iter().map(|(_, line)| *line).collect();
        let bytes = hex::parse(&text.join("\n")).unwrap_or_default();
        let input =
            Input { name: format!("lines {number} to {}", number + rows.len() - 1), bytes, is_text: false };
        let page =
            run_page::is_plausible(&input.bytes).then(|| run_page::explain(&input, settings).ok()).flatten();
        self.count(rows.len(), page.is_some());
        if let Some(page) = page {
            self.find(number, first, page);
        }
    }

    fn count(&mut self, lines: usize, is_known: bool) {
        if is_known {
            self.known += lines;
        } else {
            self.unknown += lines;
        }
    }

    fn find(&mut self, number: usize, line: &str, reading: Explanation) {
        let next = self.index.len();
        let place = *self.index.entry((reading.kind, reading.title.clone())).or_insert(next);
        if let Some(finding) = self.findings.get_mut(place) {
            finding.lines.push(number);
        } else if place < MAX_FINDINGS {
            let text: String = line.trim().chars().take(200).flat_map(crate::escape).collect();
            self.findings.push(Finding { lines: vec![number], text, reading });
        }
    }
}

/// The findings as text.
pub(super) fn text(log: &Log) -> String {
    let mut out = format!("log: {}: {}\n", log.input, log.title);
    for finding in &log.findings {
        let listed: Vec<String> = finding.lines.iter().take(LISTED).map(ToString::to_string).collect();
        let more = finding.lines.len().saturating_sub(LISTED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let word = if finding.lines.len() == 1 { "line" } else { "lines" };
        let _ = writeln!(
            out,
            "\n{word} {}{more}\n  > {}",
            listed.join(", "),
            input::shorten_to(&finding.text, 94)
        );
        out.push_str(&print::text(&finding.reading));
    }
    out
}

/// An explanation of a number by the name of its kind.
fn number(kind: &str, text: &str, settings: &Settings) -> Option<Explanation> {
    match kinds::find(kind)?.takes {
        kinds::Takes::Number(explain) => explain(text, settings).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
