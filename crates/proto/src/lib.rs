//! Meaning of the bytes at the KVM confidential exit boundary.
//!
//! [`exit::decode`] turns the result of `KVM_RUN` and the run page into an [`exit::Exit`], [`reply::encode`] turns a
//! [`reply::Reply`] into bytes. Between them stands the port, [`host`]: two traits that every kernel half and every
//! VMM half meet at. Everything here is pure, allocates nothing and has no dependency on a VMM's crates.
#![no_std]
#![forbid(unsafe_code)]

pub mod certs;
pub mod conversion;
pub mod events;
pub mod exit;
pub mod ghcb;
pub mod ghci;
pub mod host;
pub mod psci;
pub mod reply;
pub mod report;
pub mod sbi;
pub mod state;
pub mod termination;
