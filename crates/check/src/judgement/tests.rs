use super::*;
use crate::judge::{self, ExitBytes, Finding, Judged, Verdict};
use crate::rules;
use proptest::prelude::*;
use quick_xml::events::Event;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// What a VMM may say, and be called.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J]]></failure><script>alert(1)</script>&amp;\"'`\u{202e}\u{0}\u{fffe}\r\n-- $(x)";

fn about(name: &str) -> About {
    About {
        kind: Kind::Foreign,
        name: name.into(),
        command: vec![format!("/opt/{name}"), "-m".into(), "it's".into()],
        profile: None,
        via: None,
        stage: Some("scripted".into()),
        dialect: None,
        seed: 7,
        shard: Some("1/2".into()),
        replay: Replay {
            options: ["--seed", "7", "--stage", "scripted"].map(Into::into).to_vec(),
            command: vec![format!("/opt/{name}").into(), "-m".into(), "it's".into()],
        },
    }
}

fn judged(rule: &'static str, scenario: &'static str, verdict: Verdict) -> Judged {
    Judged { rule, scenario, verdict, bytes: None }
}

fn finding(exit: usize, expected: &str, seen: &str) -> Finding {
    Finding { exit, expected: expected.into(), seen: seen.into() }
}

/// One of each verdict, and rules with several scenes.
fn report(name: &str, seen: &str) -> Report {
    let mut answer = vec![0x0c, 0, 0, 0, 0, 0, 0, 0, 0x11];
    let exit = answer.clone();
    answer[8] = 0x22;
    let bytes = ExitBytes {
        returned: "0".into(),
        reason: "KVM_EXIT_HYPERCALL (3)".into(),
        meaning: "a conversion".into(),
        exit,
        answer: Some(answer),
        page: vec![0; 288],
    };
    let failed = Verdict::Failed(finding(2, "ret is 0, 22 or 11", seen));
    let all = [
        judged("HC-3", "conversion-that-fails", Verdict::Passed),
        Judged { bytes: Some(Box::new(bytes)), ..judged("HC-2", "conversion-that-fails", failed) },
        judged("HC-8", "conversion-there-and-back", Verdict::Warned(finding(0, "a discard", seen))),
        judged("HC-1", "conversion-there-and-back", Verdict::Warned(finding(0, "a chosen mask", seen))),
        judged("SE-2", "event-with-data", Verdict::Passed),
        judged("SE-2", "event-without-215", Verdict::not_exercised(seen)),
        judged("RC-7", "certs-installed", Verdict::not_exercised("1 exit, then it crashed")),
    ];
    let time = |scene: &str| SceneTime { scene: scene.into(), elapsed: Duration::from_millis(250) };
    Report {
        times: ["conversion-that-fails", "conversion-there-and-back"].map(time).to_vec(),
        elapsed: Duration::from_secs(2),
        ..Report::new(about(name), &all)
    }
}

#[test]
fn a_rule_is_reported_once_with_its_worst_scene_and_in_the_order_of_the_rules() {
    let report = report("vmm", "-22");
    let ids: Vec<_> = report.rules.iter().map(|rule| (rule.rule.id.as_str(), rule.verdict)).collect();
    let expected = [
        ("SE-2", Word::Pass),
        ("HC-1", Word::Warn),
        ("HC-2", Word::Fail),
        ("HC-3", Word::Pass),
        ("HC-8", Word::Warn),
        ("RC-7", Word::NotExercised),
    ];
    assert_eq!(ids, expected);
    assert_eq!(report.summary(), Summary { passed: 2, failed: 1, warned: 2, not_exercised: 1 });
    assert!(report.has_failed());
    for worst in Word::ALL {
        for other in Word::ALL.into_iter().filter(|other| *other <= worst) {
            let verdict = |word| match word {
                Word::Pass => Verdict::Passed,
                Word::Fail => Verdict::Failed(finding(1, "", "")),
                Word::Warn => Verdict::Warned(finding(1, "", "")),
                Word::NotExercised => Verdict::not_exercised("x"),
            };
            let both = [judged("SE-2", "a", verdict(other)), judged("SE-2", "b", verdict(worst))];
            let rules = Report::new(about("vmm"), &both).rules;
            assert_eq!(
                (rules.len(), rules[0].verdict, rules[0].scenes.len()),
                (1, worst, 2),
                "{other} {worst}"
            );
        }
    }
}

#[test]
fn the_text_of_a_report() {
    insta::assert_snapshot!("text", text(&report("vmm", "-22"), Paint::Plain));
    let cut = Report { cut_short: Some("interrupted".into()), ..report("vmm", "-22") };
    insta::assert_snapshot!("text-in-colour", text(&cut, Paint::Colour).replace('\u{1b}', "^["));
}

