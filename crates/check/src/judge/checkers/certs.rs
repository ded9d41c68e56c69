//! RC: certificates.

use super::Checker;
use crate::judge::machine::table;
use crate::judge::transcript::{Crossing, Effect, FileCall};
use crate::judge::view::{ExitView, Finding, Judgement, View, signed};
use exeunt_abi::kvm::device_attr::sev_attr;
use exeunt_abi::kvm::run::SnpReqCerts as Wire;
use exeunt_abi::{Errno, PAGE_SIZE};
use exeunt_proto::certs::Table;
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::{Exit, SnpReqCerts};

pub(super) const CHECKERS: &[(&str, Checker)] = &[
    ("RC-1", buffer_is_checked),
    ("RC-2", pages_needed),
    ("RC-3", known_ret),
    ("RC-4", buffer_is_shared),
    ("RC-5", locked_until_done),
    ("RC-6", waiting_is_bounded),
    ("RC-7", well_formed),
    ("RC-8", order),
    ("RC-9", current),
];

fn request(exit: &ExitView<'_>) -> Option<SnpReqCerts> {
    match exit.meaning {
        Ok(Exit::SnpReqCerts(request)) => Some(request),
        _ => None,
    }
}

/// A request and its answer.
fn answered(exit: &ExitView<'_>) -> Option<(SnpReqCerts, Wire)> {
    Some((request(exit)?, exit.answer?.before.payload()))
}

fn is(ret: u64, errno: Errno) -> bool {
    u64::try_from(errno.0) == Ok(ret)
}

fn written<'a>(exit: &'a ExitView<'_>) -> impl Iterator<Item = &'a [u8]> {
    // A copy that the host refused has written nothing.
    exit.effects.iter().filter_map(|(effect, result)| match effect {
        Effect::Write { bytes, .. } if result.is_ok() => Some(bytes.as_slice()),
        _ => None,
    })
}

/// Nothing is written, and the answer is an error.
fn refused(exit: &ExitView<'_>, answer: &Wire, why: &str) -> Result<(), Finding> {
    match (written(exit).next(), answer.ret) {
        (Some(bytes), _) => {
            Err(exit
                .finding(format!("nothing is written: {why}"), format!("{} bytes are written", bytes.len())))
        }
        (None, 0) => Err(exit.finding(format!("an error: {why}"), "ret is 0")),
        (None, _) => Ok(()),
    }
}

fn buffer(request: SnpReqCerts) -> Option<PageRange> {
    PageRange::new(request.gpa.gfn(), request.pages)
}

fn buffer_is_checked(view: &View<'_>) -> Judgement {
    let is_wild = |request| buffer(request).is_none_or(|range| !view.has_memory(range));
    view.each(
        |exit| answered(exit).filter(|(request, _)| request.pages > 0 && is_wild(*request)),
        |exit, (_, answer)| refused(exit, &answer, "the buffer is not in memory"),
    )
}

fn buffer_is_shared(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| {
        let (request, answer) = answered(exit)?;
        let range = buffer(request).filter(|range| view.has_memory(*range))?;
        (!exit.pages.are(range, PageState::Shared)).then_some(answer)
    };
    view.each(choose, |exit, answer| refused(exit, &answer, "the buffer is private"))
}

/// Pages of the table that was read for a request.
fn needed(exit: &ExitView<'_>) -> Option<u64> {
    exit.file.iter().rev().find_map(|call| match call {
        FileCall::Read(edition) => Some((table(*edition).len() as u64).div_ceil(PAGE_SIZE)),
        _ => None,
    })
}

/// Pages of the table that the VMM has for a request.
fn has(view: &View<'_>, exit: &ExitView<'_>) -> Option<u64> {
    needed(exit).or(view.trial.certificate_pages)
}

fn pages_needed(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| {
        let (request, answer) = answered(exit)?;
        let needed = has(view, exit)?;
        (request.pages < needed).then_some((needed, answer))
    };
    view.each(choose, |exit, (needed, answer)| {
        if is(answer.ret, Errno::ENOSPC) && answer.npages == needed {
            return Ok(());
        }
        let seen = format!("ret {}, npages {}", answer.ret, answer.npages);
        Err(exit.finding(format!("ret 28 (ENOSPC), npages {needed}"), seen))
    })
}

fn known_ret(view: &View<'_>) -> Judgement {
    let known = [Errno(0), Errno::ENOSPC, Errno::EAGAIN, Errno::EIO];
    view.each(answered, |exit, (_, answer)| {
        if known.iter().any(|errno| is(answer.ret, *errno)) {
            return Ok(());
        }
        Err(exit.finding("ret is 0, 28, 11 or 5", format!("{} ({:#x})", signed(answer.ret), answer.ret)))
    })
}

