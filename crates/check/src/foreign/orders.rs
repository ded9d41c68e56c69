//! Arguments by which a VMM is told what a scene wants of it.

use super::certificates::TableFile;
use super::scenes::{self, Scene};
use super::{Profile, Subject};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_scenes::{Part, Task};
use std::ffi::OsString;

/// Those of the profile for the orders of the scene, with what stands in braces filled in.
pub(super) fn arguments(subject: &Subject, scene: &Scene, table: Option<&TableFile>) -> Vec<OsString> {
    let Some(profile) = &subject.profile else { return Vec::new() };
    let Scene { situation, .. } = scene;
    let orders = situation.orders;
    let vm_type = scenes::vm_type(profile, situation);
    let wanted = [
        ("vm-type", true),
        ("convert-faults", orders.convert_faults && !profile.convert_faults),
        ("ignore-events", orders.ignore_events),
        ("certificates", orders.certificates),
        ("vcpus", situation.vcpus > 1),
        ("irqchip", situation.apic_in_kernel),
        ("save-after", matches!(orders.task, Task::SaveAfter(_))),
        ("save-twice", orders.task == Task::SaveTwice),
    ];
    let wanted = wanted.into_iter().filter(|(_, is_wanted)| *is_wanted);
    let path = table.map(|table| table.path().display().to_string()).unwrap_or_default();
    let exits = if let Task::SaveAfter(exits) = orders.task { exits } else { 0 };
    let facts = [
        ("{certificates}", path),
        ("{vcpus}", situation.vcpus.to_string()),
        ("{vm-type}", vm_type.map_or("", VmType::name).into()),
        ("{exits}", exits.to_string()),
    ];
    let mut arguments: Vec<_> =
        wanted.flat_map(|(order, _)| profile.when(order)).map(|text| fill(text, &facts)).collect();
    arguments.extend(memory(profile, &situation.memory));
    arguments
}

/// The order that a task is given by, if it can be given.
pub(super) const fn of_task(task: Task) -> Result<Option<&'static str>, ()> {
    match task {
        Task::Run => Ok(None),
        Task::SaveAfter(_) => Ok(Some("save-after")),
        Task::SaveTwice => Ok(Some("save-twice")),
        // The second VM, or what happens in between, is the judge's.
        Task::GoBack | Task::Migrate => Err(()),
    }
}

/// Arguments for each part of a memory that has several.
fn memory(profile: &Profile, parts: &[Part]) -> Vec<OsString> {
    let parts = if parts.len() > 1 { parts } else { &[] };
    let arguments = parts.iter().flat_map(|part| {
        let order = if part.has_private { "memory" } else { "shared-memory" };
        let facts = [("{gpa}", format!("{:#x}", part.gpa)), ("{bytes}", format!("{:#x}", part.bytes))];
        profile.when(order).iter().map(|text| fill(text, &facts)).collect::<Vec<_>>()
    });
    arguments.collect()
}

fn fill(text: &str, facts: &[(&str, String)]) -> OsString {
    facts.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value)).into()
}
