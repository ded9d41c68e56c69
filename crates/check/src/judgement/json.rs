//! A report as JSON. `docs/checking.md` has every key.

use super::Kind;
use super::report::{Report, RuleReport, SceneReport, Summary, Word};
use crate::timeline::hex;
use serde::Serialize;

/// Grows when a key changes its meaning or goes away. New keys may come without.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    exeunt: &'static str,
    subject: Subject<'a>,
    options: Options<'a>,
    complete: bool,
    cut_short: Option<&'a str>,
    elapsed_seconds: f64,
    summary: Summary,
    rules: Vec<Rule<'a>>,
    scenes: Vec<Scene<'a>>,
}

#[derive(Serialize)]
struct Subject<'a> {
    kind: Kind,
    name: &'a str,
    command: &'a [String],
    profile: Option<&'a str>,
    via: Option<&'a str>,
}

#[derive(Serialize)]
struct Options<'a> {
    stage: Option<&'a str>,
    dialect: Option<&'a str>,
    seed: u64,
    shard: Option<&'a str>,
}

#[derive(Serialize)]
struct Rule<'a> {
    id: &'a str,
    severity: crate::rules::Severity,
    section: &'a str,
    text: &'a str,
    source: &'a str,
    since: crate::rules::Release,
    verdict: Word,
    scenes: Vec<Judged<'a>>,
}

#[derive(Serialize)]
struct Judged<'a> {
    scene: &'a str,
    verdict: Word,
    why: Option<&'a str>,
    finding: Option<Finding<'a>>,
    replay: &'a str,
}

#[derive(Serialize)]
struct Finding<'a> {
    exit: Option<usize>,
    expected: &'a str,
    seen: &'a str,
    bytes: Option<Bytes<'a>>,
}

#[derive(Serialize)]
struct Bytes<'a> {
    returned: &'a str,
    reason: &'a str,
    meaning: &'a str,
    exit: String,
    answer: Option<String>,
    page: String,
}

#[derive(Serialize)]
struct Scene<'a> {
    name: &'a str,
    elapsed_seconds: f64,
}

/// The report as one JSON document.
///
/// # Errors
///
/// It cannot be written as JSON.
pub fn json(report: &Report) -> Result<String, serde_json::Error> {
    let about = &report.about;
    let document = Document {
        version: SCHEMA_VERSION,
        exeunt: env!("CARGO_PKG_VERSION"),
        subject: Subject {
            kind: about.kind,
            name: &about.name,
            command: &about.command,
            profile: about.profile.as_deref(),
            via: about.via.as_deref(),
        },
        options: Options {
            stage: about.stage.as_deref(),
            dialect: about.dialect.as_deref(),
            seed: about.seed,
            shard: about.shard.as_deref(),
        },
        complete: report.cut_short.is_none(),
        cut_short: report.cut_short.as_deref(),
        elapsed_seconds: report.elapsed.as_secs_f64(),
        summary: report.summary(),
        rules: report.rules.iter().map(rule).collect(),
        scenes: report
            .times
            .iter()
            .map(|time| Scene { name: &time.scene, elapsed_seconds: time.elapsed.as_secs_f64() })
            .collect(),
    };
    serde_json::to_string_pretty(&document).map(|json| json + "\n")
}

fn rule(report: &RuleReport) -> Rule<'_> {
    let rule = report.rule;
    Rule {
        id: &rule.id,
        severity: rule.severity,
        section: report.section,
        text: &rule.text,
        source: &rule.source,
        since: rule.since,
        verdict: report.verdict,
        scenes: report.scenes.iter().map(judged).collect(),
    }
}

fn judged(scene: &SceneReport) -> Judged<'_> {
    let word = |bytes: &[u8]| hex(bytes).replace(' ', "");
    let bytes = scene.bytes.as_ref().map(|bytes| Bytes {
        returned: &bytes.returned,
        reason: &bytes.reason,
        meaning: &bytes.meaning,
        exit: word(&bytes.exit),
        answer: bytes.answer.as_deref().map(word),
        page: word(&bytes.page),
    });
    Judged {
        scene: &scene.scene,
        verdict: scene.verdict,
        why: scene.why.as_deref(),
        finding: scene.finding.as_ref().map(|finding| Finding {
            exit: (finding.exit > 0).then_some(finding.exit),
            expected: &finding.expected,
            seen: &finding.seen,
            bytes,
        }),
        replay: &scene.replay,
    }
}
