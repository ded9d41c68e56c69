//! What can be put around the port without the loop noticing: someone who watches, something that fails.

pub mod event;
pub mod inject;
pub mod trace;