#[test]
fn the_text_of_a_report_without_colours_has_no_controls_whatever_a_vmm_says() {
    let text = text(&report(HOSTILE, HOSTILE), Paint::Plain);
    let active: Vec<_> =
        text.chars().filter(|letter| *letter != '\n' && *letter != inert_one(*letter)).collect();
    assert_eq!(active, []);
    assert!(text.contains(r"\u{1b}[2J"), "{text}");
}

#[test]
fn what_a_vmm_said_in_lines_stays_under_its_label_and_is_cut_in_a_terminal_only() {
    let said: Vec<_> = (0..20).map(|number| format!("  again      line {number}")).collect();
    let said = said.join("\n");
    let report = report("vmm", &said);
    let text = text(&report, Paint::Plain);
    assert!(
        text.contains("\n  seen         again      line 0\n               again      line 1\n"),
        "{text}"
    );
    assert!(text.contains("[cut: the other formats have more]") && !text.contains("line 9"), "{text}");
    let lines = text.lines().filter(|line| line.starts_with("  again      "));
    assert!(lines.clone().count() == 3 && lines.clone().all(|line| line.contains("exeunt check ")), "{text}");
    assert!(html(&report).contains("again      line 19"));
}

/// The letter itself, if it is inert.
fn inert_one(letter: char) -> char {
    let text = inert(&format!("{letter}."));
    text.chars().next().unwrap()
}

/// A document in which tags are closed, attributes are unique and all text is text: its elements with attributes.
fn elements(xml: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut reader = quick_xml::Reader::from_str(xml);
    reader.config_mut().check_end_names = true;
    let (mut found, mut depth, mut roots) = (Vec::new(), 0, 0);
    loop {
        let event = reader.read_event().unwrap();
        match &event {
            Event::Start(start) | Event::Empty(start) => {
                let name = String::from_utf8(start.name().as_ref().to_vec()).unwrap();
                let attribute = |attribute: quick_xml::events::attributes::Attribute<'_>| {
                    let raw = std::str::from_utf8(&attribute.value).unwrap();
                    let value = quick_xml::escape::unescape(raw).unwrap().into_owned();
                    (String::from_utf8(attribute.key.as_ref().to_vec()).unwrap(), value)
                };
                let attributes = start.attributes().map(|found| attribute(found.unwrap())).collect();
                roots += usize::from(depth == 0);
                depth += usize::from(matches!(event, Event::Start(_)));
                found.push((name, attributes));
            }
            Event::End(_) => depth -= 1,
            Event::Text(text) => {
                let text = std::str::from_utf8(text).unwrap();
                quick_xml::escape::unescape(text).unwrap();
                assert!(depth > 0 || text.trim().is_empty(), "text outside of the document: {text}");
            }
            Event::Eof => break,
            Event::Decl(_) | Event::GeneralRef(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((depth, roots), (0, 1));
    // XML 1.0, production 2: these cannot be written at all.
    let is_allowed = |letter: char| {
        !letter.is_control() && !matches!(letter, '\u{fffe}' | '\u{ffff}')
            || matches!(letter, '\t' | '\n' | '\r')
    };
    assert!(xml.chars().all(is_allowed));
    found
}

fn attribute<'a>(element: &'a (String, Vec<(String, String)>), name: &str) -> &'a str {
    &element.1.iter().find(|(known, _)| known == name).unwrap().1
}

#[test]
fn junit_has_a_case_for_each_rule_and_scene_and_counts_them_right() {
    for report in [report("vmm", "-22"), report(HOSTILE, HOSTILE)] {
        let elements = elements(&junit(&report));
        let count = |name: &str| elements.iter().filter(|element| element.0 == name).count();
        assert_eq!(
            (count("testcase"), count("failure"), count("skipped"), count("system-out")),
            (7, 1, 2, 2)
        );
        let root = &elements[0];
        let sums = ["tests", "failures", "errors", "skipped"].map(|name| attribute(root, name));
        assert_eq!((root.0.as_str(), sums), ("testsuites", ["7", "1", "0", "2"]));
        let suites: Vec<_> = elements.iter().filter(|element| element.0 == "testsuite").collect();
        for name in ["tests", "failures", "skipped"] {
            let sum: usize =
                suites.iter().map(|suite| attribute(suite, name).parse::<usize>().unwrap()).sum();
            assert_eq!(sum.to_string(), attribute(root, name), "{name}");
        }
        let cases = elements.iter().filter(|element| element.0 == "testcase");
        let names: BTreeSet<_> =
            cases.clone().map(|case| (attribute(case, "classname"), attribute(case, "name"))).collect();
        assert_eq!(names.len(), 7);
        assert!(names.contains(&("HC-2", "conversion-that-fails")));
        // The time of a scene counts once, however many rules are judged there.
        let times: f64 = cases.map(|case| attribute(case, "time").parse::<f64>().unwrap()).sum();
        assert!((times - 0.5).abs() < 1e-9, "{times}");
        let failure = elements.iter().find(|element| element.0 == "failure").unwrap();
        assert!(attribute(failure, "message").starts_with("expected: ret is 0, 22 or 11; seen: "));
    }
}

