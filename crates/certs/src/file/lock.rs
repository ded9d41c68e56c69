//! Open file description locks on the file that has a name now.

use super::FileError;
use super::read::{FileId, open_regular};
use crate::clock::Clock;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The first pause between two tries to lock; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_micros(500);
/// The longest pause. Locks are held for as long as a file is read or a report is signed, mostly.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// How often the name may lead to another file. An updater replaces it once under one lock.
const MAX_SWAPS: u32 = 64;

/// What a lock excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Others may read.
    Shared,
    /// Nobody else may do anything. The file has to be writable for the caller.
    Exclusive,
}

/// A lock on a file, and the file. It is unlocked when this is dropped, or when the process ends.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    id: FileId,
    mode: Mode,
}

impl FileLock {
    /// Locks the file that has the name `path` when the lock is there. Waits for `limit` at most, and tries once at
    /// least.
    ///
    /// # Errors
    ///
    /// [`FileError::Busy`] when the time is over; [`FileError::Missing`], [`FileError::NotRegular`],
    /// [`FileError::Restless`], [`FileError::System`].
    pub fn acquire(path: &Path, mode: Mode, limit: Duration, clock: &dyn Clock) -> Result<Self, FileError> {
        let start = clock.now();
        let mut pause = FIRST_PAUSE;
        for _ in 0..MAX_SWAPS {
            let (file, metadata) = open_regular(path, mode == Mode::Exclusive)?;
            let lock = Self { file, id: FileId::of(&metadata), mode };
            let mut has_turn = false;
            let is_taken = loop {
                if lock.try_lock(&mut has_turn).map_err(FileError::system("lock", path))? {
                    break true;
                }
                let waited = clock.now().saturating_sub(start);
                let Some(rest) = limit.checked_sub(waited).filter(|rest| !rest.is_zero()) else {
                    return Err(FileError::Busy { path: path.into(), waited });
                };
                clock.sleep(pause.min(rest));
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                if FileId::of_path(path)? != lock.id {
                    break false;
                }
            };
            // An updater that renamed a new file into place held the lock of the old one, which now protects nothing.
            if is_taken && FileId::of_path(path)? == lock.id {
                return Ok(lock);
            }
        }
        Err(FileError::Restless { path: path.into(), times: MAX_SWAPS })
    }

    /// Whoever wants to write takes the turn first and keeps it, and whoever wants to read goes through it. So readers
    /// that are there are waited for, and others do not come in meanwhile.
    fn try_lock(&self, has_turn: &mut bool) -> io::Result<bool> {
        match self.mode {
            Mode::Shared => {
                if !self.set(libc::F_RDLCK, Part::Turn)? {
                    return Ok(false);
                }
                let is_taken = self.set(libc::F_RDLCK, Part::Content)?;
                self.set(libc::F_UNLCK, Part::Turn)?;
                Ok(is_taken)
            }
            Mode::Exclusive => {
                *has_turn = *has_turn || self.set(libc::F_WRLCK, Part::Turn)?;
                Ok(*has_turn && self.set(libc::F_WRLCK, Part::Content)?)
            }
        }
    }

    /// `false` if somebody else has it.
    fn set(&self, kind: i32, part: Part) -> io::Result<bool> {
        loop {
            match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&part.lock(kind))) {
                Ok(_) => return Ok(true),
                Err(Errno::EAGAIN | Errno::EACCES) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Lets the programs that this process becomes or starts hold the lock as well: it lasts until the last of them has
    /// closed the file or ended.
    ///
    /// # Errors
    ///
    /// The operating system's word.
    pub fn pass_on(&self) -> io::Result<()> {
        fcntl(&self.file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(())
    }

    /// The file, which is locked.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Which file it is.
    #[must_use]
    pub const fn id(&self) -> FileId {
        self.id
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // To close the file is not enough where a child has inherited it. Nothing can be done about a failure.
        let _ = self.set(libc::F_UNLCK, Part::Content);
        let _ = self.set(libc::F_UNLCK, Part::Turn);
    }
}

/// Whether somebody else holds an exclusive lock on this file.
///
/// # Errors
///
/// [`FileError::System`].
pub fn is_locked_by_another(file: &File, path: &Path) -> Result<bool, FileError> {
    let mut query = Part::Content.lock(libc::F_RDLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut query)).map_err(|errno| FileError::System {
        what: "query the lock of",
        path: path.into(),
        source: errno.into(),
    })?;
    Ok(i32::from(query.l_type) != libc::F_UNLCK)
}

/// Ranges of bytes that are locked. Other tools lock all bytes there can be, and so both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// What a file can have.
    Content,
    /// What no file has: whose turn it is.
    Turn,
}

impl Part {
    /// Where the turn begins.
    const TURN_START: libc::off_t = 1 << 62;

    fn lock(self, kind: i32) -> libc::flock {
        let (start, length) = match self {
            Self::Content => (0, Self::TURN_START),
            // To the end, however far that is.
            Self::Turn => (Self::TURN_START, 0),
        };
        libc::flock {
            // The kinds are 0, 1 and 2 on every architecture.
            l_type: i16::try_from(kind).unwrap_or_default(),
            l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
            l_start: start,
            l_len: length,
            l_pid: 0,
        }
    }
}
