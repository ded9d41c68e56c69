//! TD: calls of TDs.

use super::Checker;
use super::conversions::{conversion, is_done};
use crate::judge::view::{ExitView, Judgement, View};
use exeunt_abi::ghci::Status;
use exeunt_abi::kvm::run::Tdx as Wire;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::{Exit, TdxCall};

pub(super) const CHECKERS: &[(&str, Checker)] =
    &[("TD-1", unknown_is_left_alone), ("TD-2", quotes_are_checked), ("TD-3", vectors), ("TD-4", again)];

fn call(exit: &ExitView<'_>) -> Option<TdxCall> {
    match exit.meaning {
        Ok(Exit::Tdx(tdx)) => Some(tdx.call),
        _ => None,
    }
}

/// R10, as it is answered.
fn status(exit: &ExitView<'_>) -> Option<Status> {
    let bytes = exit.answer?.before.exit.get(core::mem::offset_of!(Wire, ret)..)?;
    bytes.first_chunk().map(|word| Status(u64::from_le_bytes(*word)))
}

/// Bytes of the union that belong to a call.
const CALL_BYTES: usize = size_of::<Wire>();

fn unknown_is_left_alone(view: &View<'_>) -> Judgement {
    view.each(
        |exit| call(exit).filter(|call| matches!(call, TdxCall::Unknown { .. })),
        |exit, _| {
            let Some(answer) = exit.answer else {
                return Err(exit.finding("the TD is entered again", view.said()));
            };
            let bytes = |page: &[u8]| page.get(..CALL_BYTES).map(<[u8]>::to_vec);
            let (expected, seen) = (bytes(&exit.run.after.exit), bytes(&answer.before.exit));
            if expected == seen {
                return Ok(());
            }
            Err(exit.finding(format!("KVM's own outputs, {expected:02x?}"), format!("{seen:02x?}")))
        },
    )
}

fn quotes_are_checked(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| match call(exit)? {
        TdxCall::GetQuote { gpa, size_bytes } => Some((gpa, size_bytes, status(exit)?)),
        _ => None,
    };
    view.each(choose, |exit, (gpa, size_bytes, status)| match is_bad(view, exit, gpa, size_bytes) {
        Some(why) if status == Status::SUCCESS => {
            Err(exit.finding(format!("an error for {size_bytes:#x} bytes at {gpa}: {why}"), "SUCCESS"))
        }
        _ => Ok(()),
    })
}

/// What is wrong with a buffer.
fn is_bad(view: &View<'_>, exit: &ExitView<'_>, gpa: Gpa, size_bytes: u64) -> Option<&'static str> {
    if !gpa.is_page_aligned() || size_bytes % PAGE_SIZE != 0 {
        return Some("it is not aligned");
    }
    let Some(range) = PageRange::new(gpa.gfn(), size_bytes / PAGE_SIZE) else {
        return Some("it is empty or wraps");
    };
    if !view.has_memory(range) {
        return Some("it is not in memory");
    }
    (!exit.pages.are(range, PageState::Shared)).then_some("it is private")
}

fn vectors(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| match call(exit)? {
        TdxCall::SetupEventNotify { vector } => Some((vector, status(exit)?)),
        _ => None,
    };
    view.each(choose, |exit, (vector, status)| {
        let allowed = if (32..=255).contains(&vector) {
            [Status::SUCCESS, Status::SUBFUNC_UNSUPPORTED]
        } else {
            [Status::INVALID_OPERAND, Status::SUBFUNC_UNSUPPORTED]
        };
        if allowed.contains(&status) {
            return Ok(());
        }
        Err(exit.finding(format!("{} or {} for vector {vector}", allowed[0], allowed[1]), status.to_string()))
    })
}

fn again(view: &View<'_>) -> Judgement {
    let is_td = view.trial.situation.vm_type == VmType::Tdx;
    let is_passing = |errno: &Errno| matches!(*errno, Errno::EAGAIN | Errno::EINTR | Errno::ENOMEM);
    let choose = |exit: &ExitView<'_>| {
        conversion(exit).filter(|conversion| is_td && !is_done(view, exit, *conversion))?;
        exit.effects.iter().filter_map(|(_, result)| result.err()).find(is_passing)
    };
    view.each(choose, |exit, errno| match exit.ret() {
        Some(ret) if u64::try_from(Errno::EAGAIN.0) == Ok(ret) => Ok(()),
        ret => {
            Err(exit
                .finding(format!("EAGAIN (11), as {errno} passes: the TD asks again"), format!("{ret:?}")))
        }
    })
}
