//! The kernel half for real: `/dev/kvm`, and the effects on the host.
//!
//! [`Kvm`] opens the device, [`Vm`] holds the guest's memory, [`Vcpu`] is the port's `Vcpu` and `Events` over
//! `KVM_RUN`, and [`Effects`] is the port's `Host` over the memory of one VM. The [`guests`] are small programs that
//! bring exits without a firmware or an operating system; [`image`] wraps such programs for VMMs that load a file. [`Backings`] is for a VMM that has its VM and its memory already.
//!
//! Nothing here decides anything: an exit is bytes until `exeunt_proto::exit::decode` has read it, and what is done
//! about it is the caller's.
//!
//! The crate is empty but on Linux on x86-64. All of its unsafe code is in the files named `*_unsafe.rs`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod attributes;
mod backings;
mod cpuid_unsafe;
mod dialect;
mod effects;
mod embed_unsafe;
mod error;
mod guest;
mod host_memory;
mod host_memory_unsafe;
pub mod image;
mod ioctl_unsafe;
mod kick;
mod kicker;
mod kvm;
mod mapping_unsafe;
mod memory;
mod prefault;
mod run_area;
mod sev;
mod sev_unsafe;
mod signal_unsafe;
mod slot_unsafe;
mod state;
mod state_unsafe;
mod sync;
mod unchecked;
mod vcpu;
mod vm;

pub use backings::Backings;
pub use cpuid_unsafe::host_c_bit;
pub use effects::Effects;
pub use error::{KvmError, MemoryFlaw};
pub use guest::{FlatGuest, Mode};
pub use host_memory::{Half, HostMemory, Sharing};
pub use kicker::Kicker;
pub use kvm::{Kvm, print_skip, probe};
pub use prefault::prefault;
pub use sev::SevLaunch;
pub use unchecked::Unchecked;
pub use vcpu::Vcpu;
pub use vm::Vm;

/// The guests that come with this crate.
pub mod guests {
    pub use crate::guest::{all, by_name};
}
