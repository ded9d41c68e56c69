//! The model held against real kernels.
//!
//! A seed makes a [`script`]: ioctls of a VMM, bad ones among them, and acts of a guest. The guest's acts are machine
//! code on `/dev/kvm` and a program in the model; [`half`] plays a script on either, and [`compare`] tells where the two
//! part, byte for byte. `cargo xtask real-kernels` carries this crate's program into virtual machines with kernels of
//! distributions, where it is the first process.
#![forbid(unsafe_code)]

pub mod calls;
pub mod code;
pub mod compare;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod effects;
pub mod flaw;
pub mod half;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod probe;
pub mod script;
