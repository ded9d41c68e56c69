//! Protocols between the two halves, and between hosts, as models that are walked from end to end.
//!
//! Each model takes a bug on purpose. Without one, every property holds in every state and every goal stays in reach;
//! with one, the search comes back with the shortest way to the property that breaks. `docs/protocols.md` has what was
//! found, and the tests hold it to that.
//!
//! `cargo test -p exeunt-check --test protocols -- --nocapture` prints the figures.

mod certificates;
mod hand_over;
mod page_state_change;
mod search;
mod triple_fault;
