//! Chains of certificates: ARK, ASK or ASVK, and VCEK or VLEK.
//!
//! Source: AMD 57230 "VCEK Certificate and KDS Interface Specification" revision 1.00, chapter 3.

mod bundle;
mod certificate;
mod verify;

pub use bundle::{Bundle, BundleError};
pub use certificate::{Certificate, CertificateError, Endorsement, Role, SIMULATED};
pub use verify::{Chain, ChainError, Root, Verified, Verifier, check_signature, parse_report};

#[cfg(test)]
mod tests;
