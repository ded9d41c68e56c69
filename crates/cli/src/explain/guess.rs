//! What a number or bytes can be, if nobody says: every kind that gives them a meaning, the likeliest first.

use super::explanation::Explanation;
use super::input::Input;
use super::kinds::{self, Takes};
use super::{
    Settings, caps, errno, exit_info, ghcb_page, message, number, psc, report, run_page, vcpu_events,
};
use exeunt_abi::Errno;
use exeunt_abi::ghcb::{exit_code, msr, page, psc as psc_abi};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::ioctl::Ioctl;
use exeunt_abi::kvm::run::{ExitReason, event_type};
use exeunt_proto::certs::Table;
use exeunt_proto::ghcb::{PscEntry, PscOperation};
use exeunt_proto::termination::SevTermination;

/// Readings of a number or a name.
pub(super) fn of_word(text: &str, settings: &Settings) -> Vec<Explanation> {
    let scores = match number::parse(text) {
        Ok(value) => of_number(value, number::is_hex(text)),
        Err(_) => of_name(text),
    };
    best_first(scores, |kind| match kind {
        Takes::Number(explain) => explain(text, settings).ok(),
        _ => None,
    })
}

/// Readings of bytes.
pub(super) fn of_bytes(input: &Input, settings: &Settings) -> Vec<Explanation> {
    let bytes = input.bytes.as_slice();
    let table = Table::parse(bytes).is_ok_and(|table| table.certificates().count() > 0);
    let is_psc = psc::is_size(bytes.len()) && bytes.iter().any(|byte| *byte != 0) && is_psc_plausible(bytes);
    let scores = vec![
        ("events", if vcpu_events::is_plausible(bytes) { 90 } else { 0 }),
        ("ghcb", if ghcb_page::is_plausible(bytes) { 80 } else { 0 }),
        ("report", if report::is_plausible(bytes) { 75 } else { 0 }),
        ("message", if message::is_plausible(bytes) { 70 } else { 0 }),
        ("certs", if table { 65 } else { 0 }),
        ("run-page", if run_page::is_plausible(bytes) { 60 } else { 0 }),
        ("psc", if is_psc { 40 } else { 0 }),
    ];
    best_first(scores, |kind| match kind {
        Takes::Bytes(explain) => explain(input, settings).ok(),
        _ => None,
    })
}

fn is_psc_plausible(bytes: &[u8]) -> bool {
    use exeunt_proto::ghcb::PscRequest;
    PscRequest::parse(bytes).is_ok_and(|request| {
        request.header().reserved == 0
            && request.entries().all(|(_, entry)| is_operation(entry) && entry.reserved() == 0)
    })
}

fn is_operation(entry: psc_abi::Entry) -> bool {
    matches!(PscEntry::decode(entry), Ok(it) if !matches!(it.operation, PscOperation::Unknown(_)))
}

