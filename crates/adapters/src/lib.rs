//! The VMM half behind the types that VMMs have.
//!
//! [`Leaf`] is one vCPU's way through an exit: it goes into an arm of the `match` that a VMM has already, services
//! the confidential exits there and leaves every other to the VMM. It needs the run page as bytes, and the features
//! say where these come from:
//!
//! | feature | brings | for |
//! |---|---|---|
//! | `kvm-ioctls` | `vcpu` | a VMM on rust-vmm's `VcpuFd` |
//! | `raw` | `raw` | a VMM with a pointer to `kvm_run`, of its own or of another crate |
//! | `tracing` | `tracing` | events as spans and events of the `tracing` crate |
//! | `prometheus` | `metrics` | counters and latencies per kind of exit, as Prometheus text |
//!
//! None is on by default, and no type of theirs is in the core: their versions differ from VMM to VMM.
//! All unsafe code is in files named `*_unsafe.rs`.

mod errno;
mod leaf;
#[cfg(feature = "prometheus")]
pub mod metrics;
#[cfg(feature = "raw")]
mod raw_unsafe;
#[cfg(feature = "tracing")]
pub mod tracing;
#[cfg(all(feature = "kvm-ioctls", target_os = "linux"))]
mod vcpu_unsafe;

pub use errno::ExitError;
pub use leaf::{Leaf, Live, Served, is_ours};

/// A `kvm_run` behind a pointer.
#[cfg(feature = "raw")]
pub mod raw {
    pub use crate::raw_unsafe::{RawPage, RawPageError};
}

/// `VcpuFd` of kvm-ioctls.
#[cfg(all(feature = "kvm-ioctls", target_os = "linux"))]
pub mod vcpu {
    pub use crate::vcpu_unsafe::entered;
}