#[test]
fn json_has_all_of_a_report_and_its_keys_are_documented() {
    let document: Value = serde_json::from_str(&json(&report("vmm", HOSTILE)).unwrap()).unwrap();
    assert_eq!(document["version"], SCHEMA_VERSION);
    assert_eq!(document["subject"]["kind"], "foreign");
    assert_eq!(document["summary"]["not_exercised"], 1);
    let rule = &document["rules"][2];
    assert_eq!(
        (&rule["id"], &rule["verdict"], &rule["severity"]),
        (&"HC-2".into(), &"fail".into(), &"MUST".into())
    );
    let finding = &rule["scenes"][0]["finding"];
    assert_eq!((&finding["exit"], &finding["bytes"]["exit"]), (&2.into(), &"0c0000000000000011".into()));
    assert_eq!(finding["bytes"]["answer"], "0c0000000000000022");
    assert_eq!(finding["bytes"]["page"].as_str().unwrap().len(), 576);
    assert!(
        finding["seen"].as_str().unwrap().chars().all(|letter| letter == '\n' || letter == inert_one(letter))
    );
    let mut keys = BTreeSet::new();
    collect_keys(&document, &mut keys);
    let page = include_str!("../../../../docs/checking.md");
    let missing: Vec<_> = keys.iter().filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert_eq!(missing, Vec::<&String>::new(), "docs/checking.md does not say what these are");
}

fn collect_keys(value: &Value, keys: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            keys.insert(key.clone());
            collect_keys(value, keys);
        }),
        Value::Array(values) => values.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

/// What the standard requires of a log, and what this one promises.
fn assert_is_sarif(text: &str) -> Value {
    let log: Value = serde_json::from_str(text).unwrap();
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().unwrap().ends_with("sarif-2.1.0.json"));
    let run = &log["runs"][0];
    let driver = &run["tool"]["driver"];
    assert!(driver["name"].is_string());
    let rules = driver["rules"].as_array().unwrap();
    let ids: BTreeSet<_> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), rules.len(), "an id is there once");
    for rule in rules {
        for text in ["shortDescription", "fullDescription", "help"] {
            assert!(!rule[text]["text"].as_str().unwrap().is_empty());
        }
        let level = match rule["properties"]["severity"].as_str().unwrap() {
            "MUST" => "error",
            "SHOULD" => "warning",
            _ => "note",
        };
        assert_eq!(rule["defaultConfiguration"]["level"], level);
    }
    let mut prints = BTreeSet::new();
    for result in run["results"].as_array().unwrap() {
        let place = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(result["ruleId"], rules[place]["id"]);
        assert_eq!(result["level"], rules[place]["defaultConfiguration"]["level"]);
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        let location = &result["locations"][0];
        assert!(!location["logicalLocations"][0]["fullyQualifiedName"].as_str().unwrap().is_empty());
        let uri = location["physicalLocation"]["artifactLocation"]["uri"].as_str().unwrap();
        assert!(uri.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)), "{uri}");
        assert!(prints.insert(result["fingerprints"]["exeunt/v1"].as_str().unwrap().to_string()));
    }
    log
}

