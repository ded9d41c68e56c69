//! The kernel half in software: a deterministic KVM for confidential exits.
//!
//! It has two entries. [`Device`] is a process in front of `/dev/kvm` and `/dev/sev`: descriptors, ioctl numbers, and structs
//! in the process's own memory. Below it the same by type: [`Kvm`] makes VMs of a chosen kernel and [`Host`], [`Vm`] takes the
//! ioctls of a VM, and [`Vcpu`] is the engine behind `KVM_RUN`: it runs a guest written as a Rust program ([`guest`]),
//! fills the run page as that kernel fills it, and completes exits as that kernel completes them. It meets a VMM half at
//! the port, `exeunt_proto::host`.
//!
//! Confidential guests are launched and measured ([`launch`]) by a secure processor with real cryptography ([`psp`]).
//! [`FaultPlan`] says what goes wrong; [`Stepper`] runs several vCPUs on one thread in an order that a seed decides.
#![forbid(unsafe_code)]

mod apic;
mod caps;
pub mod device;
mod effects;
mod events;
mod faults;
mod ghcb;
pub mod guest;
mod host;
mod kvm;
pub mod launch;
mod memory;
mod nested;
mod platform;
pub mod psp;
mod rng;
mod state;
mod stepper;
mod system_event;
mod tdx;
mod vcpu;
#[cfg(test)]
mod vectors;
mod vm;

pub use device::Device;
pub use effects::Effects;
pub use events::MachineCheck;
pub use faults::{Fault, FaultPlan, Met, Point};
pub use ghcb::Compiler;
pub use host::{Host, Vendor};
pub use kvm::Kvm;
pub use memory::{DirtyLog, GuestMemfd, Protection, RmpEntry, Slot, SparseMemory, UserMemory, falloc};
pub use nested::{Intercepts, NestedExit, NestedStateRead};
pub use psp::Firmware;
pub use rng::Rng;
pub use stepper::{Stepper, Turn};
pub use tdx::{TdxFailure, TdxPlatform};
pub use vcpu::{Kick, MpState, MsrFilter, MsrFilterRange, Vcpu};
pub use vm::Vm;
