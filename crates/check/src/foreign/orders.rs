//! Arguments by which a VMM is told what a scene wants of it.

use super::Subject;
use super::certificates::TableFile;
use super::scenes::{self, Scene};
use exeunt_abi::kvm::vm_type::VmType;
use std::ffi::OsString;

/// Those of the profile for the orders of the scene, with what stands in braces filled in.
pub(super) fn arguments(subject: &Subject, scene: &Scene, table: Option<&TableFile>) -> Vec<OsString> {
    let Some(profile) = &subject.profile else { return Vec::new() };
    let orders = scene.situation.orders;
    let vm_type = scenes::vm_type(profile, &scene.situation);
    let wanted = [
        ("vm-type", true),
        ("convert-faults", orders.convert_faults && !profile.convert_faults),
        ("ignore-events", orders.ignore_events),
        ("certificates", orders.certificates),
        ("vcpus", scene.situation.vcpus > 1),
    ];
    let wanted = wanted.into_iter().filter(|(_, is_wanted)| *is_wanted);
    let path = table.map(|table| table.path().display().to_string()).unwrap_or_default();
    let vcpus = scene.situation.vcpus.to_string();
    let vm_type = vm_type.map_or("", VmType::name);
    let fill = |text: &String| {
        let text = text.replace("{certificates}", &path).replace("{vcpus}", &vcpus);
        text.replace("{vm-type}", vm_type).into()
    };
    wanted.flat_map(|(order, _)| profile.when(order).iter().map(fill)).collect()
}
