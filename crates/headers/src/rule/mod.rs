//! Layouts by rule: a registry of KVM's uapi, laid out for each architecture's C ABI.
//!
//! Names, numbers and layouts are facts. The registry states them for five releases and for the proposals that were
//! never merged; `cargo xtask header-check` holds them against real headers.

mod capabilities;
mod ctype;
mod exits;
mod layout;
mod memory;
mod numbers;
mod proposals;
mod registry;
mod release;
mod run;
mod sev;
mod sev_device;
mod tdx;

pub use release::Release;

use crate::flatten::{self, Node, Shape};
use crate::target::Target;
use crate::tree::{Image, Scope, Tree};
use ctype::Member;
use layout::Rules;
use proposals::Proposal;
use registry::{Def, Number};
use std::collections::{BTreeMap, BTreeSet};

/// The names of all dialects: releases, oldest first, then proposals.
#[must_use]
pub fn dialects() -> Vec<&'static str> {
    let releases = Release::ALL.into_iter().map(Release::name);
    releases.chain(proposals::ALL.iter().map(|proposal| proposal.name)).collect()
}

/// The tree of a dialect, if there is one with this name.
#[must_use]
pub fn dialect(name: &str) -> Option<Tree> {
    if let Some(release) = Release::ALL.into_iter().find(|release| release.name() == name) {
        return Some(tree(name, release, None));
    }
    let proposal = proposals::ALL.iter().find(|proposal| proposal.name == name)?;
    Some(tree(name, proposal.base, Some(proposal)))
}

/// The tree of a release.
#[must_use]
pub fn release(release: Release) -> Tree {
    tree(release.name(), release, None)
}

/// The tree of a release as it was published: some structs changed in its stable series.
#[must_use]
pub fn as_published(release: Release) -> Tree {
    let mut tree = tree(release.name(), release, None);
    for (target, image) in &mut tree.images {
        for def in others().filter(|def| def.targets.contains(target)) {
            if let Some(members) = def.members_as_published(release) {
                let placed = Rules { target: *target, packed: def.packed }.place_struct(members);
                flatten::add(&mut image.layouts, def.name, placed.size, &placed.nodes);
            }
        }
    }
    tree
}

/// Every struct that any dialect has.
#[must_use]
pub fn struct_names() -> BTreeSet<String> {
    let own = run::EXITS.iter().chain(proposals::exits()).map(|def| format!("kvm_run.{}", def.name));
    let others = others().map(|def| def.name.to_string());
    own.chain(others).chain(["kvm_run".to_string()]).collect()
}

fn others() -> impl Iterator<Item = &'static Def> {
    [memory::STRUCTS, sev::STRUCTS, tdx::STRUCTS, sev_device::STRUCTS].into_iter().flatten()
}

fn all_numbers() -> impl Iterator<Item = &'static Number> {
    [exits::NUMBERS, capabilities::NUMBERS, numbers::NUMBERS].into_iter().flatten()
}

fn tree(name: &str, release: Release, proposal: Option<&Proposal>) -> Tree {
    let mut images = BTreeMap::new();
    for target in Target::ALL {
        images.insert(target, image(target, release, proposal));
    }
    let mut covered = struct_names();
    covered.extend(all_numbers().map(|number| number.name.to_string()));
    covered.extend(proposals::number_names().map(str::to_string));
    Tree { name: name.to_string(), images, absent: Vec::new(), scope: Scope::Only(covered) }
}

fn image(target: Target, release: Release, proposal: Option<&Proposal>) -> Image {
    let members = |def: &'static Def| -> Option<&'static [Member]> {
        if !def.targets.contains(&target) {
            return None;
        }
        proposal.and_then(|proposal| proposal.form(def.name)).or_else(|| def.members(release))
    };
    let mut image = Image::default();
    let own = proposal.map_or(&[] as &[Def], |proposal| proposal.adds);
    let exits = run::EXITS.iter().filter_map(|def| Some((def, members(def)?)));
    let added = own.iter().filter_map(|def| Some((def, def.members(Release::Linux7_2)?)));
    let (size, nodes) = run_page(target, exits.chain(added));
    flatten::add(&mut image.layouts, "kvm_run", size, &nodes);
    for (def, members) in others().filter_map(|def| Some((def, members(def)?))) {
        let placed = Rules { target, packed: def.packed }.place_struct(members);
        flatten::add(&mut image.layouts, def.name, placed.size, &placed.nodes);
    }
    image.constants = constants(release, proposal);
    image
}

/// `kvm_run` with these members in its exit union.
fn run_page<'d>(
    target: Target,
    exits: impl Iterator<Item = (&'d Def, &'static [Member])>,
) -> (u64, Vec<Node>) {
    let rules = Rules { target, packed: false };
    let mut nodes = rules.place_struct(run::HEAD).nodes;
    let mut union: Vec<Node> = rules.place_struct(run::FIXED_SIZE).nodes;
    for (def, members) in exits {
        let placed = rules.place_struct(members);
        let shape = Shape::Group(placed.nodes);
        union.push(Node { name: def.name.to_string(), offset: 0, size: placed.size, shape });
    }
    let union = Node { name: String::new(), offset: 32, size: 256, shape: Shape::Group(union) };
    nodes.push(union);
    // The head ends at 32 and the union at 288, multiples of every alignment, so the tail can be placed by itself.
    let tail = rules.place_struct(run::TAIL);
    nodes.extend(tail.nodes.into_iter().map(|node| Node { offset: node.offset.saturating_add(288), ..node }));
    (tail.size.saturating_add(288), nodes)
}

fn constants(release: Release, proposal: Option<&Proposal>) -> BTreeMap<String, u64> {
    let mut constants: BTreeMap<String, u64> = all_numbers()
        .filter(|number| number.since <= release)
        .map(|number| (number.name.to_string(), number.value))
        .collect();
    for (name, value) in proposal.map_or(&[] as &[_], |proposal| proposal.numbers) {
        match value {
            Some(value) => constants.insert((*name).to_string(), *value),
            None => constants.remove(*name),
        };
    }
    constants
}

#[cfg(test)]
mod tests;