/// The lock is had when the file is read, and given back when `KVM_RUN` has taken the answer.
fn locked_until_done(view: &View<'_>) -> Judgement {
    const HELD: &str = "the lock is held until KVM_RUN gave EINTR under immediate_exit";
    let (mut is_locked, mut is_written, mut is_taken) = (false, false, false);
    let mut exit = 0_usize;
    let mut bit = false;
    for (_, crossing) in view.crossings() {
        let broken = match crossing {
            Crossing::Run(run) => {
                exit += 1;
                is_taken |= is_written && run.immediate && run.entered == Err(Errno::EINTR);
                let runs_on = is_written && !is_taken && !run.immediate;
                runs_on.then_some((HELD, "KVM_RUN without immediate_exit"))
            }
            Crossing::Effect { effect: Effect::Write { .. }, result: Ok(()) }
                if view.exits.get(exit.saturating_sub(1)).and_then(request).is_some() =>
            {
                (is_written, is_taken) = (true, false);
                (!is_locked).then_some((HELD, "it is not held when the table is written"))
            }
            Crossing::CertFile(FileCall::Locked) => {
                is_locked = true;
                None
            }
            Crossing::CertFile(FileCall::Read(_)) => {
                bit = true;
                (!is_locked).then_some(("the file is locked before it is read", "it is not"))
            }
            Crossing::CertFile(FileCall::Unlocked) => {
                let is_early = is_written && !is_taken;
                (is_locked, is_written, is_taken) = (false, false, false);
                is_early.then_some((HELD, "it is given back with the answer not yet taken"))
            }
            _ => None,
        };
        if let Some((expected, seen)) = broken {
            return Err(Finding { exit, expected: expected.into(), seen: seen.into() });
        }
    }
    Ok(bit)
}

/// Tries that nobody would wait for.
const MANY: usize = 100;

fn waiting_is_bounded(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| {
        request(exit)?;
        let tries = exit.file.iter().filter(|call| **call == FileCall::Refused).count();
        let is_had = exit.file.contains(&FileCall::Locked);
        (tries > 0 && !is_had).then_some(tries)
    };
    view.each(choose, |exit, tries| match answered(exit) {
        Some((_, answer)) if is(answer.ret, Errno::EAGAIN) && tries <= MANY => Ok(()),
        Some((_, answer)) => Err(exit.finding(
            "a bounded wait, then ret 11 (EAGAIN)",
            format!("ret {} after {tries} tries", answer.ret),
        )),
        None => {
            Err(exit.finding("a bounded wait, then ret 11 (EAGAIN)", format!("{tries} tries and no answer")))
        }
    })
}

fn well_formed(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| {
        request(exit)?;
        Some(written(exit).next()?.to_vec())
    };
    view.each(choose, |exit, bytes| {
        let table = Table::parse(&bytes)
            .map_err(|error| exit.finding("a table that ends with 24 zero bytes", error.to_string()))?;
        match table.certificates().find(|certificate| certificate.guid.name().is_none()) {
            Some(strange) => Err(exit
                .finding("GUIDs in the order of bytes in which they are printed", strange.guid.to_string())),
            None => Ok(()),
        }
    })
}

fn order(view: &View<'_>) -> Judgement {
    let (mut said_yes, mut has_vcpu, mut bit) = (false, false, false);
    for (_, crossing) in view.crossings() {
        match crossing {
            Crossing::SevAttribute { attribute: sev_attr::SEV_SNP_REQ_CERTS, result: Ok(1) } => {
                said_yes = true;
            }
            Crossing::CreateVcpu { .. } => has_vcpu = true,
            Crossing::EnableReqCerts { result } => {
                bit = true;
                let expected = match (said_yes, has_vcpu) {
                    (false, _) => "attribute 2 of group 1 says that the command is there first",
                    (true, true) => "the command before the first vCPU",
                    (true, false) => continue,
                };
                let seen = format!("KVM_SEV_SNP_ENABLE_REQ_CERTS: {result:?}");
                return Err(Finding { exit: 0, expected: expected.into(), seen });
            }
            _ => {}
        }
    }
    Ok(bit)
}

/// The file may change between two requests, and does.
fn current(view: &View<'_>) -> Judgement {
    let choose = |exit: &ExitView<'_>| {
        request(exit)?;
        Some(written(exit).next()?.to_vec())
    };
    view.each(choose, |exit, bytes| {
        let read = exit.file.iter().rev().find_map(|call| match call {
            FileCall::Read(edition) => Some(*edition),
            _ => None,
        });
        match read {
            Some(edition) if holds(&bytes, &format!("edition {edition}.")) => Ok(()),
            Some(edition) => {
                Err(exit.finding(format!("edition {edition} of the certificates"), "other bytes"))
            }
            None => {
                Err(exit.finding("the certificates as they are now", "what was read for an earlier request"))
            }
        }
    })
}

/// Whether a text is in the bytes.
fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
