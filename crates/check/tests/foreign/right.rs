//! Right VMMs.

use crate::judging::{Trial, broken, kept};
use crate::programs::Program;
use exeunt_check::foreign::Via;
use exeunt_linux::print_skip;
use std::collections::BTreeSet;

/// The rules that a right VMM on x86 is seen to keep.
pub(crate) const REACHED: &[&str] = &[];

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
    let text = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
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
