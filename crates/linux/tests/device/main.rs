//! What the host's own `/dev/kvm` does. Each test prints why it skips where there is none.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod boot;
mod effects;
mod events;
mod exits;
mod kick;
mod memory;
mod state;
