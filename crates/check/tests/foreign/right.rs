//! Right VMMs.

use crate::judging::{Trial, broken, kept};
use crate::programs::Program;
use exeunt_check::foreign::Via;
use exeunt_linux::print_skip;
use std::collections::BTreeSet;

/// The rules that a right VMM on x86 is seen to keep.
pub(crate) const REACHED: &[&str] = &[
    "SE-4", "SE-5", "SE-8", "HC-1", "HC-2", "HC-3", "HC-4", "HC-5", "HC-6", "HC-8", "HC-9", "HC-10", "HC-11",
    "HC-12", "HC-13", "HC-14", "HC-15", "MF-1", "MF-2", "MF-3", "MF-4", "MF-5", "MF-6", "MF-7", "RC-1",
    "RC-2", "RC-3", "RC-4", "RC-7", "RC-8", "TF-3", "RN-1", "RN-2", "RN-4", "AB-1", "AB-3",
];

/// Judges a right VMM, and says what it keeps.
pub(crate) fn keeps_all(trial: &Trial) -> Option<BTreeSet<&'static str>> {
    let judged = match trial.judge() {
        Ok(judged) => judged,
        Err(reason) => {
            print_skip(&format!("{trial:?}"), reason);
            return None;
        }
    };
    let findings: Vec<_> = judged.iter().filter(|judged| judged.finding().is_some()).collect();
    let text = findings.iter().map(|judged| format!("{judged:?}")).collect::<Vec<_>>().join("\n");
    assert_eq!(broken(&judged), BTreeSet::new(), "{trial:?}\n{text}");
    Some(kept(&judged))
}

#[test]
fn right_vmms_break_no_rule_and_keep_all_that_can_be_reached_however_they_are_linked() {
    for program in Program::ALL {
        let Some(kept) = keeps_all(&Trial::of(program)) else { continue };
        let missing: Vec<_> = REACHED.iter().filter(|rule| !kept.contains(*rule)).collect();
        assert!(missing.is_empty(), "{program:?} was not put through {missing:?}; it kept {kept:?}");
    }
}

#[test]
fn a_dynamic_vmm_is_judged_alike_by_both_ways_in() {
    let by = |via| keeps_all(&Trial { via: Some(via), ..Trial::of(Program::CDynamic) });
    let (Some(shim), Some(notify)) = (by(Via::Shim), by(Via::Notify)) else { return };
    assert_eq!(shim, notify);
}
