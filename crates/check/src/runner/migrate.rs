//! A migration with a triple fault that KVM has synthesized and not serviced.

use super::drive::{ScenarioVcpu, drive};
use super::{End, Ran};
use crate::scenario::{Case, Migration};
use crate::timeline::Log;
use exeunt::Policy;
use exeunt::snapshot::SavedEvents;
use exeunt_proto::host::Host;

/// Saves in one VM, restores in another, and runs that one. `make` makes a VM with one vCPU, with the capability or
/// without.
pub(super) fn migrate<V: ScenarioVcpu, H: Host>(
    case: &Case,
    migration: Migration,
    policy: &Policy,
    log: &Log,
    mut make: impl FnMut(bool) -> Result<(V, H), String>,
) -> Result<Ran, String> {
    let with = |capability: bool| if capability { "with" } else { "without" };
    let Migration { source_capability, target_capability } = migration;
    log.vmm(format!("makes the source {} x86-triple-fault-event (218)", with(source_capability)));
    let (mut source, _host) = make(source_capability)?;
    source.raise_triple_fault()?;
    log.vmm("reports an uncorrected machine check while CR4.MCE is clear: KVM requests a triple fault");
    let saved = SavedEvents::save(&mut source).map_err(|error| error.to_string())?;
    let flags = saved.events().flags;
    log.vmm(match saved.triple_fault() {
        Some(pending) => format!("saves the events: flags {flags:#x}, triple fault pending {pending}"),
        None => format!("saves the events: flags {flags:#x}, which say nothing of a triple fault"),
    });
    drop(source);
    log.vmm(format!("makes the target {} x86-triple-fault-event (218)", with(target_capability)));
    let (mut target, host) = make(target_capability)?;
    if let Err(error) = saved.restore(&mut target) {
        log.vmm(format!("does not start the target: {error}"));
        return Ok(Ran { end: End { keyword: "refused", text: error.to_string() }, exits: Vec::new() });
    }
    log.vmm("restores the events and runs the target");
    let ran = drive(case, policy, vec![target], host, 0, log, || false);
    if ran.end.keyword != "shutdown" {
        log.vmm("never learns of the triple fault: the guest runs on with corrupt state");
    }
    Ok(ran)
}
