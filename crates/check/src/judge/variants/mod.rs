//! VMMs that are wrong on purpose, each in one way: the rule that it breaks catches it, and no other does.

mod abi;
mod certs;
mod conversions;
mod events;
mod faults;
mod memory;
mod runs;
mod snapshots;
mod tds;

use super::transcript::{End, Status};
use super::twist::Twist;

/// A VMM that is wrong in one way.
pub(super) struct Variant {
    /// Its name.
    pub(super) name: &'static str,
    /// What it does, in a sentence.
    pub(super) what: &'static str,
    /// The rules that it breaks, in the order of their names.
    pub(super) breaks: &'static [&'static str],
    pub(super) twist: fn() -> Twist,
}

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Variant> {
    let groups = [
        events::VARIANTS,
        conversions::VARIANTS,
        memory::VARIANTS,
        faults::VARIANTS,
        certs::VARIANTS,
        snapshots::VARIANTS,
        tds::VARIANTS,
        runs::VARIANTS,
        abi::VARIANTS,
    ];
    groups.into_iter().flatten()
}

fn end(status: Status, text: impl Into<String>) -> End {
    End { status, text: text.into() }
}
