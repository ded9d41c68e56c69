//! Certificates that were fetched once.

use crate::file::{FileError, read_bounded, write_whole};
use crate::identity::hex;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

/// A folder with what a service has answered. What is in it is checked each time it is used, as what comes over the
/// network is.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// A cache in this folder, which need not be there yet.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder that a user's caches are in: `$XDG_CACHE_HOME/exeunt/kds`, or `~/.cache/exeunt/kds`.
    #[must_use]
    pub fn default_folder() -> Option<PathBuf> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(caches.join("exeunt/kds"))
    }

    /// Which file has what is at this address. Another service has other files.
    pub(super) fn path(&self, base: &str, name: &str) -> PathBuf {
        let digest = Sha256::digest(base.trim_end_matches('/').as_bytes());
        self.folder.join(hex(digest.get(..8).unwrap_or_default())).join(name)
    }

    /// What there is.
    pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
        read_bounded(path)
    }

    /// Puts something there, whole or not at all.
    pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| FileError::System {
                what: "create",
                path: folder.into(),
                source,
            })?;
        }
        write_whole(path, bytes)
    }
}
