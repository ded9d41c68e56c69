//! A report for a terminal.

use super::report::{Report, RuleReport, SceneReport, Summary, Word};
use crate::judge::{ExitBytes, Finding};
use crate::rules;
use crate::timeline::hex;
use std::fmt::Write;

/// Hex words on one line.
const WORDS_PER_LINE: usize = 4;
/// Lines of a text that are shown, and columns of each: what a VMM says as it ends can be a dump of its registers.
const MAX_LINES: usize = 8;
const MAX_COLUMNS: usize = 400;
/// How far a column of labels reaches.
const LABEL: usize = 11;

/// Whether a terminal shows colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// It does.
    Colour,
    /// It does not, or there is none.
    Plain,
}

impl Paint {
    /// A text in the colour of a verdict.
    #[must_use]
    pub fn word(self, word: Word, text: &str) -> String {
        self.with(
            match word {
                Word::Fail => "1;31",
                Word::Warn => "33",
                Word::Pass => "32",
                Word::NotExercised => "2",
            },
            text,
        )
    }

    fn with(self, code: &str, text: &str) -> String {
        match self {
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.into(),
        }
    }
}

/// The whole report: what was broken, what was not exercised and why, and the sums.
#[must_use]
pub fn text(report: &Report, paint: Paint) -> String {
    let mut out = broken_text(report, paint);
    not_exercised(&mut out, report, paint);
    table(&mut out, report, paint);
    out
}

/// What was broken, and nothing else.
#[must_use]
pub fn broken_text(report: &Report, paint: Paint) -> String {
    let mut out = String::new();
    for word in [Word::Fail, Word::Warn] {
        report.with(word).for_each(|rule| broken(&mut out, rule, paint));
    }
    out
}

fn line(out: &mut String, text: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{}", text.trim_end());
}

fn labelled(out: &mut String, label: &str, text: &str, paint: Paint) {
    let mut label = label;
    for (place, part) in text.split('\n').enumerate() {
        if place == MAX_LINES {
            line(out, &format!("  {:LABEL$}{}", "", paint.with("2", "[cut: the other formats have more]")));
            break;
        }
        line(out, &format!("  {}{}", paint.with("2", &format!("{label:<LABEL$}")), clipped(part)));
        label = "";
    }
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(MAX_COLUMNS) {
        Some((end, _)) => format!("{} [cut]", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}

fn broken(out: &mut String, report: &RuleReport, paint: Paint) {
    broken_in(out, report, report.broken(), paint);
}

/// A rule that was broken, in its worst scene only.
#[must_use]
pub fn worst_text(report: &RuleReport, paint: Paint) -> String {
    let mut out = String::new();
    broken_in(&mut out, report, report.broken().take(1), paint);
    out
}

fn broken_in<'a>(
    out: &mut String,
    report: &RuleReport,
    scenes: impl Iterator<Item = (&'a SceneReport, &'a Finding)>,
    paint: Paint,
) {
    let rule = report.rule;
    let word = paint.word(report.verdict, &report.verdict.to_string().to_uppercase());
    line(out, &format!("{word} {} {}: {}", paint.with("1", &rule.id), rule.severity, plain(&rule.text)));
    labelled(out, "source", &plain(&rule.source), paint);
    for (scene, finding) in scenes {
        scene_text(out, scene, finding, paint);
    }
    line(out, "");
}

fn scene_text(out: &mut String, scene: &SceneReport, finding: &Finding, paint: Paint) {
    let place = match finding.exit {
        0 => "outside of the exits".into(),
        exit => format!("exit {exit}"),
    };
    labelled(out, "scene", &format!("{}, {place}", scene.scene), paint);
    if let Some(bytes) = &scene.bytes {
        exit(out, bytes, paint);
    }
    labelled(out, "expected", &finding.expected, paint);
    labelled(out, "seen", &finding.seen, paint);
    // This one is never cut, because a part of it is of no use.
    line(out, &format!("  {}{}", paint.with("2", &format!("{:<LABEL$}", "again")), scene.replay));
}

fn exit(out: &mut String, bytes: &ExitBytes, paint: Paint) {
    let ExitBytes { returned, reason, meaning, exit, answer, .. } = bytes;
    labelled(out, "exit", &format!("KVM_RUN = {returned}, {reason}: {meaning}"), paint);
    rows(out, "bytes", exit, paint);
    match answer {
        None => labelled(out, "answer", "none: the vCPU was not entered again", paint),
        Some(answer) if answer == exit => labelled(out, "answer", "the same bytes", paint),
        Some(answer) => rows(out, "answer", answer, paint),
    }
}

fn rows(out: &mut String, label: &str, bytes: &[u8], paint: Paint) {
    for (row, bytes) in bytes.chunks(WORDS_PER_LINE * 8).enumerate() {
        let offset = 0x20 + row * WORDS_PER_LINE * 8;
        labelled(out, if row == 0 { label } else { "" }, &format!("@{offset:#04x}  {}", hex(bytes)), paint);
    }
}

/// Each reason once, with the rules that it kept from being exercised.
fn not_exercised(out: &mut String, report: &Report, paint: Paint) {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for rule in report.with(Word::NotExercised) {
        let why = rule.why().unwrap_or_default();
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, rules)) => rules.push(&rule.rule.id),
            None => reasons.push((why, vec![&rule.rule.id])),
        }
    }
    if reasons.is_empty() {
        return;
    }
    line(out, &paint.with("1", "Not exercised"));
    for (why, rules) in reasons {
        line(out, &format!("  {}", rules.join(" ")));
        line(out, &format!("    {}", paint.with("2", &clipped(why))));
    }
    line(out, "");
}

