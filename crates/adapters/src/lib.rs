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
///
/// The last arm of the `match` that a VMM has; [`Leaf::serve_vcpu`] takes what `run` returned and the vCPU:
///
/// ```no_run
/// # use exeunt_adapters::{ExitError, Leaf, Served, vcpu::entered};
/// # use kvm_ioctls::{VcpuExit, VcpuFd};
/// # fn vcpu_loop<H: exeunt_proto::host::Host>(
/// #     mut vcpu: VcpuFd, mut leaf: Leaf<H>, policy: &exeunt::Policy, bus: impl Fn(u16, &[u8]),
/// # ) -> Result<(), std::io::Error> {
/// loop {
///     match vcpu.run() {
///         Ok(VcpuExit::IoOut(port, data)) => bus(port, data),
///         Ok(VcpuExit::Hlt) => return Ok(()),
///         exit => match leaf.serve_vcpu(entered(&exit), &mut vcpu, policy) {
///             Served::Served => {}
///             Served::Stop(stop) => return Err(ExitError(stop).into()),
///             Served::NotOurs => { /* EINTR, and the arms that were here before */ }
///         },
///     }
/// }
/// # }
/// ```
#[cfg(all(feature = "kvm-ioctls", target_os = "linux"))]
pub mod vcpu {
    pub use crate::vcpu_unsafe::entered;
}
