//! MF: memory faults.

use super::Checker;
use crate::judge::view::{ExitView, Finding, Judgement, View};
use exeunt_abi::{Errno, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::{Exit, MemoryFault};

pub(super) const CHECKERS: &[(&str, Checker)] = &[
    ("MF-1", no_fault_without_its_reason),
    ("MF-2", unknown_flags_end),
    ("MF-3", bounded),
    ("MF-4", poison_ends),
    ("MF-5", outside_ends),
    ("MF-7", not_by_default),
];

fn fault(exit: &ExitView<'_>) -> Option<MemoryFault> {
    match exit.meaning {
        Ok(Exit::MemoryFault(fault)) => Some(fault),
        _ => None,
    }
}

fn no_fault_without_its_reason(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| {
        let failed = matches!(exit.run.entered, Err(Errno::EFAULT | Errno::EHWPOISON));
        (failed && fault(exit).is_none()).then_some(())
    };
    view.each(choose, |exit, ()| view.ends_here(exit))
}

fn unknown_flags_end(view: &View<'_>) -> Judgement {
    view.each(|exit| fault(exit).filter(|fault| fault.unknown_flags != 0), |exit, _| view.ends_here(exit))
}

/// Repeats that nobody would wait for.
const MANY: usize = 100;

fn bounded(view: &View<'_>) -> Judgement {
    let mut last: Option<(MemoryFault, usize)> = None;
    let mut most: Option<(&ExitView<'_>, usize)> = None;
    for exit in &view.exits {
        let Some(fault) = fault(exit) else {
            last = None;
            continue;
        };
        let repeats = last.filter(|(before, _)| *before == fault).map_or(1, |(_, repeats)| repeats + 1);
        last = Some((fault, repeats));
        if most.is_none_or(|(_, before)| repeats > before) {
            most = Some((exit, repeats));
        }
    }
    let Some((exit, repeats)) = most.filter(|(_, repeats)| *repeats > 1) else { return Ok(false) };
    if repeats > MANY || !view.status().has_given_up() {
        let seen = format!("{repeats} times, then {:?}: {}", view.status(), view.said());
        return Err(exit.finding("the same fault a bounded number of times, then an error", seen));
    }
    Ok(true)
}

fn poison_ends(view: &View<'_>) -> Judgement {
    view.each(|exit| fault(exit).filter(|fault| fault.poisoned), |exit, _| view.ends_here(exit))
}

fn has_memory(view: &View<'_>, fault: &MemoryFault) -> bool {
    PageRange::new(fault.gpa.gfn(), fault.size / PAGE_SIZE).is_some_and(|range| view.has_memory(range))
}

fn outside_ends(view: &View<'_>) -> Judgement {
    view.each(|exit| fault(exit).filter(|fault| !has_memory(view, fault)), |exit, _| view.ends_here(exit))
}

/// A fault that a conversion may mend.
pub(super) fn servable(view: &View<'_>, exit: &ExitView<'_>) -> bool {
    fault(exit).is_some_and(|fault| !fault.poisoned && fault.unknown_flags == 0 && has_memory(view, &fault))
}

fn not_by_default(view: &View<'_>) -> Judgement {
    let is_chosen = view.trial.situation.orders.convert_faults;
    let judge = |exit: &ExitView<'_>, _: MemoryFault| -> Result<(), Finding> { view.ends_here(exit) };
    view.each(|exit| fault(exit).filter(|_| !is_chosen), judge)
}
