//! One struct, on one target, before and after.

use super::Findings;
use super::finding::{At, Change, Severity};
use crate::known;
use crate::target::Target;
use crate::tree::{Field, Layout, Tree};

/// The bytes of `kvm_run`'s exit union.
const UNION_BYTES: u64 = 256;

pub(super) fn at(layout: &Layout, offset: u64) -> At {
    At { offset, in_kvm_run: layout.place.map(|place| place.saturating_add(offset)) }
}

/// Compares a struct. True if it has changed.
pub(super) fn compare(findings: &mut Findings, old: &Tree, new: &Tree, target: Target, name: &str) -> bool {
    let mut pair = Pair { findings, name, target };
    let known = old.both_know_architectures(new);
    match (old.layout(target, name), new.layout(target, name)) {
        (None, None) => false,
        // A struct of one architecture that the other tree declares for more, or for fewer.
        (Some(_), None) if new.struct_names().contains(name) => {
            if known {
                pair.add(Severity::Note, Change::StructGoneHere);
            }
            known
        }
        (None, Some(_)) if old.struct_names().contains(name) && !known => false,
        (Some(_), None) => {
            pair.add(Severity::Break, Change::StructRemoved);
            true
        }
        (None, Some(now)) => {
            pair.add(Severity::Note, Change::StructAdded { size: now.size });
            pair.holes(now);
            true
        }
        (Some(was), Some(now)) if was == now => false,
        (Some(was), Some(now)) => {
            pair.size(was, now);
            let covered =
                |field: &&Field| [old, new].iter().all(|tree| tree.scope.covers_field(name, &field.path));
            for field in was.fields.iter().filter(covered) {
                pair.old_field(was, now, field);
            }
            for field in now.fields.iter().filter(covered) {
                pair.new_field(was, now, field);
            }
            true
        }
    }
}

struct Pair<'p> {
    findings: &'p mut Findings,
    name: &'p str,
    target: Target,
}

impl Pair<'_> {
    fn add(&mut self, severity: Severity, change: Change) {
        self.findings.add(severity, self.name, self.target, change);
    }

    fn size(&mut self, was: &Layout, now: &Layout) {
        if was.size == now.size {
            return;
        }
        // A member of the exit union may grow: the union has a fixed size. Elsewhere the size is part of the ioctl's
        // number, or the stride of an array.
        let fits = now.place.is_some() && now.size <= UNION_BYTES;
        let severity = if fits { Severity::Note } else { Severity::Break };
        self.add(severity, Change::SizeChanged { from: was.size, to: now.size });
    }

    /// What became of a field.
    fn old_field(&mut self, was: &Layout, now: &Layout, field: &Field) {
        let name = field.path.clone();
        if field.is_reserved() {
            // Its bytes are nobody's; who takes them is told with the new field.
            return;
        }
        let Some(same) = now.field(&field.path) else {
            let own = now.overlapping(field.bytes()).filter(|other| !other.is_reserved());
            let by: Vec<String> = own.map(|other| other.path.clone()).collect();
            let place = at(was, field.offset);
            let change = if by.is_empty() {
                Change::Removed { field: name, at: place, size: field.size }
            } else {
                Change::Reused { field: name, at: place, size: field.size, by }
            };
            self.add(Severity::Break, change);
            return;
        };
        if (same.offset, same.bits.map(|bits| bits.low)) != (field.offset, field.bits.map(|bits| bits.low)) {
            let (from, to) = (at(was, field.offset), at(now, same.offset));
            let onto =
                now.overlapping(field.bytes()).filter(|other| other.path != name && !other.is_reserved());
            let onto = onto.map(|other| other.path.clone()).collect();
            self.add(Severity::Break, Change::Moved { field: name.clone(), from, to, onto });
        }
        if same.size != field.size || same.bits.map(|bits| bits.width) != field.bits.map(|bits| bits.width) {
            let (from, to) = (field.size, same.size);
            self.add(Severity::Break, Change::Resized { field: name, at: at(was, field.offset), from, to });
        } else if same.type_name != field.type_name {
            let (from, to) = (field.type_name.clone(), same.type_name.clone());
            self.add(Severity::Note, Change::Retyped { field: name, at: at(was, field.offset), from, to });
        }
    }

    /// Whose bytes a new field takes.
    fn new_field(&mut self, was: &Layout, now: &Layout, field: &Field) {
        if field.is_reserved() || was.field(&field.path).is_some() {
            return;
        }
        let (name, place, size) = (field.path.clone(), at(now, field.offset), field.size);
        let mut over: Vec<&Field> = was.overlapping(field.bytes()).collect();
        let paths = |fields: &[&Field]| fields.iter().map(|field| field.path.clone()).collect::<Vec<_>>();
        let gate = known::gate(self.name, &field.path);
        let reserved: Vec<&Field> = over.extract_if_reserved();
        let stays = |old: &&Field| now.field(&old.path).is_some_and(|same| same.offset == old.offset);
        if over.iter().any(stays) {
            over.retain(stays);
            self.add(Severity::Note, Change::Overlaid { field: name, at: place, over: paths(&over) });
        } else if !over.is_empty() {
            // The old fields' own findings name this one.
        } else if !reserved.is_empty() {
            let reserved = paths(&reserved);
            self.add(Severity::Note, Change::ReservedUsed { field: name, at: place, size, reserved, gate });
        } else if field.offset < was.size {
            let severity = if gate.is_some() { Severity::Note } else { Severity::Break };
            self.add(severity, Change::PaddingUsed { field: name, at: place, size, gate });
        } else {
            self.add(Severity::Note, Change::Added { field: name, at: place, size });
        }
    }

    /// Padding of a new struct, which can still be spelt out.
    fn holes(&mut self, now: &Layout) {
        let mut end: u64 = 0;
        for field in &now.fields {
            if field.offset > end {
                let (before, size) = (field.path.clone(), field.offset - end);
                self.add(Severity::Note, Change::Hole { before, at: at(now, end), size });
            }
            end = end.max(field.bytes().end);
        }
    }
}

trait ExtractReserved {
    /// Takes out the reserved fields and returns them.
    fn extract_if_reserved(&mut self) -> Self;
}

impl ExtractReserved for Vec<&Field> {
    fn extract_if_reserved(&mut self) -> Self {
        let (reserved, others) = self.drain(..).partition(|field| field.is_reserved());
        *self = others;
        reserved
    }
}