#[test]
fn sarif_has_a_result_for_each_broken_rule_and_scene_with_a_level_by_severity() {
    for report in [report("vmm", "-22"), report(HOSTILE, HOSTILE)] {
        let log = assert_is_sarif(&sarif(&report).unwrap());
        let results = log["runs"][0]["results"].as_array().unwrap();
        let levels: Vec<_> = results.iter().map(|result| (&result["ruleId"], &result["level"])).collect();
        let expected = [("HC-1", "note"), ("HC-2", "error"), ("HC-8", "warning")];
        let expected: Vec<_> = expected.map(|(id, level)| (Value::from(id), Value::from(level))).to_vec();
        assert_eq!(levels, expected.iter().map(|(id, level)| (id, level)).collect::<Vec<_>>());
        let notes = log["runs"][0]["invocations"][0]["toolExecutionNotifications"].as_array().unwrap();
        assert!(notes[0]["message"]["text"].as_str().unwrap().starts_with("RC-7 was not exercised: "));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_breaks_out_of_a_report(name in "\\PC{0,20}|[\\x00-\\x7f]{0,20}", seen in any::<String>()) {
        let report = report(&name, &seen);
        prop_assert_eq!(elements(&junit(&report)).iter().filter(|element| element.0 == "testcase").count(), 7);
        assert_is_sarif(&sarif(&report).unwrap());
        let document: Value = serde_json::from_str(&json(&report).unwrap()).unwrap();
        prop_assert_eq!(document["rules"].as_array().unwrap().len(), 6);
        let (text, page) = (text(&report, Paint::Plain), html(&report));
        prop_assert!(text.chars().chain(page.chars()).all(|letter| letter == '\n' || letter == inert_one(letter)));
        prop_assert_eq!(page.matches("<details").count(), 6);
        prop_assert!(text.lines().filter(|line| line.starts_with("  again      ")).count() == 3);
    }
}

#[test]
fn a_fingerprint_does_not_depend_on_the_seed_or_on_what_was_seen() {
    let prints = |report: &Report| {
        let log = assert_is_sarif(&sarif(report).unwrap());
        let results = log["runs"][0]["results"].as_array().unwrap().clone();
        results.into_iter().map(|result| result["fingerprints"].clone()).collect::<Vec<_>>()
    };
    let mut other = report("vmm", "-5");
    other.about.seed = 99;
    assert_eq!(prints(&report("vmm", "-22")), prints(&other));
    assert_ne!(prints(&report("vmm", "-22")), prints(&report("other", "-22")));
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_takes_hostile_text_for_text() {
    let page = html(&report(HOSTILE, HOSTILE));
    for part in
        ["<script", "javascript:", "http://", "https://", "src=", "href=", "@import", "url(", "onload"]
    {
        assert!(!page.contains(part), "{part}");
    }
    assert!(page.contains("default-src 'none'"));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(page.contains("prefers-color-scheme: dark"));
    let is_plain = |letter: char| letter == '\n' || letter == inert_one(letter);
    assert!(page.chars().all(is_plain));
    for (tag, end) in
        [("<details", "</details>"), ("<section>", "</section>"), ("<dl", "</dl>"), ("<div", "</div>")]
    {
        assert_eq!(page.matches(tag).count(), page.matches(end).count(), "{tag}");
    }
}

#[test]
fn the_page_can_be_filtered_by_each_verdict_that_is_there_and_marks_the_bytes_of_the_answer() {
    let page = html(&report("vmm", "-22"));
    for (class, count) in [("fail", 1), ("warn", 2), ("pass", 2), ("idle", 1)] {
        assert_eq!(page.matches(&format!("<details class=\"rule {class}\"")).count(), count, "{class}");
        assert!(page.contains(&format!("id=\"show-{class}\"")), "{class}");
        assert!(page.contains(&format!("<label class=\"{class}\" for=\"show-{class}\">")), "{class}");
    }
    assert!(page.contains("<mark>22</mark>"));
    assert_eq!(page.matches("<mark>").count(), 1);
    assert!(
        page.contains("exeunt check --rule HC-2 --scene conversion-that-fails --seed 7 --stage scripted")
    );
}

#[test]
fn every_format_takes_what_comes_of_every_third_wrong_vmm() {
    for vmm in judge::wrong_vmms().step_by(3) {
        let report =
            Report::new(about(vmm.name), &judge::judge(Some(vmm.name), |_| true, |_| true, 0).unwrap());
        assert_eq!(report.rules.len(), rules::all().count());
        let broken: Vec<_> = report.rules.iter().filter(|rule| rule.broken().count() > 0).collect();
        assert!(vmm.breaks.iter().all(|id| broken.iter().any(|rule| rule.rule.id == *id)), "{}", vmm.name);
        elements(&junit(&report));
        assert_is_sarif(&sarif(&report).unwrap());
        let document: Value = serde_json::from_str(&json(&report).unwrap()).unwrap();
        assert_eq!(document["rules"].as_array().unwrap().len(), report.rules.len());
        let (text, page) = (text(&report, Paint::Plain), html(&report));
        for rule in broken {
            assert!(text.contains(&format!("{} {}: ", rule.rule.id, rule.rule.severity)), "{}", vmm.name);
            assert!(page.contains(&format!("<code class=\"id\">{}</code>", rule.rule.id)), "{}", vmm.name);
        }
    }
}
