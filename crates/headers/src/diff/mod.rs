//! What changes between two trees, and whom it breaks.
//!
//! The first tree is the old one. A program built against it meets a kernel of the new one, natively and as a 32-bit
//! process of a 64-bit kernel; both are looked at.

mod compat;
mod fields;
pub(crate) mod finding;
pub(crate) mod numbers;

use crate::target::Target;
use crate::tree::Tree;
use finding::Change;
pub use finding::{Finding, Severity};
use std::collections::{BTreeMap, BTreeSet};

/// Findings of all targets; what several targets have in common is one.
#[derive(Default)]
pub(crate) struct Findings(BTreeMap<(Severity, String, Change), BTreeSet<Target>>);

impl Findings {
    pub(crate) fn add(&mut self, severity: Severity, subject: &str, target: Target, change: Change) {
        self.0.entry((severity, subject.to_string(), change)).or_default().insert(target);
    }

    fn into_vec(self) -> Vec<Finding> {
        let findings = self.0.into_iter().map(|((severity, subject, change), arches)| Finding {
            severity,
            subject,
            arches: arches.into_iter().collect(),
            change,
        });
        findings.collect()
    }
}

/// The targets that both trees show.
#[must_use]
pub fn shared_targets(old: &Tree, new: &Tree) -> Vec<Target> {
    old.images.keys().filter(|target| new.images.contains_key(target)).copied().collect()
}

/// Every difference on the targets that both trees show: breaks first, then by struct.
#[must_use]
pub fn diff(old: &Tree, new: &Tree) -> Vec<Finding> {
    let mut findings = Findings::default();
    let targets = shared_targets(old, new);
    let names: BTreeSet<&str> = old.struct_names().union(&new.struct_names()).copied().collect();
    for name in names.into_iter().filter(|name| old.both_cover(new, name)) {
        let mut changed = false;
        for target in &targets {
            changed |= fields::compare(&mut findings, old, new, *target, name);
        }
        if changed {
            for target in &targets {
                compat::compare(&mut findings, old, new, *target, name);
            }
        }
    }
    for target in &targets {
        numbers::compare(&mut findings, old, new, *target);
    }
    findings.into_vec()
}

#[cfg(test)]
mod tests;
