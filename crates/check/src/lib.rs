//! Scenarios that drive the boundary, and what must be seen there.
//!
//! A [`scenario::Scenario`] is a TOML file: a VM, a guest program, faults, and what is expected of each case.
//! [`runner::run`] puts our VMM half on a kernel half, in software or `/dev/kvm`, and keeps a [`timeline::Event`] for
//! everything that happens; [`report`] prints it.
#![forbid(unsafe_code)]

mod expect;
pub mod explore;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod foreign;
pub mod judge;
pub mod judgement;
pub mod known;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod profile;
mod readers;
pub mod report;
pub mod rules;
pub mod runner;
pub mod scenario;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod shim;
pub mod timeline;
#[cfg(test)]
mod vectors;
