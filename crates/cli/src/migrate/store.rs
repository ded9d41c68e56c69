//! A side's directory: checkpoints by their digest, and one record. What is written is durable when the call returns.

use crate::Failure;
use exeunt::migrate::{Record, TransferId};
use exeunt::snapshot::{Digest, Limits, Snapshot};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

const RECORD: &str = "record";
const LOCK: &str = "lock";

/// What happens between the bytes of a file and its name: a test is killed there, everybody else goes on.
pub(crate) type Middle<'a> = &'a dyn Fn();

/// The directory of one side. One process has it at a time.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    /// Held until this is gone, or the process is.
    _lock: File,
}

impl Store {
    /// Opens a directory, which is made if it is not there.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let failed = |error| format!("cannot open {}: {error}", dir.display());
        make_dir(dir).map_err(failed)?;
        let lock =
            File::options().create(true).truncate(false).write(true).open(dir.join(LOCK)).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| format!("{} is in use by another process", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// The record, if there is one.
    pub(crate) fn record(&self) -> Result<Option<Record>, Failure> {
        let path = self.dir.join(RECORD);
        let failed = |why: String| format!("{}: {why}", path.display());
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(4096).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        Record::from_bytes(&bytes).map(Some).map_err(|error| failed(error.to_string()))
    }

    /// Replaces the record.
    pub(crate) fn set_record(&self, record: &Record, middle: Middle<'_>) -> Result<(), Failure> {
        write_durably(&self.dir, RECORD, &record.to_bytes(), middle)
    }

    /// Makes a checkpoint durable.
    pub(crate) fn put(&self, digest: &Digest, bytes: &[u8], middle: Middle<'_>) -> Result<(), Failure> {
        write_durably(&self.dir, &name(digest), bytes, middle)
    }

    /// A checkpoint and its bytes. It is what its name says, or an error.
    pub(crate) fn checkpoint(&self, digest: &Digest) -> Result<(Snapshot, Vec<u8>), Failure> {
        let path = self.dir.join(name(digest));
        let failed = |why: String| format!("{}: {why}", path.display());
        let limits = Limits::default();
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(|error| failed(error.to_string()))?;
        file.take(limits.total_bytes.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| failed(error.to_string()))?;
        let (snapshot, found) =
            Snapshot::read(bytes.as_slice(), limits).map_err(|error| failed(error.to_string()))?;
        if found != *digest {
            return Err(failed("it is another checkpoint than its name says".into()));
        }
        Ok((snapshot, bytes))
    }

    /// Removes the checkpoints that the record does not name. What stays costs room, and nothing else.
    pub(crate) fn clean(&self, keep: Option<Digest>) {
        let keep = keep.map(|digest| name(&digest));
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.starts_with("vm-") && Some(&file) != keep.as_ref() {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The file of a checkpoint.
fn name(digest: &Digest) -> String {
    let [first, second] = [0, 16].map(|at| {
        let half = digest.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        TransferId(half).to_string()
    });
    format!("vm-{first}{second}")
}

/// Writes a file beside its place, makes it durable, and gives it its name.
fn write_durably(dir: &Path, name: &str, bytes: &[u8], middle: Middle<'_>) -> Result<(), Failure> {
    let (path, new) = (dir.join(name), dir.join(format!("{name}.new")));
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        middle();
        fs::rename(&new, &path)?;
        sync_dir(dir)
    };
    write().map_err(|error: std::io::Error| format!("cannot write {}: {error}", path.display()))
}

/// Makes a directory durably, in one that is there. Whoever made one that is there already may not have come so far as to
/// make it durable, so that is done again.
pub(crate) fn make_dir(dir: &Path) -> std::io::Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => sync_dir(parent(dir)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // A parent that cannot be synced, such as that of a mount, is not one in which this was made.
            let _ = sync_dir(parent(dir));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// The directory that a name is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes names durable.
pub(crate) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}
