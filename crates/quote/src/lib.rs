//! Quotes of TDs, from a quote generation service behind a socket.
//!
//! [`SocketProvider`] is the provider that a VMM gives to [`exeunt::tdx::Quotes`]: each request becomes one connection,
//! on a thread of its own, with an end in time and in bytes. [`qgs`] is the protocol, [`get_quote`] one request, and
//! [`Server`] a service for tests: its quotes say in their bytes that they are SIMULATED.
//!
//! ```
//! use exeunt::memory::GuestMemory;
//! use exeunt::tdx::{CallInfo, GuestWriter, QuoteLimits, Quotes, TdxPolicy};
//! use exeunt::Policy;
//! use exeunt_quote::SocketProvider;
//! use std::sync::Arc;
//!
//! # fn make(memory: Arc<GuestMemory>, writer: Arc<dyn GuestWriter>) -> Result<Policy, exeunt_quote::AddressError> {
//! let provider = SocketProvider::new("unix:/var/run/tdx-qgs/qgs.socket".parse()?);
//! let limits = QuoteLimits::default();
//! let quotes = Quotes::new(Arc::new(provider), Arc::clone(&memory), writer, None, limits);
//! let mut policy = Policy::new(memory);
//! policy.tdx = TdxPolicy { quotes: Some(quotes), calls: CallInfo::default() };
//! # Ok(policy)
//! # }
//! ```
#![forbid(unsafe_code)]

mod address;
pub mod qgs;
mod simulated;

#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod provider;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod stream;

pub use address::{Address, AddressError};
pub use simulated::simulated_quote;

#[cfg(target_os = "linux")]
pub use client::{GetQuoteError, get_quote};
#[cfg(target_os = "linux")]
pub use provider::{OnFailure, SocketProvider, TIMEOUT, WORKERS};
#[cfg(target_os = "linux")]
pub use server::{Conduct, Served, Server};

#[cfg(all(test, target_os = "linux"))]
mod tests;
