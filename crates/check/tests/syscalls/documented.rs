//! The tables of `docs/syscalls.md`.

use crate::trace::{Call, parse};
use exeunt_abi::kvm::ioctl::Ioctl;

const PAGE: &str = include_str!("../../../../docs/syscalls.md");

/// The first three cells of each row that names a call, below a headline.
fn rows(section: &str) -> impl Iterator<Item = [&'static str; 3]> {
    let start = PAGE.split("\n## ").find(|text| text.lines().next() == Some(section));
    start.unwrap_or_else(|| panic!("no section {section}")).lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`'));
        Some([cells.next()?, cells.next()?, cells.next()?])
    })
}

/// The calls that the rows of a section name.
fn calls(section: &str) -> Vec<Call> {
    rows(section).map(|[name, number, _]| Call::new(name, parse(number))).collect()
}

/// The calls that a crate may make, and those of every process.
pub(crate) fn of_crate(name: &str) -> Vec<Call> {
    [calls(name), calls("The runtime")].concat()
}

const SECTIONS: [&str; 4] = ["exeunt-linux", "exeunt-certs", "exeunt-quote", "The runtime"];

#[test]
fn every_row_names_a_call_once_and_a_number_where_a_filter_can_look_at_one() {
    for section in SECTIONS {
        let calls = calls(section);
        assert!(calls.len() > 5, "{section} has {} rows", calls.len());
        for (at, call) in calls.iter().enumerate() {
            assert!(!calls[..at].contains(call), "{section}: {call:?} twice");
            assert_eq!(call.has_number(), Call::index_of_number(call.name()).is_some(), "{call:?}");
        }
    }
}

#[test]
fn every_ioctl_of_a_row_has_the_name_of_its_number() {
    for [call, number, name] in rows("exeunt-linux").filter(|[call, ..]| *call == "ioctl") {
        let request = u32::try_from(parse(number).unwrap()).unwrap();
        assert_eq!(Ioctl(request).name(), Some(name), "{call} {number}");
    }
}
