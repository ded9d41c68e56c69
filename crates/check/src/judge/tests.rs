use super::twist::Twist;
use super::*;
use crate::rules;
use exeunt_abi::ghci::Status;
use exeunt_abi::kvm::run::{ExitReason, TdxGetQuote};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_scenes::{Situation, situations};
use std::collections::BTreeSet;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rules-covered.md");

#[test]
fn our_half_passes_every_rule_in_every_scenario_of_it_with_any_seed() {
    for seed in 0..4 {
        let judged = judge(None, |_| true, |_| true, seed).unwrap();
        let expected: usize = rules::all().map(|rule| rule.scenarios.len()).sum();
        assert_eq!(judged.len(), expected, "each scenario that a rule names is there");
        for judged in judged {
            assert_eq!(judged.verdict, Verdict::Passed, "{judged:?}");
        }
    }
}

#[test]
fn our_half_breaks_no_rule_in_the_scenarios_of_the_others_either() {
    let mut broken = Vec::new();
    for situation in situations::all() {
        let trial = bench::run(&situation, Twist::default, 1).unwrap();
        let view = view::View::new(&trial);
        for rule in rules::all().filter(|rule| rule.holds_for(situation.kernel.dialect)) {
            if let Err(finding) = checkers::of(&rule.id).unwrap()(&view) {
                broken.push(format!("{} in {}: {finding:?}", rule.id, situation.name));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn another_right_vmm_passes_every_rule_in_every_scenario_of_it() {
    let mut broken = Vec::new();
    for situation in situations::all() {
        let trial = bench::run_half(other::serve, &situation, Twist::default, 0).unwrap();
        let view = view::View::new(&trial);
        for rule in rules::all().filter(|rule| rule.scenarios.iter().any(|name| name == situation.name)) {
            let judgement = checkers::of(&rule.id).unwrap()(&view);
            if judgement != Ok(true) {
                broken.push(format!("{} in {}: {judgement:?}", rule.id, situation.name));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn every_rule_has_a_checker_and_every_scenario_belongs_to_a_rule() {
    for rule in rules::all() {
        assert!(checkers::of(&rule.id).is_some(), "{}", rule.id);
    }
    let mut names = BTreeSet::new();
    for Situation { name, .. } in situations::all() {
        assert!(names.insert(name), "{name} is there twice");
        assert!(rules::all().any(|rule| rule.scenarios.iter().any(|scenario| scenario == name)), "{name}");
    }
}

#[test]
fn every_wrong_vmm_is_caught_by_the_rules_that_it_breaks_and_by_no_other() {
    let covered = covered::covered().unwrap();
    for variant in variants::all() {
        let caught: BTreeSet<_> = covered.caught[variant.name].iter().copied().collect();
        let expected: BTreeSet<_> = variant.breaks.iter().copied().collect();
        assert_eq!(caught, expected, "{}: {}", variant.name, variant.what);
    }
    assert_eq!(covered.caught.len(), variants::all().count(), "no two have the same name");
    for rule in rules::all() {
        let is_broken = variants::all().any(|variant| variant.breaks.contains(&rule.id.as_str()));
        assert!(is_broken, "nothing shows that {} bites", rule.id);
    }
    if std::env::var_os("EXEUNT_BLESS").is_some() {
        std::fs::write(DOCUMENT, &covered.page).unwrap();
    }
    let stored = std::fs::read_to_string(DOCUMENT).unwrap();
    assert!(
        stored == covered.page,
        "docs/rules-covered.md is not what this test makes; EXEUNT_BLESS=1 writes it anew"
    );
}

#[test]
fn our_half_does_what_it_is_asked_for_where_nothing_is_wrong() {
    let statuses = |name: &str| -> Vec<u64> {
        let situation = situations::all().into_iter().find(|situation| situation.name == name).unwrap();
        let trial = bench::run(&situation, Twist::default, 0).unwrap();
        let view = view::View::new(&trial);
        let calls = view.exits.iter().filter(|exit| exit.run.after.reason() == ExitReason::TDX);
        calls.map(|exit| exit.answer.unwrap().before.payload::<TdxGetQuote>().ret).collect()
    };
    let quotes = statuses("td-get-quote");
    assert_eq!(quotes.last(), Some(&Status::SUCCESS.0), "the last buffer is a good one");
    assert_eq!(quotes.iter().filter(|status| **status == Status::SUCCESS.0).count(), 1);
    assert_eq!(statuses("td-event-notify"), [Status::SUCCESS.0; 3]);
}

#[test]
fn the_same_seed_gives_the_same_transcript_byte_for_byte() {
    for situation in situations::all() {
        let transcript = |seed| bench::run(&situation, Twist::default, seed).unwrap().transcript;
        assert_eq!(transcript(7), transcript(7), "{}", situation.name);
    }
}

#[test]
fn a_broken_must_fails_a_broken_should_warns_and_what_was_not_reached_is_neither() {
    let of = |vmm, id: &'static str| {
        let judged = judge(Some(vmm), |rule| rule.id == id, |_| true, 0).unwrap();
        judged.into_iter().next_back().unwrap().verdict
    };
    assert!(matches!(of("negative-errno", "HC-2"), Verdict::Failed(_)));
    assert!(matches!(of("discards-nothing", "HC-8"), Verdict::Warned(_)));
    assert!(matches!(of("enables-all-hypercalls", "HC-1"), Verdict::Warned(_)));
    // A VMM that ends at its first request for certificates writes no table that could be malformed.
    let Verdict::NotExercised { why } = of("certificates-by-the-posting", "RC-7") else { panic!() };
    assert!(why.starts_with("the VMM did not get to where the rule bites: "), "{why}");
}

#[test]
fn a_finding_says_where_what_was_expected_and_seen_and_has_the_bytes_of_the_exit_and_of_the_answer() {
    let in_scene = |scene: &Scene| scene.name == "conversion-that-fails";
    let judged = judge(Some("negative-errno"), |rule| rule.id == "HC-2", in_scene, 3).unwrap();
    let finding = judged[0].finding().unwrap();
    assert_eq!(judged.len(), 1);
    assert_eq!(finding.exit, 2);
    assert_eq!(finding.expected, "ret is 0, 22 or 11");
    assert_eq!(finding.seen, "-22 (0xffffffffffffffea)");
    let bytes = judged[0].bytes.as_ref().unwrap();
    assert_eq!((bytes.returned.as_str(), bytes.reason.as_str()), ("0", "KVM_EXIT_HYPERCALL (3)"));
    assert_eq!((bytes.page.len(), bytes.exit.len()), (288, 72));
    assert_eq!(bytes.page[32..][..72], bytes.exit);
    // `ret` is behind `nr` and six arguments.
    assert_eq!(bytes.answer.as_ref().unwrap()[56..64], (-22i64).to_le_bytes());
}

#[test]
fn a_vmm_that_nobody_knows_is_an_error() {
    let error = judge(Some("perfect"), |_| true, |_| true, 0).unwrap_err();
    assert_eq!(error, JudgeError::UnknownVmm { name: "perfect".into() });
}

#[test]
fn a_number_is_found_in_a_text_in_either_notation_and_only_as_a_word() {
    for (text, number, expected) in [
        ("unknown type 0x80000004, data []", 0x8000_0004, true),
        ("data [1]", 1, true),
        ("data [100000001]", 1, false),
        ("exit reason 64 is", 64, true),
        ("exit reason 40 is", 64, true),
        ("exit reason 6 is", 64, false),
        ("", 0, false),
    ] {
        assert_eq!(view::names_number(text, number), expected, "{text} {number}");
    }
}

#[test]
fn bytes_are_found_in_a_text_however_a_vmm_writes_them() {
    let bytes = 0x1122_3344_5566_77aa_u64.to_le_bytes();
    for text in [
        "bytes aa77665544332211 00",
        "bytes AA 77 66 55 44 33 22 11",
        "bytes [0xaa, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x0]",
        "bytes [170, 119, 102, 85, 68, 51, 34, 17, 0]",
        "word 0x11223344556677aa",
        "word 0X11223344556677AA",
    ] {
        assert!(view::names_bytes(text, bytes), "{text}");
    }
    for text in ["", "reason 64", "aa776655443322", "[170, 119, 102, 85, 68, 51, 34]", "aa77665544332212"] {
        assert!(!view::names_bytes(text, bytes), "{text}");
    }
}

#[test]
fn scenarios_that_play_in_an_snp_vm_too_bite_there_as_well() {
    let mut wrong = Vec::new();
    for situation in
        situations::all().into_iter().filter(|situation| situation.vm_type == VmType::SwProtected)
    {
        assert!(situation.plays_in(VmType::Snp), "{}", situation.name);
        let situation = Situation { vm_type: VmType::Snp, ..situation };
        let trial = bench::run(&situation, Twist::default, 0).unwrap();
        let view = view::View::new(&trial);
        for rule in rules::all().filter(|rule| rule.scenarios.iter().any(|name| name == situation.name)) {
            let judgement = checkers::of(&rule.id).unwrap()(&view);
            if judgement != Ok(true) {
                wrong.push(format!("{} in {}: {judgement:?}", rule.id, situation.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
