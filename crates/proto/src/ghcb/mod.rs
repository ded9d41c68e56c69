//! What a guest asks for through the GHCB.

mod msr;

pub use msr::MsrRequest;
