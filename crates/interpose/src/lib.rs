//! A kernel half in front of an unmodified VMM: who makes the VMM's calls meet the model, or `/dev/kvm` with a recorder.
//!
//! [`record`] is what crossed the boundary, [`plan`] is what the part inside of the VMM's process is told.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

pub mod dispatch;
mod pages_unsafe;
pub mod plan;
pub mod record;
pub mod ring;

pub use pages_unsafe::{Shared, VCPU_BYTES, VcpuPages};
