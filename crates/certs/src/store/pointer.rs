//! The small object that says which table is current.

use crate::identity::{IdentityError, TcbText, unhex};
use exeunt_proto::report::TcbVersion;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The format that is written.
pub const FORMAT: u32 = 1;

/// Which table is current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// [`FORMAT`].
    pub format: u32,
    /// Counts the changes, from 1.
    pub generation: u64,
    /// The product as the certificate names it.
    pub product: String,
    /// The TCB, as [`TcbText`] writes it.
    pub tcb: String,
    /// SHA-256 of the table, 64 hex digits.
    pub sha256: String,
    /// Length of the table.
    pub bytes: u64,
}

/// Why bytes are no pointer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PointerError {
    /// They are not its JSON.
    #[error("it is no pointer: {0}")]
    Json(#[from] serde_json::Error),
    /// They are of a later format.
    #[error("it is of format {0}, and {FORMAT} is known here")]
    Format(u32),
    /// The TCB has no meaning.
    #[error("it is no pointer: {0}")]
    Tcb(#[from] IdentityError),
    /// The digest is none.
    #[error("it is no pointer: '{0}' is no SHA-256")]
    Digest(String),
}

impl Pointer {
    /// Parses a pointer. What it says becomes part of names, so all of it is checked.
    ///
    /// # Errors
    ///
    /// The first check that fails, in the order of the variants.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PointerError> {
        let pointer: Self = serde_json::from_slice(bytes)?;
        if pointer.format != FORMAT {
            return Err(PointerError::Format(pointer.format));
        }
        pointer.tcb()?;
        let is_digest = unhex(&pointer.sha256).is_some_and(|digest| digest.len() == 32);
        if !is_digest || pointer.sha256.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return Err(PointerError::Digest(pointer.sha256.chars().take(70).collect()));
        }
        Ok(pointer)
    }

    /// The TCB.
    ///
    /// # Errors
    ///
    /// [`PointerError::Tcb`]. A pointer that was parsed has one.
    pub fn tcb(&self) -> Result<TcbVersion, PointerError> {
        let TcbText(tcb) = self.tcb.parse()?;
        Ok(tcb)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Numbers and strings are JSON whatever is in them.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
