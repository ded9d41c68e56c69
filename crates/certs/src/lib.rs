//! Certificates for SNP guests: where a VMM gets them, whether they are right, and how they reach a fleet.
//!
//! [`file`] is what a VMM holds: a provider that reads the host's table under the locks that Linux's documentation
//! asks for. [`chain`] says whether certificates verify up to a root and match the reported TCB.
#![forbid(unsafe_code)]

pub mod chain;
pub mod clock;
pub mod file;
pub mod identity;

#[cfg(test)]
mod testing;
