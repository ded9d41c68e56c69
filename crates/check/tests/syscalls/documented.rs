//! The tables of `docs/syscalls.md`.

use crate::trace::{Call, parse};
use exeunt_abi::kvm::ioctl::Ioctl;

const PAGE: &str = include_str!("../../../../docs/syscalls.md");

/// The first three cells of each row that names a call.
fn rows() -> impl Iterator<Item = [&'static str; 3]> {
    PAGE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`'));
        Some([cells.next()?, cells.next()?, cells.next()?])
    })
}

/// The calls that the rows name.
pub(crate) fn calls() -> Vec<Call> {
    rows().map(|[name, number, _]| Call::new(name, parse(number))).collect()
}

#[test]
fn every_row_names_a_call_once_and_a_number_where_a_filter_can_look_at_one() {
    let calls = calls();
    assert!(calls.len() > 40, "{} rows", calls.len());
    for (at, call) in calls.iter().enumerate() {
        assert!(!calls[..at].contains(call), "{call:?} twice");
        assert_eq!(call.has_number(), Call::index_of_number(call.name()).is_some(), "{call:?}");
    }
}

#[test]
fn every_ioctl_of_a_row_has_the_name_of_its_number() {
    for [call, number, name] in rows().filter(|[call, ..]| *call == "ioctl") {
        let request = u32::try_from(parse(number).unwrap()).unwrap();
        assert_eq!(Ioctl(request).name(), Some(name), "{call} {number}");
    }
}
