//! The words that threads share, from the standard library or, under `--cfg shuttle`, from the checker of schedules.

#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::AtomicI32;

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::AtomicI32;
