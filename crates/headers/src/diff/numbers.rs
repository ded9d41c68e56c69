//! The numbers of one target, before and after.

use super::Findings;
use super::finding::{Change, Severity};
use crate::known;
use crate::space::Space;
use crate::target::Target;
use crate::tree::{Image, Tree};
use std::collections::BTreeMap;

pub(super) fn compare(findings: &mut Findings, old: &Tree, new: &Tree, target: Target) {
    let (Some(was), Some(now)) = (old.images.get(&target), new.images.get(&target)) else { return };
    let mut add = |severity, subject: Option<Space>, change| {
        let subject = subject.map_or("constants", Space::one);
        findings.add(severity, subject, target, change);
    };
    let known = old.both_know_architectures(new);
    for (name, value) in &was.constants {
        if !old.both_cover(new, name) {
            continue;
        }
        let (name, from) = (name.clone(), *value);
        let space = Space::of(&name, &was.constants);
        match now.constants.get(&name) {
            Some(to) if *to == from => {}
            Some(to) => {
                let severity = if is_moving(&name) { Severity::Note } else { Severity::Break };
                add(severity, space, Change::NumberChanged { space, name, from, to: *to });
            }
            None if is_elsewhere(new, &name) && !known => {}
            None if is_elsewhere(new, &name) => {
                add(Severity::Note, space, Change::NumberGoneHere { name, value: from });
            }
            None => {
                let severity = if space.is_some() { Severity::Break } else { Severity::Note };
                add(severity, space, Change::NumberRemoved { space, name, value: from });
            }
        }
    }
    for (name, value) in &now.constants {
        let is_new = !was.constants.contains_key(name) && (known || !is_elsewhere(old, name));
        if is_new && old.both_cover(new, name) {
            let space = Space::of(name, &now.constants);
            let change = Change::NumberAdded { space, name: name.clone(), value: *value };
            add(Severity::Note, space, change);
        }
    }
    for space in Space::all() {
        for (value, was, now) in reused(space, [(old, was), (new, now)]) {
            add(Severity::Break, Some(space), Change::NumberReused { space, value, was, now });
        }
    }
    if let Some(change) = bit_field(was, now) {
        findings.add(Severity::Break, known::EVENT_TYPE, target, change);
    }
}

/// Numbers that are expected to change from release to release.
fn is_moving(name: &str) -> bool {
    name == "LINUX_VERSION_CODE" || ["_MAX", "_NR", "_MASK"].iter().any(|end| name.ends_with(end))
}

/// Another architecture of the tree still has the name.
fn is_elsewhere(tree: &Tree, name: &str) -> bool {
    tree.images
        .values()
        .any(|image| image.constants.contains_key(name) || image.not_constant.iter().any(|n| n == name))
}

/// The numbers of a space that two trees give to different names, with the names of both.
///
/// A number with a name that both trees have is no such number: more names for it are aliases. Nor is one that has its
/// names in one tree only.
pub(crate) fn reused(space: Space, pair: [(&Tree, &Image); 2]) -> Vec<(u64, Vec<String>, Vec<String>)> {
    let [(old, was), (new, now)] = pair;
    let owners = |image: &Image| {
        let mut owners: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for (name, value) in space.members(&image.constants) {
            if old.both_cover(new, name) {
                owners.entry(value).or_default().push(name.to_string());
            }
        }
        owners
    };
    let (before, after) = (owners(was), owners(now));
    let mut reused = Vec::new();
    for (value, was) in before {
        if let Some(now) = after.get(&value) {
            if !was.iter().any(|name| now.contains(name)) {
                reused.push((value, was, now.clone()));
            }
        }
    }
    reused
}

/// A bit among the enumerated numbers of events: it is or'ed into the others.
fn bit_field(was: &Image, now: &Image) -> Option<Change> {
    let bit_of = |image: &Image| {
        let events = Space::SystemEvent.members(&image.constants);
        let found = events.into_iter().find(|(_, value)| value.is_power_of_two() && *value >= 1 << 16);
        found.map(|(name, value)| (name.to_string(), value.trailing_zeros()))
    };
    let (constant, bit) = bit_of(now)?;
    let is_new = bit_of(was).is_none();
    is_new.then_some(Change::BecomesBitField { constant, bit, consumers: known::STRICT_MATCHERS })
}
