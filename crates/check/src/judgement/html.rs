//! A report as one HTML page that asks for nothing else: no script, no picture, no font.

use super::report::{Report, RuleReport, SceneReport, Word};
use crate::judge::ExitBytes;
use crate::rules;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");

/// What a browser may load, run or send for the page: nothing, even if a text broke out of its place.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Bytes on one line.
const BYTES_PER_LINE: usize = 16;

/// The report as one page.
#[must_use]
pub fn html(report: &Report) -> String {
    let name = escape(&report.about.name);
    let (class, verdict) = verdict(report);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name}: {verdict}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    picks(&mut out);
    // Writing to a string does not fail, here and below.
    let _ = write!(
        out,
        "<header>\n<p class=\"kicker\">exeunt check</p>\n<h1>{name}</h1>\n<p class=\"verdict {class}\">{verdict}</p>\n"
    );
    if let Some(why) = &report.cut_short {
        let _ = writeln!(out, "<p class=\"cut\">This is not all that was to be judged: {}</p>", escape(why));
    }
    facts(&mut out, report);
    filter(&mut out, report);
    out.push_str("</header>\n<main>\n");
    let is_broken = |rule: &&RuleReport| rule.verdict >= Word::Warn;
    // What a reader came for comes first, the worst before the rest.
    let broken = [Word::Fail, Word::Warn].into_iter().flat_map(|word| report.with(word));
    section(&mut out, "Broken", broken);
    for title in rules::sections().iter().map(|section| section.title.as_str()) {
        let kept = report.rules.iter().filter(|rule| rule.section == title && !is_broken(rule));
        section(&mut out, title, kept);
    }
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(
        out,
        "</main>\n<footer>exeunt {version}. Each verdict comes from what crossed the boundary and from nothing else.</footer>\n\
         </body>\n</html>"
    );
    out
}

fn section<'a>(out: &mut String, title: &str, rules: impl Iterator<Item = &'a RuleReport>) {
    let mut rules = rules.peekable();
    if rules.peek().is_some() {
        let _ = writeln!(out, "<section>\n<h2>{}</h2>", coded(title));
        rules.for_each(|one| rule(out, one));
        out.push_str("</section>\n");
    }
}

const fn class(word: Word) -> &'static str {
    match word {
        Word::Fail => "fail",
        Word::Warn => "warn",
        Word::Pass => "pass",
        Word::NotExercised => "idle",
    }
}

fn verdict(report: &Report) -> (&'static str, String) {
    let sums = report.summary();
    let rules = |count: usize| if count == 1 { "1 rule".into() } else { format!("{count} rules") };
    match (sums.failed, sums.warned, sums.passed) {
        (0, 0, 0) => ("idle", "nothing was exercised".into()),
        (0, 0, passed) => ("pass", format!("keeps {}", rules(passed))),
        (0, warned, _) => ("warn", format!("breaks {}, none of them a MUST", rules(warned))),
        (failed, 0, _) => ("fail", format!("breaks {} that a VMM must keep", rules(failed))),
        (failed, warned, _) => {
            ("fail", format!("breaks {} that a VMM must keep, and {warned} besides", rules(failed)))
        }
    }
}

/// What the filter remembers: it works by style alone.
fn picks(out: &mut String) {
    out.push_str("<input class=\"pick\" type=\"radio\" name=\"show\" id=\"show-all\" checked>\n");
    for class in Word::ALL.map(class) {
        let _ = writeln!(out, "<input class=\"pick\" type=\"radio\" name=\"show\" id=\"show-{class}\">");
    }
}

fn facts(out: &mut String, report: &Report) {
    let about = &report.about;
    let scenes = report.times.len();
    let time = format!("{scenes} in {:.1} s", report.elapsed.as_secs_f64());
    let seed = about.seed.to_string();
    let command = about.replay.command_line();
    let known = [
        ("command", Some(command).filter(|command| !command.is_empty())),
        ("profile", about.profile.clone()),
        ("stage", about.stage.clone()),
        ("via", about.via.clone()),
        ("dialect", about.dialect.clone()),
        ("seed", Some(seed)),
        ("shard", about.shard.clone()),
        ("scenes", Some(time).filter(|_| scenes > 0)),
    ];
    out.push_str("<dl class=\"facts\">\n");
    for (label, text) in known {
        if let Some(text) = text {
            let _ = writeln!(out, "<dt>{label}</dt><dd>{}</dd>", escape(&text));
        }
    }
    out.push_str("</dl>\n");
}

