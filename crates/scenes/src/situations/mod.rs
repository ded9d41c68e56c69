//! The scenarios, by what they are about.

mod certs;
mod conversions;
mod endless;
mod events;
mod faults;
mod ordinary;
mod runs;
mod snapshots;
mod tds;

use crate::situation::Situation;
pub use ordinary::PORT_EXITS;

/// All of them, each of which some rule is about.
#[must_use]
pub fn all() -> Vec<Situation> {
    let mut all = events::all();
    all.extend(conversions::all());
    all.extend(faults::all());
    all.extend(certs::all());
    all.extend(snapshots::all());
    all.extend(tds::all());
    all.extend(runs::all());
    all
}

/// The one of this name; also one of those that belong to no rule.
#[must_use]
pub fn find(name: &str) -> Option<Situation> {
    let others = endless::all().into_iter().chain([ordinary::ports()]);
    all().into_iter().chain(others).find(|situation| situation.name == name)
}
