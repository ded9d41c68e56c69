//! Numbers that two trees give to different names.

use crate::diff::{numbers, shared_targets};
use crate::space::Space;
use crate::target::Target;
use crate::tree::Tree;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A number with two owners.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Collision {
    /// What the number is of.
    pub space: Space,
    /// The number.
    pub value: u64,
    /// The trees, in the order in which they were given.
    pub trees: [String; 2],
    /// The names that each of them has for it.
    pub names: [Vec<String>; 2],
    /// Where.
    pub arches: Vec<Target>,
}

/// Every collision between any two trees.
#[must_use]
pub fn collide(trees: &[Tree]) -> Vec<Collision> {
    let mut found = Vec::new();
    for (index, first) in trees.iter().enumerate() {
        for second in trees.iter().skip(index + 1) {
            found.extend(between(first, second));
        }
    }
    found
}

fn between(first: &Tree, second: &Tree) -> Vec<Collision> {
    /// Space, number, and the names in both trees.
    type Key = (Space, u64, [Vec<String>; 2]);
    let mut merged: BTreeMap<Key, BTreeSet<Target>> = BTreeMap::new();
    for target in shared_targets(first, second) {
        let (Some(one), Some(other)) = (first.images.get(&target), second.images.get(&target)) else {
            continue;
        };
        for space in Space::all() {
            for (value, was, now) in numbers::reused(space, [(first, one), (second, other)]) {
                merged.entry((space, value, [was, now])).or_default().insert(target);
            }
        }
    }
    let trees = [first.name.clone(), second.name.clone()];
    let collisions = merged.into_iter().map(|((space, value, names), arches)| {
        let arches = arches.into_iter().collect();
        Collision { space, value, trees: trees.clone(), names, arches }
    });
    collisions.collect()
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { space, value, trees: [first, second], names: [one, other], .. } = self;
        write!(f, "{space} {value}: {} in {first}, {} in {second}", one.join(" = "), other.join(" = "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule;

    fn trees(names: &[&str]) -> Vec<Tree> {
        names.iter().filter_map(|name| rule::dialect(name)).collect()
    }

    #[test]
    fn two_releases_never_collide() {
        let all: Vec<&str> = rule::Release::ALL.iter().map(|release| release.name()).collect();
        assert_eq!(collide(&trees(&all)), []);
    }

    #[test]
    fn each_proposal_collides_with_what_was_merged_instead() {
        let cases = [
            ("sev-term-v4.1", Space::SystemEvent, 4, "KVM_SYSTEM_EVENT_WAKEUP"),
            ("shutdown-flag-v4", Space::VcpuEvent, 0x20, "KVM_VCPUEVENT_VALID_TRIPLE_FAULT"),
            ("vmgexit-v10", Space::Exit, 38, "KVM_EXIT_LOONGARCH_IOCSR"),
            ("coco-v1", Space::Exit, 40, "KVM_EXIT_TDX"),
            ("coco-v1", Space::Capability, 237, "KVM_CAP_X86_APIC_BUS_CYCLES_NS"),
        ];
        for (proposal, space, value, merged) in cases {
            let found = collide(&trees(&[proposal, "linux-7.2"]));
            let hit = found.iter().find(|found| (found.space, found.value) == (space, value));
            let hit = hit.unwrap_or_else(|| panic!("{proposal}: {found:?}"));
            assert_eq!(hit.names[1], [merged]);
            assert_eq!(hit.arches, Target::ALL);
        }
    }

    #[test]
    fn every_pair_of_three_trees_is_looked_at() {
        let found = collide(&trees(&["linux-6.1", "vmgexit-v10", "linux-7.2"]));
        let pairs: BTreeSet<&[String; 2]> = found.iter().map(|found| &found.trees).collect();
        assert_eq!(pairs, BTreeSet::from([&["vmgexit-v10".to_string(), "linux-7.2".to_string()]]));
    }
}
