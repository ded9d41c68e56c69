//! HC: what conversions do to memory.

use super::Checker;
use super::conversions::{arguments, conversion};
use crate::judge::pages::Pages;
use crate::judge::transcript::Effect;
use crate::judge::view::{ExitView, Finding, Judgement, View};
use exeunt_proto::conversion::{Conversion, PageRange, PageState};
use exeunt_proto::host::Backing;

pub(super) const CHECKERS: &[(&str, Checker)] = &[
    ("HC-4", counts_small_pages),
    ("HC-5", attribute_bits),
    ("HC-8", discards),
    ("HC-9", split),
    ("HC-13", agreement),
    ("MF-6", faults_discard),
    ("RN-3", first_reading),
];

/// A conversion that was answered with success.
fn done(exit: &ExitView<'_>) -> Option<Conversion> {
    conversion(exit).filter(|_| exit.ret() == Some(0))
}

fn counts_small_pages(view: &View<'_>) -> Judgement {
    view.each(done, |exit, Conversion { range, to }| {
        let more =
            exit.changes().map(|(change, _)| change).find(|change| change.intersect(range) != Some(*change));
        if let Some(change) = more {
            return Err(exit.finding(
                format!("{} pages of 4 KiB from {} on", range.pages(), range.gpa()),
                change.to_string(),
            ));
        }
        let after = exit.pages_after();
        // None at all is a change to the wrong state, which is another rule.
        let is_short = |part: &PageRange| !after.are(*part, to) && after.count(*part, to) > 0;
        match view.parts(range).into_iter().find(is_short) {
            Some(part) => {
                let seen = format!("{} of {} pages", after.count(part, to), part.pages());
                Err(exit.finding(format!("all of {part} is {to}"), seen))
            }
            None => Ok(()),
        }
    })
}

/// `KVM_MAP_GPA_RANGE_ENCRYPTED`.
const PRIVATE: u64 = 0x10;
/// What is neither that nor a page size.
const RESERVED: u64 = !0x1f;

fn attribute_bits(view: &View<'_>) -> Judgement {
    view.each(arguments, |exit, [.., attributes]| {
        if attributes & RESERVED != 0 {
            return match (exit.changes().next(), exit.ret()) {
                (Some((range, _)), _) => {
                    Err(exit.finding("reserved bits are refused", format!("{range} changes")))
                }
                (None, Some(0)) => Err(exit.finding("reserved bits are refused", "ret is 0")),
                (None, _) => Ok(()),
            };
        }
        let to = if attributes & PRIVATE == 0 { PageState::Shared } else { PageState::Private };
        let expected = format!("attributes {attributes:#x} are {to}");
        if let Some((_, changed)) = exit.changes().find(|(_, changed)| *changed != to) {
            return Err(exit.finding(expected, changed.to_string()));
        }
        let after = exit.pages_after();
        let parts = done(exit).map(|conversion| view.parts(conversion.range)).unwrap_or_default();
        match parts.into_iter().find(|part| after.count(*part, to) == 0) {
            Some(part) => Err(exit.finding(expected, format!("no page of {part} is"))),
            None => Ok(()),
        }
    })
}

const fn other(state: PageState) -> PageState {
    match state {
        PageState::Private => PageState::Shared,
        PageState::Shared => PageState::Private,
    }
}

/// The memory that pages of this state do not use.
pub(super) const fn left(to: PageState) -> Backing {
    match to {
        PageState::Private => Backing::Shared,
        PageState::Shared => Backing::Private,
    }
}

/// After each change of attributes the memory that the changed pages do not use any more is given back, each page of it.
fn gives_back(view: &View<'_>, exit: &ExitView<'_>) -> Result<(), Finding> {
    for (at, (effect, result)) in exit.effects.iter().enumerate() {
        let Effect::Attributes { range, to } = effect else { continue };
        if result.is_err() || exit.pages.are(*range, *to) {
            continue;
        }
        let mut given = Pages::default();
        for (effect, _) in exit.effects.iter().skip(at) {
            if let Effect::Discard { range, backing } = effect {
                if *backing == left(*to) {
                    given.set(*range, PageState::Private);
                }
            }
        }
        let before = exit.pages.runs(*range, other(*to));
        let kept = before.into_iter().flat_map(|run| view.parts(run)).find_map(|part| {
            let missing = given.count(part, PageState::Shared);
            (missing > 0).then_some((part, missing))
        });
        if let Some((part, missing)) = kept {
            let expected = format!("{part} is {to}, then its {:?} memory is discarded", left(*to));
            return Err(exit.finding(expected, format!("{missing} pages of it are not discarded after")));
        }
    }
    Ok(())
}

fn discards(view: &View<'_>) -> Judgement {
    view.each(done, |exit, _| gives_back(view, exit))
}

fn faults_discard(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| match exit.meaning {
        Ok(exeunt_proto::exit::Exit::MemoryFault(_)) if exit.answer.is_some() => Some(()),
        _ => None,
    };
    view.each(choose, |exit, ()| gives_back(view, exit))
}

fn split(view: &View<'_>) -> Judgement {
    view.each(conversion, |exit, Conversion { range, to }| {
        let parts = view.parts(range);
        for (effect, _) in &exit.effects {
            let Some(touched) = effect.range() else { continue };
            let is_inside = match effect {
                // Attributes know no slots.
                Effect::Attributes { .. } => touched.intersect(range) == Some(touched),
                _ => parts.iter().any(|part| part.intersect(touched) == Some(touched)),
            };
            if !is_inside {
                return Err(exit.finding(
                    format!("nothing outside of {range} and the slots is touched"),
                    format!("{effect:x?}"),
                ));
            }
        }
        let after = exit.pages_after();
        match parts.iter().find(|part| !after.are(**part, to)) {
            Some(part) if exit.ret() == Some(0) => {
                Err(exit.finding(format!("{part}, as the other parts, is {to}"), "it is not"))
            }
            _ => Ok(()),
        }
    })
}

/// Memory that the pages use is never given back: a change that comes between another and its discard would do that.
fn agreement(view: &View<'_>) -> Judgement {
    let mut vcpus = Vec::new();
    for exit in &view.exits {
        if conversion(exit).is_some() && !vcpus.contains(&exit.run.vcpu) {
            vcpus.push(exit.run.vcpu);
        }
        // What the pages are when the next vCPU is entered. A VMM may discard before it changes attributes, and another
        // vCPU may convert right after: memory is in use if it is so both when it is discarded and in the end.
        let after = exit.pages_after();
        let mut now = (*exit.pages).clone();
        for (effect, result) in &exit.effects {
            now.note(effect, result.is_ok());
            let Effect::Discard { range, backing } = effect else { continue };
            let user = if *backing == Backing::Private { PageState::Private } else { PageState::Shared };
            let in_use = now.count_both(&after, *range, user);
            if in_use > 0 {
                let expected = "attributes and memory change under one lock: memory in use is not discarded";
                return Err(exit.finding(expected, format!("{effect:x?}, and {in_use} pages use it")));
            }
        }
    }
    Ok(vcpus.len() > 1)
}

fn first_reading(view: &View<'_>) -> Judgement {
    view.each(conversion, |exit, Conversion { range, .. }| {
        let strange = exit.effects.iter().find(|(effect, _)| {
            effect.range().is_some_and(|touched| touched.intersect(range) != Some(touched))
        });
        match strange {
            Some((effect, _)) => {
                Err(exit.finding(format!("only {range}, as KVM wrote"), format!("{effect:x?}")))
            }
            None => Ok(()),
        }
    })
}
