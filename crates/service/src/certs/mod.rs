//! Certificates for SNP guests.

mod provider;

pub use provider::{Guard, Lease, Provider, Unavailable};

use exeunt_abi::{Gpa, PAGE_SIZE};
use exeunt_proto::certs::{Certificate, ENTRY_BYTES, Table, TableError};
use exeunt_proto::exit::SnpReqCerts;
use exeunt_proto::host::Action;
use exeunt_proto::reply::CertsReply;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// The largest certificate table that is read: 1 MiB. Linux guests take 16 KiB.
pub const MAX_TABLE_BYTES: u64 = 1 << 20;

/// The table without certificates.
const EMPTY_TABLE: &[u8] = &[0; ENTRY_BYTES];

/// What a guest gets that asks for certificates.
#[derive(Clone, Debug, Default)]
pub enum Certificates {
    /// An empty table: attestation works, the verifier has to find the certificates itself.
    #[default]
    None,
    /// This table, which was checked. Nothing keeps it and the firmware's TCB together.
    Table(CheckedTable),
    /// What the provider has at the moment.
    From(Arc<dyn Provider>),
    /// They are being changed: the guest is to come back.
    Busy,
    /// There is no way to get them. A Linux guest gives up attestation for good, so prefer the others.
    Broken,
}

/// A table that ends and whose certificates lie inside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedTable(Vec<u8>);

/// Why certificates cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CertsError {
    /// The file cannot be read.
    #[error("cannot read the certificate file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// The file is larger than [`MAX_TABLE_BYTES`].
    #[error("the certificate file {path} is larger than {MAX_TABLE_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The bytes are no certificate table.
    #[error("{path} is no certificate table: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TableError,
    },
}

impl CheckedTable {
    /// Checks a table.
    ///
    /// # Errors
    ///
    /// The table does not end, or a certificate lies outside of it.
    pub fn new(bytes: Vec<u8>) -> Result<Self, TableError> {
        Table::parse(&bytes)?;
        Ok(Self(bytes))
    }

    /// The table without certificates.
    #[must_use]
    pub fn empty() -> Self {
        Self(EMPTY_TABLE.to_vec())
    }

    /// Builds a table of these certificates, in this order.
    ///
    /// # Errors
    ///
    /// [`TableError::OutOfBounds`] for a table above 4 GiB, whose offsets do not fit.
    pub fn build(certificates: &[Certificate<'_>]) -> Result<Self, TableError> {
        let mut directory = Vec::new();
        let mut data = Vec::new();
        let directory_bytes = certificates.len().saturating_add(1).saturating_mul(ENTRY_BYTES);
        for (index, certificate) in certificates.iter().enumerate() {
            let too_large = TableError::OutOfBounds { index, offset: u32::MAX, length: u32::MAX };
            let offset = directory_bytes.saturating_add(data.len());
            let offset = u32::try_from(offset).map_err(|_| too_large)?;
            let length = u32::try_from(certificate.bytes.len()).map_err(|_| too_large)?;
            directory.extend_from_slice(&certificate.guid.0);
            directory.extend_from_slice(&offset.to_le_bytes());
            directory.extend_from_slice(&length.to_le_bytes());
            data.extend_from_slice(certificate.bytes);
        }
        directory.extend_from_slice(EMPTY_TABLE);
        directory.append(&mut data);
        Self::new(directory)
    }

    /// Reads a table from a file that does not change, at most [`MAX_TABLE_BYTES`]. A host's table does, under the locks that
    /// the provider of `exeunt-certs` takes, which does not wait for a pipe either.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is too large, or holds no table.
    pub fn read(path: &Path) -> Result<Self, CertsError> {
        let failed = |source| CertsError::Read { path: path.into(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(MAX_TABLE_BYTES.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_TABLE_BYTES {
            return Err(CertsError::TooLarge { path: path.into() });
        }
        Self::new(bytes).map_err(|source| CertsError::Malformed { path: path.into(), source })
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// 4 KiB pages that the table needs.
    #[must_use]
    pub fn pages(&self) -> u64 {
        (self.0.len() as u64).div_ceil(PAGE_SIZE)
    }
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug)]
pub enum CertsPlan<'a> {
    /// Write the table, then say so.
    Install(Action<'a>),
    /// Say this and write nothing.
    Answer(CertsReply),
    /// Ask the provider, and do one of the other two.
    Ask {
        /// Whom.
        provider: &'a dyn Provider,
        /// What the guest asked for.
        request: SnpReqCerts,
        /// Whether all of the guest's buffer is shared memory.
        is_writable: bool,
    },
}

/// Two that ask are equal if they ask the same provider for the same.
impl PartialEq for CertsPlan<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Install(one), Self::Install(other)) => one == other,
            (Self::Answer(one), Self::Answer(other)) => one == other,
            (
                Self::Ask { provider, request, is_writable },
                Self::Ask { provider: other, request: with, is_writable: to },
            ) => std::ptr::addr_eq(*provider, *other) && request == with && is_writable == to,
            _ => false,
        }
    }
}

impl Eq for CertsPlan<'_> {}

impl Certificates {
    /// Plans the answer. KVM checked the alignment of the address and nothing else, so the caller says whether shared
    /// memory is behind the whole of the buffer.
    pub(crate) fn plan(&self, request: SnpReqCerts, is_writable: impl Fn(Gpa, u64) -> bool) -> CertsPlan<'_> {
        match self {
            Self::Busy => CertsPlan::Answer(CertsReply::Busy),
            Self::Broken => CertsPlan::Answer(CertsReply::Failed),
            // A guest that gives no room gets no empty table either, and goes on.
            Self::None if request.pages == 0 => CertsPlan::Answer(CertsReply::Installed),
            Self::None => install(EMPTY_TABLE, request, is_writable(request.gpa, request.pages)),
            Self::Table(table) => install(table.as_bytes(), request, is_writable(request.gpa, request.pages)),
            Self::From(provider) => CertsPlan::Ask {
                provider: provider.as_ref(),
                request,
                is_writable: is_writable(request.gpa, request.pages),
            },
        }
    }
}

/// Plans the answer of these bytes.
pub(crate) fn install(table: &[u8], request: SnpReqCerts, is_writable: bool) -> CertsPlan<'_> {
    let pages = (table.len() as u64).div_ceil(PAGE_SIZE);
    if request.pages < pages {
        return CertsPlan::Answer(CertsReply::TooSmall { pages });
    }
    if !is_writable {
        return CertsPlan::Answer(CertsReply::Failed);
    }
    CertsPlan::Install(Action::WriteGuest { gpa: request.gpa, bytes: table })
}

#[cfg(test)]
mod tests;
