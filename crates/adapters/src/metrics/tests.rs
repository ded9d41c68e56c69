use super::*;
use exeunt::layer::event::{ActionKind, Effect};
use exeunt::terminate::StopKind;
use exeunt_abi::{Errno, Gpa};
use exeunt_proto::reply::{ConversionReply, Reply};
use std::collections::{BTreeMap, BTreeSet};

/// A sample as the format has it: name, labels, value.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|other| other.is_ascii_alphanumeric() || other == '_')
}

/// Reads the text format and holds it to its rules: a HELP and a TYPE before the samples of a family, each family in one
/// piece, names and labels well formed, no sample twice, buckets that only grow and end with the count.
fn parse(text: &str) -> Samples {
    let mut samples = Samples::new();
    let (mut helped, mut typed, mut family) = (BTreeSet::new(), BTreeMap::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, about) = help.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()) && !about.is_empty(), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.contains(name) && ["counter", "histogram"].contains(&kind), "{line}");
            assert!(typed.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            name.clone_into(&mut family);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.strip_suffix('}').unwrap().split_once('{').unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let of_family = match typed[&family].as_str() {
                "histogram" => base == Some(family.as_str()),
                _ => name == family && name.ends_with("_total"),
            };
            assert!(of_family && is_name(name) && name.starts_with("exeunt_"), "{line}");
            let labels = labels.split(',').map(|label| {
                let (name, value) = label.split_once('=').unwrap();
                let value = value.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
                assert!(is_name(name) && !value.contains(['"', '\\', '\n']), "{line}");
                (name.to_owned(), value.to_owned())
            });
            let value = value.parse().unwrap();
            assert!(samples.insert((name.to_owned(), labels.collect()), value).is_none(), "{line}");
        }
    }
    samples
}

fn sample(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    samples.get(&(name.to_owned(), labels.collect())).copied()
}

fn effect(kind: ActionKind, result: Result<(), Errno>) -> Event {
    Event::Effect(Effect { kind, gpa: Gpa(0), size_bytes: 0x2000, result })
}

/// A conversion whose discard fails, and an end.
fn play(vcpu: &mut VcpuMetrics) {
    vcpu.event(&Event::Exit { kind: ExitKind::Hypercall, errno: None });
    vcpu.event(&effect(ActionKind::MakePrivate, Ok(())));
    vcpu.event(&effect(ActionKind::DiscardShared, Err(Errno::EIO)));
    vcpu.event(&Event::Reply(Reply::Conversion(ConversionReply::Invalid)));
    vcpu.event(&Event::Exit { kind: ExitKind::SystemEvent, errno: None });
    vcpu.event(&Event::Stop(StopKind::Shutdown));
}

#[test]
fn what_two_vcpus_counted_is_added_up_also_when_one_is_gone() {
    let metrics = Metrics::new();
    let (mut one, mut other) = (metrics.vcpu(), metrics.vcpu());
    play(&mut one);
    play(&mut other);
    for round in 0..2 {
        let samples = parse(&metrics.render());
        for (name, labels, value) in [
            ("exeunt_exits_total", &[("kind", "hypercall")][..], 2.0),
            ("exeunt_exit_errors_total", &[("kind", "hypercall")], 2.0),
            ("exeunt_effects_total", &[("effect", "make_private"), ("result", "ok")], 2.0),
            ("exeunt_effects_total", &[("effect", "discard_shared"), ("result", "error")], 2.0),
            ("exeunt_effect_bytes_total", &[("effect", "make_private")], 16384.0),
            ("exeunt_replies_total", &[("reply", "conversion_refused")], 2.0),
            ("exeunt_stops_total", &[("kind", "shutdown")], 2.0),
            ("exeunt_exit_handling_seconds_count", &[("kind", "hypercall")], 2.0),
        ] {
            assert_eq!(sample(&samples, name, labels), Some(value), "{name}");
        }
        assert_eq!(sample(&samples, "exeunt_exit_errors_total", &[("kind", "system_event")]), None);
        if round == 0 {
            drop(std::mem::replace(&mut one, metrics.vcpu()));
        }
    }
}

#[test]
fn the_buckets_of_a_histogram_grow_and_end_with_the_count() {
    let metrics = Metrics::new();
    let vcpu = metrics.vcpu();
    let times = [0, 1000, 1025, 5000, 1_000_000, 3_000_000_000];
    for ns in times {
        vcpu.cells.latency(ExitKind::Tdx, std::time::Duration::from_nanos(ns));
    }
    let samples = parse(&metrics.render());
    let name = "exeunt_exit_handling_seconds_bucket";
    let mut last = 0.0;
    for bound in cells::BOUNDS_NS {
        let le = format!("0.{bound:09}").replace("0.1073741824", "1.073741824");
        let value = sample(&samples, name, &[("kind", "tdx"), ("le", &le)]).expect(&le);
        #[expect(clippy::cast_precision_loss, reason = "six")]
        let expected = times.iter().filter(|ns| **ns <= bound).count() as f64;
        assert!(value >= last && (value - expected).abs() < 0.5, "{le}");
        last = value;
    }
    assert_eq!(sample(&samples, name, &[("kind", "tdx"), ("le", "+Inf")]), Some(6.0));
    let sum = sample(&samples, "exeunt_exit_handling_seconds_sum", &[("kind", "tdx")]);
    assert_eq!(sum, Some(3.001_007_025));
}

#[test]
fn nothing_counted_is_heads_alone() {
    assert!(parse(&Metrics::new().render()).is_empty());
}

#[test]
fn an_answer_without_an_exit_has_no_time() {
    let metrics = Metrics::new();
    metrics.vcpu().event(&Event::Reply(Reply::None));
    let samples = parse(&metrics.render());
    assert_eq!(samples.len(), 1, "{samples:?}");
}

#[test]
fn one_exit_in_so_many_is_timed_and_all_are_counted() {
    for (one_in, timed) in [(1, 10.0), (3, 4.0), (10, 1.0), (11, 1.0)] {
        let metrics = Metrics::timing_one_in(NonZeroU32::new(one_in).unwrap());
        let mut vcpu = metrics.vcpu();
        for _ in 0..10 {
            vcpu.event(&Event::Exit { kind: ExitKind::Tdx, errno: None });
            vcpu.event(&Event::Reply(Reply::None));
        }
        let samples = parse(&metrics.render());
        assert_eq!(sample(&samples, "exeunt_exits_total", &[("kind", "tdx")]), Some(10.0));
        assert_eq!(sample(&samples, "exeunt_exit_handling_seconds_count", &[("kind", "tdx")]), Some(timed));
    }
}
