//! What the fuzzer calls: one function for each decoder, and an explorer for the model.
//!
//! Each takes any bytes and returns, or panics because a promise was broken. `fuzz/fuzz_targets` has a binary for each,
//! `tests/replay.rs` calls each with the inputs of `fuzz/corpus`.
#![forbid(unsafe_code)]

mod chain;
mod decoders;
mod device;
mod explorer;
mod hand_over;
mod quote;
mod record;
mod snapshot;

/// A name, and what to call with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by the name of its binary and of its corpus.
pub const TARGETS: [Target; 15] = [
    ("run_page", decoders::run_page),
    ("certs", decoders::certs),
    ("ghcb_page", decoders::ghcb_page),
    ("psc", decoders::psc),
    ("words", decoders::words),
    ("report", decoders::report),
    ("messages", decoders::messages),
    ("scenario", decoders::scenario),
    ("explorer", explorer::explore),
    ("device", device::ioctls),
    ("quote", quote::quote),
    ("snapshot", snapshot::snapshot),
    ("chain", chain::chain),
    ("hand_over", hand_over::hand_over),
    ("record", record::record),
];

/// Calls the target with this name; nothing if there is none.
pub fn call(name: &str, data: &[u8]) {
    if let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) {
        target(data);
    }
}
