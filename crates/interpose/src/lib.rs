//! A kernel half in front of an unmodified VMM: who makes the VMM's calls meet the model, or `/dev/kvm` with a recorder.
//!
//! [`record`] is what crossed the boundary, [`plan`] is what the part inside of the VMM's process is told, [`launch`] is one run of a
//! VMM from its start to the end of all that it started. [`notify`] is the way in for programs that the dynamic linker does
//! not start, or that have system call filters of their own.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

pub mod dispatch;
pub mod launch;
pub mod notify;
mod pages_unsafe;
pub mod plan;
pub mod record;
pub mod ring;

pub use pages_unsafe::{Shared, VCPU_BYTES, VcpuPages};
