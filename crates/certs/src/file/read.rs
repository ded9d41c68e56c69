//! Opening and reading a file that may be anything, and may change.

use super::FileError;
use exeunt::certs::MAX_TABLE_BYTES;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How much older than the moment of reading a change has to be, so that a later one is certain to leave another time.
/// File systems take the time from a clock that ticks: every 10 ms at most where they keep fractions of seconds.
const TICK: Duration = Duration::from_millis(100);
/// The same for file systems that keep whole seconds, two at a time at most.
const COARSE_TICK: Duration = Duration::from_secs(3);

/// Which file it is, whatever its name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// The file that has this name now.
    pub(crate) fn of_path(path: &Path) -> Result<Self, FileError> {
        std::fs::metadata(path)
            .map(|metadata| Self::of(&metadata))
            .map_err(FileError::system("look at", path))
    }
}

/// What tells one content of a file from the next without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    id: FileId,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            id: FileId::of(metadata),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change after `read_at` would show in the stamp: the last one is older than a tick of the file
    /// system's clock.
    pub(crate) fn is_settled(&self, read_at: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(self.changed.0), u64::try_from(self.changed.1))
        else {
            return false;
        };
        let changed = Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds));
        let tick = if nanoseconds == 0 { COARSE_TICK } else { TICK };
        let Ok(read_at) = read_at.duration_since(SystemTime::UNIX_EPOCH) else { return false };
        read_at > changed.saturating_add(tick)
    }
}

/// Opens a regular file. Nothing that the name can lead to makes this wait.
pub(crate) fn open_regular(path: &Path, writable: bool) -> Result<(File, Metadata), FileError> {
    // To open some devices is to do something, so the name is looked at before.
    let failed = || FileError::system("open", path);
    check_regular(path, std::fs::metadata(path).map_err(failed())?.file_type())?;
    let file = OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC | nix::libc::O_NOCTTY)
        .open(path)
        .map_err(failed())?;
    let metadata = file.metadata().map_err(failed())?;
    check_regular(path, metadata.file_type())?;
    Ok((file, metadata))
}

fn check_regular(path: &Path, kind: FileType) -> Result<(), FileError> {
    let kind = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "folder",
        kind if kind.is_fifo() => "pipe",
        kind if kind.is_socket() => "socket",
        _ => "device",
    };
    Err(FileError::NotRegular { path: path.into(), kind })
}

/// Reads a file that nobody locks, such as a certificate or a report. At most [`MAX_TABLE_BYTES`] are taken, and nothing
/// that the name can lead to makes this wait.
///
/// # Errors
///
/// [`FileError::Missing`], [`FileError::NotRegular`], [`FileError::TooLarge`], [`FileError::System`].
pub fn read_bounded(path: &Path) -> Result<Vec<u8>, FileError> {
    let (file, _) = open_regular(path, false)?;
    read_all(&file, path)
}

/// Reads all of a file from its start, at most [`MAX_TABLE_BYTES`], and leaves its position alone.
pub(crate) fn read_all(file: &File, path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::System { what: "read", path: path.into(), source };
    let claimed = file.metadata().map_err(failed)?.len();
    if claimed > MAX_TABLE_BYTES {
        return Err(FileError::TooLarge { path: path.into() });
    }
    // One byte more than there should be shows the end at the first read, and a file that is longer than it says.
    let mut bytes = vec![0; usize::try_from(claimed.saturating_add(1)).unwrap_or(0)];
    let mut filled = 0usize;
    loop {
        let room = bytes.get_mut(filled..).unwrap_or_default();
        match file.read_at(room, filled as u64) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
        if filled as u64 > MAX_TABLE_BYTES {
            return Err(FileError::TooLarge { path: path.into() });
        }
        if filled == bytes.len() {
            bytes.resize(bytes.len().saturating_mul(2), 0);
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
