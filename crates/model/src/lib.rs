//! The kernel half in software: a deterministic KVM for confidential exits.
//!
//! [`Kvm`] makes VMs of a chosen kernel, [`Vm`] takes the ioctls of a VM, and [`Vcpu`] is the engine behind `KVM_RUN`:
//! it runs a guest written as a Rust program ([`guest`]), fills the run page as that kernel fills it, and completes
//! exits as that kernel completes them. It meets a VMM half at the port, `exeunt_proto::host`.
#![forbid(unsafe_code)]

mod attributes;
mod complete;
mod effects;
mod engine;
mod events;
mod firmware;
mod ghcb;
mod gmem;
pub mod guest;
mod guest_request;
mod hypercall;
mod kvm;
mod memory;
mod memslot;
mod mmio;
mod proposals;
mod psc;
mod psci;
mod rng;
mod state;
mod vcpu;
#[cfg(test)]
mod vectors;
mod vm;
mod vmgexit;
mod vmgexit_msr;

pub use effects::Effects;
pub use firmware::Firmware;
pub use kvm::Kvm;
pub use memslot::{GuestMemfd, Slot};
pub use rng::Rng;
pub use vcpu::{Kick, Vcpu};
pub use vm::Vm;
