//! A checker for each rule.

mod abi;
mod certs;
mod conversions;
mod events;
mod faults;
mod memory;
mod runs;
mod snapshots;
mod tds;

use super::view::{Judgement, View};

/// Judges one rule.
pub(super) type Checker = fn(&View<'_>) -> Judgement;

/// The checker of a rule.
pub(super) fn of(id: &str) -> Option<Checker> {
    let groups = [
        events::CHECKERS,
        conversions::CHECKERS,
        memory::CHECKERS,
        faults::CHECKERS,
        certs::CHECKERS,
        snapshots::CHECKERS,
        tds::CHECKERS,
        runs::CHECKERS,
        abi::CHECKERS,
    ];
    let mut all = groups.into_iter().flatten();
    all.find(|(rule, _)| *rule == id).map(|(_, checker)| *checker)
}
