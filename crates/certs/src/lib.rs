//! Certificates for SNP guests: where a VMM gets them, whether they are right, and how they reach a fleet.
//!
//! [`mod@file`] is what a VMM holds: a provider that reads the host's table under the locks that Linux's documentation
//! asks for. [`chain`] says whether certificates verify up to a root and match the reported TCB. [`kds`] fetches them
//! from AMD, and [`store`] keeps them for a fleet. [`Bounded`] goes around a provider that may hang.
#![forbid(unsafe_code)]

mod bounded;
pub mod chain;
pub mod clock;
pub mod file;
#[cfg(feature = "kds")]
mod http;
pub mod identity;
#[cfg(feature = "kds")]
pub mod kds;
#[cfg(feature = "store")]
pub mod store;

pub use bounded::Bounded;

#[cfg(test)]
mod testing;
