//! A report as SARIF 2.1.0: a result for each rule that was broken in a scene. What was not exercised is a notification
//! of the invocation, since a result would read as an alert.

use super::fingerprint::fingerprint;
use super::report::{Report, RuleReport, SceneReport, Word};
use super::text::{found, plain};
use crate::rules::Severity;
use serde_json::{Value, json};
use std::fmt::Write;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// The report as one SARIF log.
///
/// # Errors
///
/// It cannot be written as JSON.
pub fn sarif(report: &Report) -> Result<String, serde_json::Error> {
    let broken = |(place, rule): (usize, &RuleReport)| -> Vec<Value> {
        rule.broken().map(|(scene, _)| result(report, rule, place, scene)).collect()
    };
    let about = &report.about;
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "exeunt check",
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": report.rules.iter().map(descriptor).collect::<Vec<_>>(),
            }},
            "automationDetails": { "id": format!("exeunt/{}/", about.name) },
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": report.cut_short.is_none(),
                "toolExecutionNotifications": notifications(report),
                "properties": {
                    "subject": about.name,
                    "command": about.command,
                    "stage": about.stage,
                    "dialect": about.dialect,
                    "seed": about.seed,
                    "shard": about.shard,
                },
            }],
            "results": report.rules.iter().enumerate().flat_map(broken).collect::<Vec<_>>(),
        }],
    });
    serde_json::to_string_pretty(&log).map(|json| json + "\n")
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Must => "error",
        Severity::Should => "warning",
        Severity::Hazard => "note",
    }
}

fn descriptor(report: &RuleReport) -> Value {
    let rule = report.rule;
    let (text, source) = (plain(&rule.text), plain(&rule.source));
    let mut help = format!("{}: {text}\n\nSource: {source}\n\nSince: Linux {}", rule.severity, rule.since);
    let mut markdown = format!(
        "**{}**: {}\n\nSource: {}\n\nSince: Linux {}",
        rule.severity, rule.text, rule.source, rule.since
    );
    if let Some(note) = &rule.note {
        // Writing to a string does not fail.
        let _ = write!(help, "\n\n{}", plain(note));
        let _ = write!(markdown, "\n\n{note}");
    }
    json!({
        "id": rule.id,
        "name": format!("{}{}", camel(report.section), rule.id.replace('-', "")),
        "shortDescription": { "text": text },
        "fullDescription": { "text": format!("{text}. Source: {source}.") },
        "help": { "text": help, "markdown": markdown },
        "defaultConfiguration": { "level": level(rule.severity) },
        "properties": { "tags": ["kvm", report.section], "severity": rule.severity },
    })
}

fn camel(text: &str) -> String {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.fold(String::new(), |mut camel, word| {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
        camel
    })
}

fn result(report: &Report, rule: &RuleReport, place: usize, scene: &SceneReport) -> Value {
    let id = &rule.rule.id;
    let mut message = format!("{id}: {}\n", plain(&rule.rule.text));
    found(&mut message, scene);
    let program = report.about.command.first().unwrap_or(&report.about.name);
    let program = program.rsplit('/').next().unwrap_or_default();
    let finding = scene.finding.as_ref();
    let print = fingerprint(&[id, &scene.scene, program]);
    json!({
        "ruleId": id,
        "ruleIndex": place,
        "kind": "fail",
        "level": level(rule.rule.severity),
        "message": { "text": message.trim_end() },
        "locations": [{
            // What collects findings shows those that have a place in a file. A VMM's source is not known.
            "physicalLocation": {
                "artifactLocation": { "uri": uri(program) },
                "region": { "startLine": 1 },
            },
            "logicalLocations": [{
                "name": scene.scene,
                "fullyQualifiedName": format!("{}/{}/{id}", report.about.name, scene.scene),
                "kind": "scene",
            }],
        }],
        "fingerprints": { "exeunt/v1": print },
        "partialFingerprints": { "primaryLocationLineHash": format!("{print}:1") },
        "properties": {
            "exit": finding.map(|finding| finding.exit),
            "expected": finding.map(|finding| &finding.expected),
            "seen": finding.map(|finding| &finding.seen),
            "replay": scene.replay,
        },
    })
}

/// A name as a relative reference.
fn uri(name: &str) -> String {
    let mut uri = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

fn notifications(report: &Report) -> Vec<Value> {
    let mut notifications = Vec::new();
    for rule in report.with(Word::NotExercised) {
        let why = rule.why().unwrap_or_default();
        notifications.push(json!({
            "level": "note",
            "message": { "text": format!("{} was not exercised: {why}", rule.rule.id) },
            "associatedRule": { "id": rule.rule.id },
        }));
    }
    if let Some(why) = &report.cut_short {
        notifications.push(json!({
            "level": "error",
            "message": { "text": format!("This is not all that was to be judged: {why}") },
        }));
    }
    notifications
}
