//! A 32-bit process on a 64-bit kernel: the same header, compiled twice.

use super::Findings;
use super::fields::at;
use super::finding::{Change, Severity};
use crate::known;
use crate::target::Target;
use crate::tree::{Layout, Tree};

/// Compares what a process of `target` sees with what its 64-bit kernel has, in each tree and from the old process to
/// the new kernel.
pub(super) fn compare(findings: &mut Findings, old: &Tree, new: &Tree, target: Target, name: &str) {
    let Some(kernel) = target.compat_kernel() else { return };
    if !known::in_use_on(name, target) || known::is_no_matter_for_compat(name) {
        return;
    }
    let mut pair = Pair { findings, name, target };
    for tree in [old, new] {
        if let (Some(process), Some(kernel)) = (tree.layout(target, name), tree.layout(kernel, name)) {
            pair.within(tree, process, kernel);
        }
    }
    let (process, was) = (old.layout(target, name), old.layout(kernel, name));
    if let (Some(process), Some(was), Some(now)) = (process, was, new.layout(kernel, name)) {
        pair.across([old, new], process, was, now);
    }
}

struct Pair<'p> {
    findings: &'p mut Findings,
    name: &'p str,
    target: Target,
}

impl Pair<'_> {
    fn add(&mut self, change: Change) {
        self.findings.add(Severity::Break, self.name, self.target, change);
    }

    fn within(&mut self, tree: &Tree, process: &Layout, kernel: &Layout) {
        let (abi, name) = (self.target, || tree.name.clone());
        for field in process.fields.iter().filter(|field| !field.is_reserved()) {
            let Some(same) = kernel.field(&field.path) else { continue };
            let path = field.path.clone();
            if same.offset != field.offset {
                let (process, kernel) = (at(process, field.offset), at(kernel, same.offset));
                self.add(Change::CompatMoved { abi, field: path, process, kernel, tree: name() });
            } else if same.size != field.size {
                let (process, kernel) = (field.size, same.size);
                self.add(Change::CompatResized { abi, field: path, process, kernel, tree: name() });
            }
        }
        // Padding at the end of a member of the exit union is never looked at.
        if process.place.is_none() && process.size != kernel.size {
            let (process, kernel) = (process.size, kernel.size);
            self.add(Change::CompatSize { abi, process, kernel, tree: name() });
        }
    }

    /// Fields that are elsewhere than in the old kernel: what does the new kernel have in their place?
    fn across(&mut self, [old, new]: [&Tree; 2], process: &Layout, was: &Layout, now: &Layout) {
        let abi = self.target;
        for field in process.fields.iter().filter(|field| !field.is_reserved()) {
            let moved = was.field(&field.path).is_some_and(|same| same.offset != field.offset);
            let at_home = now.field(&field.path).is_some_and(|same| same.offset == field.offset);
            if !moved || at_home {
                continue;
            }
            let others = now.overlapping(field.bytes());
            let others = others.filter(|other| other.path != field.path && !other.is_reserved());
            let with: Vec<String> = others.map(|other| other.path.clone()).collect();
            if !with.is_empty() {
                let (field, at) = (field.path.clone(), at(process, field.offset));
                let (old, new) = (old.name.clone(), new.name.clone());
                self.add(Change::CompatCollides { abi, field, at, old, new, with });
            }
        }
    }
}