fn best_first(
    mut scores: Vec<(&'static str, u32)>,
    explain: impl Fn(Takes) -> Option<Explanation>,
) -> Vec<Explanation> {
    scores.retain(|(_, score)| *score > 0);
    scores.sort_by_key(|(_, score)| std::cmp::Reverse(*score));
    scores.iter().filter_map(|(name, _)| explain(kinds::find(name)?.takes)).collect()
}

/// How well each kind fits a number. Exit reasons, capabilities and errors are written in decimal, the rest in hex.
fn of_number(value: u64, is_hex: bool) -> Vec<(&'static str, u32)> {
    let narrow = u32::try_from(value).ok();
    let decimal = |likely: u32| if is_hex { likely / 2 } else { likely };
    let hex = |likely: u32| if is_hex { likely } else { likely / 2 };
    let fits = |condition: bool, score: u32| if condition { score } else { 0 };
    let exit = narrow.map(ExitReason).is_some_and(|reason| reason.name().is_some() || reason.0 == 50);
    let error = i32::try_from(value).ok().map(Errno).is_some_and(|errno| errno.name().is_some());
    let ioctl = narrow.map(Ioctl).is_some_and(|ioctl| ioctl.known().is_some());
    let code = exit_code::name(value).is_some();
    let term = SevTermination::from_msr(value);
    let is_term = term.meaning().is_some() && value >> 24 == 0;
    let info = value & msr::INFO_MASK;
    let is_page = info == 0 && value != 0 && value >> 52 == 0;
    vec![
        ("ioctl", fits(ioctl, 100)),
        ("exit-code", fits(code, if value >= 0x8000_0000 { 95 } else { hex(60) })),
        ("sev-term", fits(is_term, 92) + fits(is_page, 12)),
        ("sw-exitinfo2", fits(exit_info::likeliest(value).is_some(), if value > 6 { 90 } else { hex(34) })),
        ("exit", fits(exit, decimal(88))),
        ("cap", fits(narrow.is_some_and(|number| caps::is_of_boundary(Cap(number))), decimal(84))),
        ("event", fits(narrow.is_some_and(|number| event_type::name(number).is_some()), decimal(66))),
        ("errno", fits(error, decimal(64))),
        ("psc-entry", fits(is_psc_entry(value), 72)),
        ("ghcb-msr", fits(msr::name(info).is_some() && is_clean(value), hex(70)) + fits(is_page, 14)),
        ("sw-exitinfo1", fits(page::exit_info_1::name(value).is_some(), hex(30))),
    ]
}

/// Whether a value of the MSR protocol sets no reserved bit.
fn is_clean(value: u64) -> bool {
    super::ghcb_msr::explain(&format!("{value:#x}")).is_ok_and(|explanation| explanation.reserved.is_empty())
}

fn is_psc_entry(value: u64) -> bool {
    let entry = psc_abi::Entry(value);
    entry.operation() != 0
        && is_operation(entry)
        && entry.reserved() == 0
        && entry.cur_page() <= entry.pages()
}

/// Which kinds know a name.
fn of_name(text: &str) -> Vec<(&'static str, u32)> {
    let upper = text.to_ascii_uppercase();
    let stripped = |prefix: &str| upper.strip_prefix(prefix).unwrap_or(&upper).to_string();
    let known = [
        ("ioctl", Ioctl::from_name(&upper).is_some()),
        ("exit", ExitReason::from_name(&stripped("KVM_EXIT_")).is_some()),
        ("event", event_type::from_name(&stripped("KVM_SYSTEM_EVENT_")).is_some()),
        ("cap", caps::from_name(text).is_some()),
        ("exit-code", exit_code::from_name(&stripped("SVM_VMGEXIT_")).is_some()),
        ("errno", text.starts_with(['-', 'e', 'E']) && errno::parse(text).is_ok()),
    ];
    known.into_iter().filter(|(_, is_known)| *is_known).map(|(kind, _)| (kind, 50)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<&'static str> {
        of_word(text, &Settings::default()).iter().map(|explanation| explanation.kind).collect()
    }

    #[test]
    fn numbers_are_read_as_what_they_are_likeliest() {
        assert_eq!(kinds("43"), ["exit"]);
        assert_eq!(kinds("14"), ["exit", "errno"]);
        assert_eq!(kinds("215"), ["cap"]);
        assert_eq!(kinds("0xc008aeba"), ["ioctl"]);
        assert_eq!(kinds("0x80000010"), ["exit-code"]);
        assert_eq!(kinds("0x10000000000"), ["sw-exitinfo2", "ghcb-msr", "sev-term"]);
        assert_eq!(kinds("0x21100"), ["sev-term", "ghcb-msr"]);
        assert_eq!(kinds("6")[..2], ["exit", "event"]);
        assert_eq!(kinds("0x110000000200000")[0], "psc-entry");
        assert_eq!(kinds("0x7f0ab123456"), Vec::<&str>::new());
    }

    #[test]
    fn names_are_found_in_every_kind_that_has_them() {
        assert_eq!(kinds("KVM_EXIT_SHUTDOWN"), ["exit"]);
        assert_eq!(kinds("shutdown"), ["exit", "event"]);
        assert_eq!(kinds("KVM_RUN"), ["ioctl"]);
        assert_eq!(kinds("EFAULT"), ["errno"]);
        assert_eq!(kinds("-14"), ["errno"]);
        assert_eq!(kinds("KVM_CAP_EXIT_HYPERCALL"), ["cap"]);
        assert_eq!(kinds("nothing"), Vec::<&str>::new());
    }
}
