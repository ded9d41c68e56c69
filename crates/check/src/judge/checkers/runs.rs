//! RN: `KVM_RUN`.

use super::Checker;
use crate::judge::transcript::Status;
use crate::judge::view::{ExitView, Judgement, View, names_bytes};
use exeunt_abi::Errno;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_proto::exit::Exit;
use std::fmt::Write;

pub(super) const CHECKERS: &[(&str, Checker)] =
    &[("RN-1", unknown_is_reported), ("RN-2", interruptions_are_retried), ("RN-4", shutdown_ends_all)];

/// Bytes of the union that a report has at least.
const REPORTED_BYTES: usize = 8;

fn unknown_is_reported(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| match exit.meaning {
        Ok(Exit::Other(other)) => Some(other),
        _ => None,
    };
    view.each(choose, |exit, other| {
        view.ends_with_number(exit, other.reason.0.into())?;
        let bytes = other.bytes.first_chunk::<REPORTED_BYTES>().copied().unwrap_or_default();
        if names_bytes(view.text(), bytes) {
            return Ok(());
        }
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Err(exit.finding(format!("the text has the bytes {hex}"), view.said()))
    })
}

fn interruptions_are_retried(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| {
        let is_interrupted =
            matches!(exit.run.entered, Err(Errno::EINTR | Errno::EAGAIN)) && !exit.run.immediate;
        let is_interrupted = is_interrupted && !exit.run.is_inside;
        is_interrupted.then_some(())
    };
    view.each(choose, |exit, ()| {
        if let Some((effect, _)) = exit.effects.first() {
            return Err(exit.finding("the stale exit is not served again", format!("{effect:x?}")));
        }
        // A vCPU that halts waits in the kernel, and the VMM ends while it does.
        let is_asleep = view.status() == Status::Success && view.trial.situation.apic_in_kernel;
        // A real vCPU is interrupted because its VMM wants something else of it than to go on.
        let is_its_own = view.trial.is_on_kernel && !exit.run.is_injected;
        if exit.answer.is_none() && !is_asleep && !is_its_own {
            return Err(exit.finding("the vCPU is entered again", view.said()));
        }
        Ok(())
    })
}

fn shutdown_ends_all(view: &View<'_>) -> Judgement {
    // Where vCPUs run at the same time, another one may work on until the VMM has stopped its thread. It does not get to
    // the end of its work, which is long.
    let is_late = |next: &&ExitView<'_>| {
        view.trial.is_concurrent && next.run.entered.is_ok() && next.run.after.reason() == ExitReason::IO
    };
    view.each(
        |exit| matches!(exit.meaning, Ok(Exit::Shutdown)).then_some(()),
        |exit, ()| match view.entries_after(exit).find(|next| !is_late(next)) {
            Some(next) => Err(exit.finding("no vCPU is entered again", format!("vCPU {} is", next.run.vcpu))),
            None => Ok(()),
        },
    )
}
