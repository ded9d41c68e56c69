//! TF: triple faults that are pending while a vCPU is saved or restored.

use super::Checker;
use crate::judge::transcript::Crossing;
use crate::judge::view::{Finding, Judgement, View};
use exeunt_abi::Arch;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::{VALID_TRIPLE_FAULT, VcpuEvents};
use exeunt_proto::events::triple_fault;
use exeunt_scenes::Task;

pub(super) const CHECKERS: &[(&str, Checker)] = &[
    ("TF-1", enabled),
    ("TF-2", carried_over),
    ("TF-3", reading_takes_nothing),
    ("TF-4", taken_back),
    ("TF-5", valid_bit),
];

fn finding(expected: &str, seen: impl Into<String>) -> Finding {
    Finding { exit: 0, expected: expected.into(), seen: seen.into() }
}

/// What the first VM's events were when they were read, in order.
fn saved(view: &View<'_>) -> Vec<VcpuEvents> {
    let read = view.crossings().filter_map(|(machine, crossing)| match crossing {
        Crossing::GetEvents { result: Ok(events), .. } if machine == 0 => Some(*events),
        _ => None,
    });
    read.collect()
}

/// What was set, where, and whether it was taken.
fn set(view: &View<'_>) -> Vec<(u8, VcpuEvents, bool)> {
    let set = view.crossings().filter_map(|(machine, crossing)| match crossing {
        Crossing::SetEvents { events, result, .. } => Some((machine, *events, result.is_ok())),
        _ => None,
    });
    set.collect()
}

/// Whether a VM has the capability.
fn is_enabled(view: &View<'_>, on: u8) -> bool {
    view.crossings().any(|(machine, crossing)| {
        let is_it = matches!(
            crossing,
            Crossing::EnableCap { cap: Cap::X86_TRIPLE_FAULT_EVENT, argument: 1, result: Ok(()) }
        );
        machine == on && is_it
    })
}

fn enabled(view: &View<'_>) -> Judgement {
    if !view.kernel().dialect.has_triple_fault_event() || view.kernel().arch != Arch::X86 {
        return Ok(false);
    }
    if is_enabled(view, 0) {
        return Ok(true);
    }
    Err(finding("capability 218 is enabled, as the kernel has it", "it is not enabled"))
}

fn carried_over(view: &View<'_>) -> Judgement {
    let Some(events) = saved(view).last().copied().filter(|events| triple_fault(events) == Some(true)) else {
        return Ok(false);
    };
    let ran = view.exits.iter().any(|exit| exit.machine == 1);
    let given = set(view)
        .iter()
        .any(|(machine, events, taken)| *machine == 1 && *taken && triple_fault(events) == Some(true));
    match (ran, given) {
        (true, true) => Ok(true),
        (false, _) if view.status().has_given_up() => Ok(true),
        _ => {
            let expected = "the target gets the pending triple fault, or is not run";
            Err(finding(
                expected,
                format!("saved flags {:#x}; the target ran: {ran}, it got it: {given}", events.flags),
            ))
        }
    }
}

fn reading_takes_nothing(view: &View<'_>) -> Judgement {
    let saved = saved(view);
    let [first, .., last] = saved.as_slice() else { return Ok(false) };
    if let Some((_, events, _)) =
        set(view).iter().find(|(_, events, _)| triple_fault(events) != triple_fault(first))
    {
        let seen = format!(
            "KVM_SET_VCPU_EVENTS with flags {:#x}, pending {}",
            events.flags, events.triple_fault_pending
        );
        return Err(finding("a vCPU that is read is left as it is", seen));
    }
    if triple_fault(first) != triple_fault(last) {
        return Err(finding("the same triple fault at each reading", format!("{first:?}, then {last:?}")));
    }
    Ok(true)
}

fn taken_back(view: &View<'_>) -> Judgement {
    let Some(events) = saved(view).first().copied().filter(|events| triple_fault(events) == Some(false))
    else {
        return Ok(false);
    };
    let set = set(view);
    let Some((machine, restored, _)) = set.last() else {
        return match view.trial.situation.orders.task {
            Task::GoBack => Err(finding("KVM_SET_VCPU_EVENTS with what was saved", "no such ioctl")),
            _ => Ok(false),
        };
    };
    if !is_enabled(view, *machine) {
        return Ok(false);
    }
    if triple_fault(restored) == triple_fault(&events) {
        return Ok(true);
    }
    let seen = format!("flags {:#x}, pending {}", restored.flags, restored.triple_fault_pending);
    Err(finding("the valid bit with pending = 0, which clears", seen))
}

fn valid_bit(view: &View<'_>) -> Judgement {
    let mut enabled = [false; 2];
    let mut failed = [false; 2];
    let mut bit = false;
    for (machine, crossing) in view.crossings() {
        let machine = usize::from(machine.min(1));
        let (Some(enabled), Some(failed)) = (enabled.get_mut(machine), failed.get_mut(machine)) else {
            continue;
        };
        match crossing {
            Crossing::EnableCap { cap: Cap::X86_TRIPLE_FAULT_EVENT, result: Ok(()), .. } => *enabled = true,
            Crossing::GetEvents { .. } => *failed = false,
            Crossing::SetEvents { events, result, .. } => {
                bit = true;
                if events.flags & VALID_TRIPLE_FAULT != 0 && !*enabled {
                    let expected = "no KVM_VCPUEVENT_VALID_TRIPLE_FAULT where capability 218 is not enabled";
                    return Err(finding(expected, format!("flags {:#x}", events.flags)));
                }
                if *failed {
                    return Err(finding(
                        "after EINVAL the state is read again first",
                        "KVM_SET_VCPU_EVENTS once more",
                    ));
                }
                *failed = result.is_err();
            }
            _ => {}
        }
    }
    Ok(bit)
}
