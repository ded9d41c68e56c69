//! The certificate table in a file, which VMMs read while a firmware updater changes it.
//!
//! Everybody holds an open file description lock on the file: a VMM a shared one, from before it reads until the
//! firmware has signed the report; an updater an exclusive one, from before it changes the firmware until the file is
//! the one that goes with the new firmware.
//!
//! Source: Linux v7.2 `Documentation/virt/kvm/x86/amd-memory-encryption.rst`, `KVM_SEV_SNP_ENABLE_REQ_CERTS`.

mod lock;
mod provider;
mod read;
mod replace;

pub use lock::{FileLock, Mode, is_locked_by_another};
pub use provider::{Check, FileProvider, Instead, Options, Report, Reported};
pub use read::{FileId, read_bounded};
#[cfg(feature = "kds")]
pub(crate) use replace::write_whole;
pub use replace::{Held, replace};

use crate::identity::TcbText;
use exeunt::certs::MAX_TABLE_BYTES;
use exeunt_proto::certs::TableError;
use exeunt_proto::report::TcbVersion;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why a certificate file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// There is no file of this name.
    #[error("there is no file {path}")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("cannot {what} {path}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// It is a folder, a pipe or a device, which has no end or no lock.
    #[error("{path} is a {kind} and not a regular file")]
    NotRegular {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Somebody held the lock for as long as the caller was ready to wait.
    #[error("{path} was locked by another for {waited:?}")]
    Busy {
        /// The file.
        path: PathBuf,
        /// How long.
        waited: Duration,
    },
    /// The name led to another file each time that the lock was taken.
    #[error("{path} was replaced {times} times while its lock was taken")]
    Restless {
        /// The file.
        path: PathBuf,
        /// How often.
        times: u32,
    },
    /// The file is larger than [`MAX_TABLE_BYTES`].
    #[error("{path} has more than {MAX_TABLE_BYTES} bytes")]
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
    /// The caller's own check refused the table.
    #[error("{path} is refused: {reason}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// The check's word.
        reason: String,
    },
    /// The certificates are for another TCB than the platform reports: an update ended half way.
    #[error("{path} is for the TCB {}, the platform reports {}", TcbText(*.certified), TcbText(*.reported))]
    OtherTcb {
        /// The file.
        path: PathBuf,
        /// That of the certificates.
        certified: TcbVersion,
        /// That of the platform.
        reported: TcbVersion,
    },
}

impl FileError {
    pub(crate) fn system(
        what: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            std::io::ErrorKind::NotFound => Self::Missing { path },
            _ => Self::System { what, path, source },
        }
    }
}

#[cfg(test)]
mod tests;
