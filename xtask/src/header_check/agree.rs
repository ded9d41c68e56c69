//! The registry against what a compiler says: pure, so that a test can plant a mistake.

use exeunt_headers::space::Space;
use exeunt_headers::{Image, Layout, Scope, Target};

use super::numbers::{self, Number};
use super::{Forms, is_x86};

/// What was compared, and what came of it.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) structs: usize,
    pub(crate) fields: usize,
    pub(crate) constants: usize,
    pub(crate) own_constants: usize,
    /// Structs and numbers that these headers do not have yet.
    pub(crate) newer: Vec<String>,
    /// Numbers that are another architecture's.
    pub(crate) elsewhere: usize,
    /// Numbers of `exeunt-abi` that the headers do not have for this architecture.
    pub(crate) own_elsewhere: usize,
    /// Targets without a compiler or without headers.
    pub(crate) absent: usize,
    pub(crate) differences: Vec<String>,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.structs += other.structs;
        self.fields += other.fields;
        self.constants += other.constants;
        self.own_constants += other.own_constants;
        self.newer.extend(other.newer);
        self.elsewhere += other.elsewhere;
        self.own_elsewhere += other.own_elsewhere;
        self.absent += other.absent;
        self.differences.extend(other.differences);
    }

    pub(crate) fn counts(&self) -> String {
        let mut parts = vec![format!(
            "{} structs, {} fields, {} constants and {} of exeunt-abi compared, {} differ",
            self.structs,
            self.fields,
            self.constants,
            self.own_constants,
            self.differences.len()
        )];
        let others = [
            (self.newer.len(), "not in these headers"),
            (self.elsewhere, "numbers of other architectures"),
            (self.own_elsewhere, "of exeunt-abi not in these headers"),
            (self.absent, "targets not looked at"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            parts.push(format!("{count} {what}"));
        }
        parts.join("; ")
    }
}

/// Compares one target.
pub(crate) fn compare(forms: &Forms, target: Target, image: &Image) -> Outcome {
    let mut outcome = Outcome::default();
    structs(&mut outcome, forms, target, image);
    constants(&mut outcome, forms, target, image);
    own_numbers(&mut outcome, &numbers::of_abi(target), forms.are_newest(), target, image);
    outcome
}

/// Holds the numbers of `exeunt-abi` to the headers. Headers of the newest release have to have them all, and no other
/// in the families that `exeunt-abi` has to know.
fn own_numbers(outcome: &mut Outcome, own: &[Number], is_newest: bool, target: Target, image: &Image) {
    for number in own {
        let Number { name, path, value, .. } = number;
        match image.constants.get(name) {
            Some(real) if number.agrees_with(*real) => outcome.own_constants += 1,
            Some(real) => {
                outcome
                    .differences
                    .push(format!("exeunt-abi has {name} = {value:#x} ({path}), the headers {real:#x}"));
            }
            None if is_newest && number.belongs_to(target) => {
                outcome.differences.push(format!("{name} ({path}) of exeunt-abi is not in the headers"));
            }
            None => outcome.own_elsewhere += 1,
        }
    }
    if !is_newest {
        return;
    }
    for (name, value) in &image.constants {
        if numbers::is_of_a_complete_family(name) && !own.iter().any(|number| number.name == *name) {
            outcome.differences.push(format!("{name} ({value:#x}) is not in exeunt-abi"));
        }
    }
}

fn structs(outcome: &mut Outcome, forms: &Forms, target: Target, image: &Image) {
    let Some(newest) = forms.newest.images.get(&target) else { return };
    let has = |name: &String| forms.trees.iter().any(|tree| tree.layout(target, name).is_some());
    let names = newest.layouts.keys().chain(forms.trees.iter().flat_map(|tree| {
        // A struct that later releases dropped.
        let own = tree.images.get(&target).into_iter().flat_map(|image| image.layouts.keys());
        own.filter(|name| !newest.layouts.contains_key(*name))
    }));
    for name in names {
        let Some(real) = image.layouts.get(name) else {
            if has(name) && forms.exact {
                outcome.differences.push(format!("{name} is not in the headers, and their release has it"));
            } else {
                outcome.newer.push(name.clone());
            }
            continue;
        };
        let own = forms.trees.iter().filter_map(|tree| tree.layout(target, name));
        let mut candidates: Vec<&Layout> = own.collect();
        // A struct that was brought to an older release is the newest form of it.
        if candidates.is_empty() {
            candidates.extend(newest.layouts.get(name));
        }
        outcome.structs += 1;
        let verdicts: Vec<Vec<String>> = candidates
            .iter()
            .map(|ours| fields(name, ours, real, forms.exact, &forms.newest.scope))
            .collect();
        outcome.fields += candidates.first().map_or(0, |ours| ours.fields.len());
        if !verdicts.iter().any(Vec::is_empty) {
            outcome.differences.extend(verdicts.into_iter().next().unwrap_or_default());
        }
    }
}

/// The differences between a struct of the registry and the compiler's.
fn fields(name: &str, ours: &Layout, real: &Layout, exact: bool, scope: &Scope) -> Vec<String> {
    let mut differences = Vec::new();
    if ours.size != real.size {
        differences.push(format!("{name}: sizeof is {} and {} in the headers", ours.size, real.size));
    }
    if ours.place != real.place {
        differences.push(format!(
            "{name}: is at {:?} of kvm_run and at {:?} in the headers",
            ours.place, real.place
        ));
    }
    for field in &ours.fields {
        let path = &field.path;
        match real.field(path) {
            None => differences.push(format!("{name}.{path}: is not in the headers")),
            Some(same) if same == field => {}
            Some(same) => {
                let place = |field: &exeunt_headers::Field| {
                    let bits =
                        field.bits.map_or(String::new(), |bits| format!(" bits {}+{}", bits.low, bits.width));
                    format!("{} at {}, {} bytes{bits}", field.type_name, field.offset, field.size)
                };
                differences.push(format!(
                    "{name}.{path}: is {} and {} in the headers",
                    place(field),
                    place(same)
                ));
            }
        }
    }
    for field in real.fields.iter().filter(|field| exact && scope.covers_field(name, &field.path)) {
        if ours.field(&field.path).is_none() {
            differences.push(format!("{name}.{}: is not in the registry", field.path));
        }
    }
    differences
}

fn constants(outcome: &mut Outcome, forms: &Forms, target: Target, image: &Image) {
    let Some(newest) = forms.newest.images.get(&target) else { return };
    let known = |name: &String| {
        forms
            .trees
            .iter()
            .any(|tree| tree.images.get(&target).is_some_and(|own| own.constants.contains_key(name)))
    };
    for (name, value) in &newest.constants {
        match image.constants.get(name) {
            Some(real) if real == value => outcome.constants += 1,
            Some(real) => {
                outcome.differences.push(format!("{name} is {value:#x} and {real:#x} in the headers"));
            }
            None if !known(name) => outcome.newer.push(name.clone()),
            None if is_x86(target) && forms.exact => {
                outcome.differences.push(format!("{name} is not in the headers, and their release has it"));
            }
            None => outcome.elsewhere += 1,
        }
    }
    if !forms.exact || !is_x86(target) {
        return;
    }
    for space in Space::all() {
        for (name, value) in space.members(&image.constants) {
            if !newest.constants.contains_key(name) {
                outcome.differences.push(format!("{name} ({value}) is not in the registry"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