fn filter(out: &mut String, report: &Report) {
    let sums = report.summary();
    out.push_str("<div class=\"bar\" aria-hidden=\"true\">");
    for word in Word::ALL.into_iter().filter(|word| sums.of(*word) > 0) {
        let _ = write!(out, "<span class=\"{}\" style=\"flex:{}\"></span>", class(word), sums.of(word));
    }
    let _ = writeln!(
        out,
        "</div>\n<p class=\"filter\">\n<label for=\"show-all\">all {}</label>",
        report.rules.len()
    );
    for word in Word::ALL.into_iter().filter(|word| sums.of(*word) > 0) {
        let (class, count) = (class(word), sums.of(word));
        let _ = writeln!(out, "<label class=\"{class}\" for=\"show-{class}\">{word} {count}</label>");
    }
    out.push_str("</p>\n");
}

fn rule(out: &mut String, report: &RuleReport) {
    let rule = report.rule;
    let open = if report.verdict >= Word::Warn { " open" } else { "" };
    let because = report.why().map_or_else(String::new, |why| format!("<small>{}</small>", escape(why)));
    let _ = write!(
        out,
        "<details class=\"rule {}\"{open}>\n<summary><span class=\"word\">{}</span><code class=\"id\">{}</code>\
         <span class=\"text\">{}{because}</span><span class=\"severity\">{}</span></summary>\n\
         <div class=\"body\">\n<p class=\"source\">{}, since Linux {}</p>\n",
        class(report.verdict),
        report.verdict,
        escape(&rule.id),
        coded(&rule.text),
        rule.severity,
        coded(&rule.source),
        rule.since,
    );
    report.scenes.iter().filter(|scene| scene.finding.is_some()).for_each(|scene| broken(out, scene));
    let mut others = report.scenes.iter().filter(|scene| scene.finding.is_none()).peekable();
    if others.peek().is_some() {
        out.push_str("<ul class=\"plain\">\n");
        for scene in others {
            let why = scene.why.as_deref().map_or_else(String::new, |why| format!(": {}", escape(why)));
            let _ = writeln!(
                out,
                "<li class=\"{}\"><span class=\"word\">{}</span> in {}<span class=\"why\">{why}</span></li>",
                class(scene.verdict),
                scene.verdict,
                escape(&scene.scene),
            );
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</div>\n</details>\n");
}

fn broken(out: &mut String, scene: &SceneReport) {
    let Some(finding) = &scene.finding else { return };
    let place = match finding.exit {
        0 => "outside of the exits".into(),
        exit => format!("exit {exit}"),
    };
    let _ = writeln!(
        out,
        "<div class=\"scene {}\">\n<h3>{}<small>{place}</small></h3>\n<dl>\n<dt>expected</dt><dd>{}</dd>\n\
         <dt>seen</dt><dd class=\"seen\">{}</dd>",
        class(scene.verdict),
        escape(&scene.scene),
        escape(&finding.expected),
        escape(&finding.seen),
    );
    if let Some(ExitBytes { returned, reason, meaning, exit, answer, .. }) = &scene.bytes {
        let text = escape(&format!("KVM_RUN = {returned}, {reason}: {meaning}"));
        let _ = writeln!(out, "<dt>exit</dt><dd>{text}</dd>");
        if !exit.is_empty() {
            let _ = writeln!(out, "<dt>bytes</dt><dd>{}</dd>", dump(exit, exit));
        }
        match answer {
            None => out.push_str("<dt>answer</dt><dd>none: the vCPU was not entered again</dd>\n"),
            Some(answer) if answer == exit => out.push_str("<dt>answer</dt><dd>the same bytes</dd>\n"),
            Some(answer) => drop(writeln!(out, "<dt>answer</dt><dd>{}</dd>", dump(answer, exit))),
        }
    }
    let _ = writeln!(
        out,
        "<dt>again</dt><dd class=\"again\"><pre>{}</pre></dd>\n</dl>\n</div>",
        escape(&scene.replay)
    );
}

/// Bytes of the exit union with their offsets in the page. Those that differ are marked.
fn dump(bytes: &[u8], before: &[u8]) -> String {
    let mut out = String::from("<pre>");
    for (place, byte) in bytes.iter().enumerate() {
        match place % BYTES_PER_LINE {
            0 => {
                let line = if place == 0 { "" } else { "\n" };
                let _ = write!(out, "{line}<i>{:#05x}</i> ", 0x20 + place);
            }
            8 => out.push(' '),
            _ => {}
        }
        let is_same = before.get(place) == Some(byte);
        let [open, close] = if is_same { ["", ""] } else { ["<mark>", "</mark>"] };
        let _ = write!(out, " {open}{byte:02x}{close}");
    }
    out.push_str("</pre>");
    out
}

/// What may stand between tags and in attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

/// A text of ours, with code between backticks.
fn coded(text: &str) -> String {
    let mut out = String::new();
    for (place, part) in text.split('`').enumerate() {
        let part = escape(part);
        let _ = if place % 2 == 1 { write!(out, "<code>{part}</code>") } else { write!(out, "{part}") };
    }
    out
}
