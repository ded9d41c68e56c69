//! AB: numbers, layouts, capabilities.

use super::{Checker, events, faults};
use crate::judge::transcript::Crossing;
use crate::judge::view::{ExitView, Finding, Judgement, View};
use exeunt_abi::kvm::caps::Cap;
use exeunt_proto::exit::Exit;

pub(super) const CHECKERS: &[(&str, Checker)] =
    &[("AB-1", numbers_of_this_kernel), ("AB-2", layouts), ("AB-3", capabilities_are_asked_for)];

/// Exits whose numbers were others when they were proposed are served as what they are.
fn numbers_of_this_kernel(view: &View<'_>) -> Judgement {
    let orders = view.trial.situation.orders;
    // A later fault may be one too many.
    let first_fault = view.exits.iter().find(|exit| faults::servable(view, exit)).map(|exit| exit.number);
    let choose = |exit: &ExitView<'_>| match exit.meaning {
        Ok(Exit::MemoryFault(_)) if orders.convert_faults && first_fault == Some(exit.number) => {
            Some("the fault is answered")
        }
        Ok(Exit::SnpReqCerts(_)) if orders.certificates => Some("the request for certificates is answered"),
        _ => None,
    };
    let served = view.each(choose, |exit, expected| match exit.answer {
        Some(_) => Ok(()),
        None => Err(exit.finding(expected, view.said())),
    })?;
    Ok(events::termination_is_known(view)? || served)
}

fn layouts(view: &View<'_>) -> Judgement {
    if view.trial.situation.orders.is_32_bit { events::flags(view) } else { Ok(false) }
}

/// Capabilities with which fields of the page or of the events come to mean something. Of others, the answer to
/// `KVM_ENABLE_CAP` is as good.
const FIELDS: [Cap; 7] = [
    Cap::EXCEPTION_PAYLOAD,
    Cap::X86_USER_SPACE_MSR,
    Cap::X86_BUS_LOCK_EXIT,
    Cap::EXIT_HYPERCALL,
    Cap::EXIT_ON_EMULATION_FAILURE,
    Cap::X86_TRIPLE_FAULT_EVENT,
    Cap::X86_NOTIFY_VMEXIT,
];

fn capabilities_are_asked_for(view: &View<'_>) -> Judgement {
    let mut there = Vec::new();
    let mut bit = false;
    for (_, crossing) in view.crossings() {
        match crossing {
            Crossing::CheckExtension { cap, value } => {
                bit = true;
                if *value != 0 {
                    there.push(*cap);
                }
            }
            Crossing::EnableCap { cap, result, .. } if FIELDS.contains(cap) && !there.contains(cap) => {
                let expected = format!("KVM_CHECK_EXTENSION says yes to {cap} first");
                return Err(Finding { exit: 0, expected, seen: format!("KVM_ENABLE_CAP: {result:?}") });
            }
            _ => {}
        }
    }
    Ok(bit)
}
