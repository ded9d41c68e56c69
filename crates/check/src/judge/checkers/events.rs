//! SE: system events.

use super::Checker;
use crate::judge::transcript::Status;
use crate::judge::view::{ExitView, Finding, Judgement, View, names_number};
use exeunt_abi::Arch;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_proto::exit::{EventType, Exit, SystemEvent};
use exeunt_proto::ghci::FatalError;
use exeunt_proto::termination::SevTermination;

pub(super) const CHECKERS: &[(&str, Checker)] = &[
    ("SE-1", whole_type),
    ("SE-2", only_valid_words),
    ("SE-3", nothing_without_capability),
    ("SE-4", unknown_is_reported),
    ("SE-5", termination_is_reported),
    ("SE-6", fatal_error_is_reported),
    ("SE-7", flags_are_the_first_word),
    ("SE-8", ignored_events_run_on),
];

/// The type as it is in the page.
fn raw_type(exit: &ExitView<'_>) -> Option<u32> {
    let is_event = exit.run.entered.is_ok() && exit.run.after.reason() == ExitReason::SYSTEM_EVENT;
    is_event.then(|| exit.run.after.u32_at(0))
}

fn event(exit: &ExitView<'_>) -> Option<SystemEvent> {
    match exit.meaning {
        Ok(Exit::SystemEvent(event)) => Some(event),
        _ => None,
    }
}

const BIT_31: u32 = 1 << 31;

fn whole_type(view: &View<'_>) -> Judgement {
    view.each(
        |exit| raw_type(exit).filter(|number| number & BIT_31 != 0),
        |exit, number| {
            // A VMM that ended knew that it did not know the type. What it says of that is another rule.
            if view.trial.is_outside {
                view.ends_here(exit)
            } else {
                view.ends_with_number(exit, number.into())
            }
        },
    )
}

fn unknown_is_reported(view: &View<'_>) -> Judgement {
    let is_unknown = |number: &u32| {
        number & BIT_31 == 0 && matches!(EventType::from_number(*number), EventType::Unknown(_))
    };
    view.each(
        |exit| raw_type(exit).filter(is_unknown),
        |exit, number| view.ends_with_number(exit, number.into()),
    )
}

/// A VMM that reads no further than it may does the same whatever lies there.
fn same_twice(view: &View<'_>, exit: &ExitView<'_>, what: &str) -> Result<(), Finding> {
    let Some(other) = &view.trial.other else { return Ok(()) };
    let end = &view.trial.transcript.end;
    if *end == other.end {
        return Ok(());
    }
    Err(exit.finding(
        format!("the same end whatever {what} holds"),
        format!("'{}', and with other bytes there '{}'", end.text, other.end.text),
    ))
}

fn only_valid_words(view: &View<'_>) -> Judgement {
    view.each(raw_type, |exit, _| {
        if view.status() == Status::Crashed {
            return Err(exit.finding("an end of the VMM's own will", view.said()));
        }
        if view.kernel().dialect.has_system_event_data() {
            return same_twice(view, exit, "data[ndata..]");
        }
        Ok(())
    })
}

fn nothing_without_capability(view: &View<'_>) -> Judgement {
    let choose =
        |exit: &ExitView<'_>| raw_type(exit).filter(|_| !view.kernel().dialect.has_system_event_data());
    view.each(choose, |exit, _| same_twice(view, exit, "ndata"))
}

/// The text names the value, or says in words what it means.
fn says(view: &View<'_>, exit: &ExitView<'_>, value: u64, words: &str) -> Result<(), Finding> {
    if names_number(view.text(), value) || view.text().contains(words) {
        return Ok(());
    }
    Err(exit.finding(format!("the text names {value:#x}, or says '{words}'"), view.said()))
}

fn termination_is_reported(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| match event(exit)? {
        SystemEvent { event: EventType::SevTerm, data } => data.first(),
        _ => None,
    };
    view.each(choose, |exit, msr| {
        view.ends_here(exit)?;
        says(view, exit, msr, &SevTermination::from_msr(msr).to_string())
    })
}

/// A VMM that does not know the number of the event reports that number, in the place of what the event says.
pub(super) fn termination_is_known(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| match event(exit)? {
        SystemEvent { event: EventType::SevTerm, data } => data.first(),
        _ => None,
    };
    view.each(choose, |exit, msr| {
        let number = EventType::SevTerm.number();
        let says = says(view, exit, msr, &SevTermination::from_msr(msr).to_string());
        if says.is_err() && names_number(view.text(), number.into()) {
            return Err(exit.finding(format!("type {number} is SEV_TERM"), view.said()));
        }
        Ok(())
    })
}

fn fatal_error_is_reported(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| match event(exit)? {
        SystemEvent { event: EventType::TdxFatal, data } => Some((FatalError::from_words(&data)?, data)),
        _ => None,
    };
    view.each(choose, |exit, (error, data)| {
        view.ends_here(exit)?;
        let words = error.to_string();
        let all_named = data.as_slice().iter().all(|word| *word == 0 || names_number(view.text(), *word));
        if view.text().contains(&words) || all_named {
            return Ok(());
        }
        Err(exit.finding(format!("the text names each register, or says '{words}'"), view.said()))
    })
}

/// The flags of an event that has them, on arm64.
pub(super) fn flags(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| {
        let event =
            event(exit).filter(|event| matches!(event.event, EventType::Shutdown | EventType::Reset))?;
        event.data.first().filter(|_| view.kernel().arch == Arch::Arm64)
    };
    view.each(choose, |exit, flags| {
        if names_number(view.text(), flags) {
            return Ok(());
        }
        Err(exit.finding(format!("the flags {flags:#x}, which are data[0]"), view.said()))
    })
}

fn flags_are_the_first_word(view: &View<'_>) -> Judgement {
    flags(view)
}

fn ignored_events_run_on(view: &View<'_>) -> Judgement {
    let is_ignored = view.trial.situation.orders.ignore_events;
    view.each(
        |exit| event(exit).filter(|_| is_ignored),
        |exit, event| {
            if exit.answer.is_some() && view.status() == Status::Success {
                return Ok(());
            }
            let seen = format!("{:?}: {}", view.status(), view.said());
            Err(exit.finding(format!("{} is ignored: the vCPU is entered again", event.event), seen))
        },
    )
}
