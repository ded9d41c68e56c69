//! Replacing the file, so that whoever reads it sees the old content or the new.

use super::FileError;
use super::lock::{FileLock, Mode, is_locked_by_another};
use super::read::{FileId, open_regular};
use crate::clock::Clock;
use exeunt::certs::CheckedTable;
use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions, Permissions};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a file may appear or vanish while it is replaced.
const MAX_TRIES: u32 = 16;

/// The lock that a parent process holds for this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held(FileId);

impl Held {
    /// What a parent passes to its children, in the environment.
    pub const VARIABLE: &'static str = "EXEUNT_CERTS_LOCKED";

    /// That this lock is held.
    #[must_use]
    pub const fn by(lock: &FileLock) -> Self {
        Self(lock.id())
    }

    /// The value of [`Held::VARIABLE`].
    #[must_use]
    pub fn to_value(self) -> String {
        format!("{}:{}", self.0.device, self.0.inode)
    }

    /// From the value of [`Held::VARIABLE`].
    #[must_use]
    pub fn from_value(value: &str) -> Option<Self> {
        let (device, inode) = value.split_once(':')?;
        Some(Self(FileId { device: device.parse().ok()?, inode: inode.parse().ok()? }))
    }
}

/// Writes a table to a file: under an exclusive lock on the old file, if there is one, into a new file that takes the
/// name of the old when it is complete and on the disk.
///
/// The name changes hands last, so what belongs to the new certificates has to be in force when this is called. With
/// `held` the lock of a parent is enough, if it is one on this file.
///
/// # Errors
///
/// [`FileError::Busy`] if the lock is not there within `limit`; nothing has changed then, nor with any other error.
pub fn replace(
    path: &Path,
    table: &CheckedTable,
    limit: Duration,
    held: Option<Held>,
    clock: &dyn Clock,
) -> Result<(), FileError> {
    // A link is followed, so that the file behind it is replaced and not the link.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    for _ in 0..MAX_TRIES {
        let lock = if held.map_or(Ok(false), |held| is_held(path, held))? {
            None
        } else {
            match FileLock::acquire(path, Mode::Exclusive, limit, clock) {
                Ok(lock) => Some(lock),
                Err(FileError::Missing { .. }) if create(path, table)? => return Ok(()),
                Err(FileError::Missing { .. }) => continue,
                Err(error) => return Err(error),
            }
        };
        NewFile::write(path, table.as_bytes())?.rename(path)?;
        drop(lock);
        return sync_folder(path);
    }
    Err(FileError::Restless { path: path.clone(), times: MAX_TRIES })
}

/// Writes a file that nobody locks, whole or not at all.
#[cfg(feature = "kds")]
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    NewFile::write(path, bytes)?.rename(path)?;
    sync_folder(path)
}

/// Whether the parent's lock is on this file, and still held.
fn is_held(path: &Path, held: Held) -> Result<bool, FileError> {
    let (file, metadata) = match open_regular(path, false) {
        Err(FileError::Missing { .. }) => return Ok(false),
        opened => opened?,
    };
    Ok(FileId::of(&metadata) == held.0 && is_locked_by_another(&file, path)?)
}

/// Creates a file that was not there. `false` if somebody else did.
fn create(path: &Path, table: &CheckedTable) -> Result<bool, FileError> {
    let new = NewFile::write(path, table.as_bytes())?;
    match std::fs::hard_link(&new.path, path) {
        Ok(()) => sync_folder(path).map(|()| true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(FileError::System { what: "create", path: path.into(), source: error }),
    }
}

/// A complete file with a name of its own next to the one that it is for. It is removed unless it was renamed.
struct NewFile {
    path: PathBuf,
}

impl NewFile {
    /// Writes it, with a name that nobody else takes: containers that share a folder have processes of the same number.
    fn write(target: &Path, bytes: &[u8]) -> Result<Self, FileError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path =
            target.with_file_name(format!(".{name}.{:016x}.new", RandomState::new().build_hasher().finish()));
        let failed = |source| FileError::System { what: "write", path: path.clone(), source };
        // VMMs run as other users, and certificates are no secret.
        let mode = std::fs::metadata(target).map_or(0o644, |metadata| metadata.mode() & 0o777);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).map_err(failed)?;
        let new = Self { path: path.clone() };
        // The mode of `open` passes through the mask of the process, this one does not.
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(new)
    }

    fn rename(self, to: &Path) -> Result<(), FileError> {
        std::fs::rename(&self.path, to).map_err(|source| FileError::System {
            what: "replace",
            path: to.into(),
            source,
        })
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After a rename there is nothing of this name.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A name is on the disk when its folder is.
fn sync_folder(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| FileError::System {
        what: "write",
        path: folder.into(),
        source,
    })
}
