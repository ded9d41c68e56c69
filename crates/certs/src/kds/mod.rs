//! AMD's key distribution service (KDS): the certificates of a chip by its identity and TCB.
//!
//! The service answers about one request in ten seconds and says 429 otherwise, so a client asks seldom, waits as long
//! as it is told, and never asks twice for what it has.
//!
//! Source: AMD 57230 "VCEK Certificate and KDS Interface Specification" revision 1.00, chapter 4.

mod cache;
mod client;
mod pace;
#[cfg(test)]
pub(crate) mod server;
mod transport;

pub use cache::Cache;
pub use client::{Client, Fetched, Request, Settings};
pub use transport::{Https, Response, Transport, TransportError};

use crate::chain::{BundleError, ChainError};
use crate::file::FileError;
use std::time::Duration;
use thiserror::Error;

/// Where AMD's service is.
pub const AMD: &str = "https://kdsintf.amd.com";

/// Why there are no certificates.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KdsError {
    /// The service knows no such chip or TCB.
    #[error("{url}: there is no certificate for this chip and TCB (404)")]
    NotFound {
        /// What was asked for.
        url: String,
    },
    /// The service refuses for another reason.
    #[error("{url}: refused with status {status}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },
    /// The service wants to be asked later than the caller is ready to wait for.
    #[error("{url}: asked too often, come back in {after:?}")]
    RateLimited {
        /// What was asked for.
        url: String,
        /// When to come back.
        after: Duration,
    },
    /// The service gave no answer that could be used, as often as it was asked.
    #[error("{url}: no answer in {attempts} attempts: {last}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// How often.
        attempts: u32,
        /// What happened last.
        last: String,
    },
    /// What came has no meaning.
    #[error("{url}: not the certificates that were asked for: {source}")]
    Garbage {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        source: BundleError,
    },
    /// What came is for something else.
    #[error("{url}: not the certificate that was asked for: {reason}")]
    Other {
        /// What was asked for.
        url: String,
        /// How it differs.
        reason: String,
    },
    /// The certificates do not sign each other.
    #[error("the service's certificates do not verify: {0}")]
    Chain(#[from] ChainError),
    /// The cache does not have it, and the service is not to be asked.
    #[error("{what} is not in the cache, and the service is not asked when offline")]
    NotCached {
        /// What is missing.
        what: String,
    },
    /// Others ask through the same cache, for longer than the caller is ready to wait for.
    #[error("cannot wait for a turn: {0}")]
    Turn(#[source] FileError),
}
