//! The rig against itself: scripts, the model, and bugs on purpose. It needs no kernel.

use exeunt_abi::Dialect;
use exeunt_rig::compare::{Range, hold};
use exeunt_rig::flaw::{Flaw, Flawed};
use exeunt_rig::half::{Half, OnModel};
use exeunt_rig::script::{Features, generate};

const SCRIPTS: u64 = 400;

fn features(dialect: Dialect, sw_protected: bool) -> Features {
    Features {
        dialect,
        sw_protected,
        hypercalls: true,
        hyperv: true,
        private_ioctls: true,
        two_spaces: true,
        hole_faults: true,
    }
}

fn kernels() -> [Features; 3] {
    [
        features(Dialect::Linux6_1, false),
        features(Dialect::Linux6_12, false),
        features(Dialect::Linux6_12, true),
    ]
}

#[test]
fn the_seed_decides_every_script_and_every_answer_of_the_model() {
    for features in kernels() {
        for number in 0..SCRIPTS {
            let script = generate(1, number, features);
            assert_eq!(script, generate(1, number, features));
            let answers = OnModel.play(&script, features);
            assert_eq!(answers, OnModel.play(&script, features), "script {number} of {features:?}");
            assert!((1..=script.steps.len() + 1).contains(&answers.len()));
        }
    }
}

#[test]
fn a_model_without_a_bug_agrees_with_itself() {
    for features in kernels() {
        let range = Range { seed: 2, first: 0, scripts: SCRIPTS };
        let summary = hold(&OnModel, &OnModel, features, range, &mut |_| ());
        assert_eq!((summary.different, summary.scripts), (0, SCRIPTS));
        assert!(summary.entries > SCRIPTS, "{summary:?}");
    }
}

#[test]
fn each_bug_on_purpose_is_caught_and_shown_in_its_shortest_form() {
    for features in kernels() {
        for flaw in Flaw::ALL {
            let model = Flawed { half: OnModel, flaw: Some(flaw) };
            let range = Range { seed: 3, first: 0, scripts: SCRIPTS };
            let summary = hold(&model, &OnModel, features, range, &mut |_| ());
            assert!(summary.different > 0, "{} passed as {}", flaw.name(), features.dialect);
            let told = summary.differences.first().unwrap();
            assert_ne!(told.expected, told.seen, "{told:?}");
            assert_eq!(Flaw::from_name(flaw.name()), Some(flaw));
        }
    }
}

#[test]
fn scripts_reach_every_kind_of_step() {
    let features = features(Dialect::Linux6_12, true);
    let mut kinds = std::collections::BTreeSet::new();
    for number in 0..SCRIPTS {
        for step in generate(1, number, features).steps {
            kinds.insert(format!("{step:?}").split([' ', '(']).next().unwrap_or_default().to_owned());
        }
    }
    assert!(kinds.contains("Enter") && kinds.contains("SetRegion"), "{kinds:?}");
    assert_eq!(kinds.len(), 19, "{kinds:?}");
}
