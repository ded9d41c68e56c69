//! HC: what is answered to hypercalls, and what is asked for.

use super::Checker;
use crate::judge::transcript::Crossing;
use crate::judge::view::{ExitView, Finding, Judgement, View, signed};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{MAP_GPA_RANGE, VmgexitV10};
use exeunt_abi::{Errno, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::{Conversion, PageRange, PageState, map_gpa_range};
use exeunt_proto::exit::Exit;

pub(super) const CHECKERS: &[(&str, Checker)] = &[
    ("HC-1", chosen_mask),
    ("HC-2", known_ret),
    ("HC-3", ret_is_written),
    ("HC-6", bounded),
    ("HC-7", unaligned_is_refused),
    ("HC-10", shared_without_memory),
    ("HC-11", again),
    ("HC-12", unknown_is_refused),
    ("HC-14", drained),
    ("HC-15", einval_ends),
];

/// The hypercall's arguments, as the guest gave them.
pub(super) fn arguments(exit: &ExitView<'_>) -> Option<[u64; 3]> {
    let call = exit.hypercall().filter(|call| call.nr == MAP_GPA_RANGE)?;
    let [gpa, pages, attributes, ..] = call.args;
    Some([gpa, pages, attributes])
}

/// A conversion that makes sense.
pub(super) fn conversion(exit: &ExitView<'_>) -> Option<Conversion> {
    arguments(exit).and_then(|args| map_gpa_range(args).ok())
}

/// `-22`, `0` and the like.
fn number(ret: u64) -> String {
    format!("{} ({ret:#x})", signed(ret))
}

/// The pages are what they were to become.
pub(super) fn is_done(view: &View<'_>, exit: &ExitView<'_>, Conversion { range, to }: Conversion) -> bool {
    let (after, parts) = (exit.pages_after(), view.parts(range));
    let has_all = parts.iter().map(|part| part.pages()).sum::<u64>() == range.pages();
    (to == PageState::Shared || has_all) && parts.into_iter().all(|part| after.are(part, to))
}

fn chosen_mask(view: &View<'_>) -> Judgement {
    let known = 1 << MAP_GPA_RANGE;
    let mut bit = false;
    for (_, crossing) in view.crossings() {
        if let Crossing::EnableCap { cap: Cap::EXIT_HYPERCALL, argument, .. } = crossing {
            bit = true;
            if argument & !known != 0 {
                let expected = format!("a mask of hypercalls that the VMM knows, such as {known:#x}");
                return Err(Finding { exit: 0, expected, seen: format!("{argument:#x}") });
            }
        }
    }
    Ok(bit)
}

fn known_ret(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| arguments(exit).and_then(|_| exit.ret());
    view.each(choose, |exit, ret| {
        let is_known =
            [Errno(0), Errno::EINVAL, Errno::EAGAIN].iter().any(|errno| u64::try_from(errno.0) == Ok(ret));
        if is_known { Ok(()) } else { Err(exit.finding("ret is 0, 22 or 11", number(ret))) }
    })
}

fn ret_is_written(view: &View<'_>) -> Judgement {
    view.each(conversion, |exit, conversion| {
        let Some(ret) = exit.ret() else {
            return Err(exit.finding("the request is answered, and the VM goes on", view.said()));
        };
        let is_done = is_done(view, exit, conversion);
        if is_done == (ret == 0) {
            return Ok(());
        }
        let expected = if is_done { "ret is 0: all was done" } else { "an error: not all was done" };
        Err(exit.finding(expected, number(ret)))
    })
}

/// The range in bytes does not fit into memory.
fn is_too_long(view: &View<'_>, [gpa, pages, _]: [u64; 3]) -> bool {
    PageRange::new(Gpa(gpa).gfn(), pages).is_none_or(|range| !view.has_memory(range))
}

fn bounded(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| arguments(exit).filter(|args| is_too_long(view, *args));
    view.each(choose, |exit, [gpa, pages, attributes]| {
        let outside = exit
            .effects
            .iter()
            .find(|(effect, _)| effect.range().is_some_and(|range| !view.has_memory(range)));
        if let Some((effect, _)) = outside {
            return Err(exit.finding("no ioctl for what is not memory", format!("{effect:x?}")));
        }
        let wraps = PageRange::new(Gpa(gpa).gfn(), pages).is_none();
        let is_private = attributes & 0x10 != 0;
        if !wraps && !is_private {
            return Ok(());
        }
        match (exit.effects.first(), exit.ret()) {
            (Some((effect, _)), _) => Err(exit.finding("nothing is converted", format!("{effect:x?}"))),
            (None, Some(0)) => Err(exit.finding("an error", number(0))),
            (None, _) => Ok(()),
        }
    })
}

/// The guest of the scenario asks for 2 MiB from an address that is not aligned so.
fn unaligned_is_refused(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| match exit.meaning {
        Ok(Exit::Vmgexit { ghcb_msr }) if ghcb_msr % PAGE_SIZE == 0 => Some(()),
        _ => None,
    };
    view.each(choose, |exit, ()| {
        let ret = exit.answer.map(|run| run.before.payload::<VmgexitV10>().ret);
        match (exit.changes().next(), ret) {
            (Some((range, _)), _) => Err(exit.finding("nothing is converted", range.to_string())),
            (None, Some(0)) => Err(exit.finding("SW_EXITINFO2 is an error", "0")),
            (None, _) => Ok(()),
        }
    })
}

fn shared_without_memory(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| {
        let Conversion { range, to } = conversion(exit)?;
        let is_meant = to == PageState::Shared && view.parts(range).is_empty();
        if is_meant { exit.ret() } else { None }
    };
    view.each(choose, |exit, ret| if ret == 0 { Ok(()) } else { Err(exit.finding("ret is 0", number(ret))) })
}

fn again(view: &View<'_>) -> Judgement {
    let mut last = None;
    let mut bit = false;
    for exit in &view.exits {
        let Some(conversion) = conversion(exit) else { continue };
        if last == Some(conversion) {
            bit = true;
            if exit.ret() != Some(0) {
                let seen = exit.ret().map_or_else(|| view.said(), number);
                return Err(exit.finding("ret is 0: the range is what it is to be", seen));
            }
        }
        last = Some(conversion).filter(|_| exit.ret() == Some(0));
    }
    Ok(bit)
}

fn unknown_is_refused(view: &View<'_>) -> Judgement {
    view.each(
        |exit| exit.hypercall().filter(|call| call.nr != MAP_GPA_RANGE),
        |exit, call| match (exit.ret(), exit.effects.first()) {
            (_, Some((effect, _))) => Err(exit.finding("nothing is done", format!("{effect:x?}"))),
            (Some(0), _) => Err(exit.finding(format!("an error for hypercall {}", call.nr), number(0))),
            (Some(_), _) => Ok(()),
            (None, _) if view.status().has_given_up() => Ok(()),
            (None, _) => Err(exit.finding("an error", view.said())),
        },
    )
}

/// Nothing is pending in a vCPU that is saved: its last entry was one that could not run the guest, and it brought no exit.
fn drained(view: &View<'_>) -> Judgement {
    let mut last = None;
    let mut number = 0;
    let mut bit = false;
    for (_, crossing) in view.crossings() {
        match crossing {
            Crossing::Run(run) => {
                number += 1;
                last = Some((run.immediate, run.entered));
            }
            Crossing::GetEvents { .. } => {
                bit = true;
                if last != Some((true, Err(Errno::EINTR))) {
                    let seen = match last {
                        None => "no entry at all".into(),
                        Some((immediate, entered)) => {
                            format!(
                                "the last entry: immediate_exit {}, result {entered:?}",
                                u8::from(immediate)
                            )
                        }
                    };
                    let expected =
                        "entries with immediate_exit until one gives EINTR, then the state is read";
                    return Err(Finding { exit: number, expected: expected.into(), seen });
                }
            }
            _ => {}
        }
    }
    Ok(bit)
}

fn einval_ends(view: &View<'_>) -> Judgement {
    view.each(|exit| (exit.run.entered == Err(Errno::EINVAL)).then_some(()), |exit, ()| view.ends_here(exit))
}