fn table(out: &mut String, report: &Report, paint: Paint) {
    let wide = report.rules.iter().map(|rule| plain(rule.section).len()).max().unwrap_or_default();
    let head = format!("{:wide$}  {:>4}  {:>4}  {:>4}  {:>13}", "", "pass", "fail", "warn", "not exercised");
    line(out, &paint.with("2", &head));
    for section in rules::sections() {
        let words = report.rules.iter().filter(|rule| rule.section == section.title).map(|rule| rule.verdict);
        let sums = Summary::count(words);
        if sums != Summary::default() {
            row(out, &format!("{:wide$}", plain(&section.title)), sums, paint);
        }
    }
    line(out, "");
    line(out, &sums(report, paint));
}

fn row(out: &mut String, title: &str, sums: Summary, paint: Paint) {
    let cell = |word, width| match sums.of(word) {
        0 => paint.with("2", &format!("{:>width$}", ".")),
        count => paint.word(word, &format!("{count:>width$}")),
    };
    let cells = [cell(Word::Pass, 4), cell(Word::Fail, 4), cell(Word::Warn, 4), cell(Word::NotExercised, 13)];
    line(out, &format!("{title}  {}", cells.join("  ")));
}

/// One line of sums.
fn sums(report: &Report, paint: Paint) -> String {
    let sums = report.summary();
    let part = |word, count: usize, text: &str| {
        let text = format!("{count} {text}");
        if count == 0 { text } else { paint.word(word, &text) }
    };
    let plural = |count| if count == 1 { "" } else { "s" };
    let mut text = format!(
        "{}: {}, {}, {}, {}",
        paint.with("1", &report.about.name),
        part(Word::Pass, sums.passed, "passed"),
        part(Word::Fail, sums.failed, "failed"),
        part(Word::Warn, sums.warned, "warned"),
        part(Word::NotExercised, sums.not_exercised, "not exercised"),
    );
    if !report.times.is_empty() {
        let scenes = report.times.len();
        // Writing to a string does not fail.
        let _ = write!(text, "; {scenes} scene{} in {:.1} s", plural(scenes), report.elapsed.as_secs_f64());
    }
    if let Some(why) = &report.cut_short {
        let _ = write!(text, "\n{}", paint.word(Word::Warn, &format!("This is not all: {why}")));
    }
    text
}

/// What broke a rule in a scene, for other formats.
pub(super) fn found(out: &mut String, scene: &SceneReport) {
    if let Some(finding) = &scene.finding {
        scene_text(out, scene, finding, Paint::Plain);
    }
}

/// Without the marks that only a page needs.
pub(super) fn plain(text: &str) -> String {
    text.replace('`', "")
}
