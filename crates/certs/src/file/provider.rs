//! The provider that a VMM gives its policy.

use super::FileError;
use super::lock::{FileLock, Mode};
use super::read::{Stamp, read_all};
use crate::chain::Chain;
use crate::clock::{Clock, SystemClock};
use exeunt::certs::{CheckedTable, Guard, Lease, Provider, Unavailable};
use exeunt_proto::report::TcbVersion;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a guest gets when the file has nothing for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// A table without certificates: attestation works, and the verifier has to find the certificates itself.
    EmptyTable,
    /// It is to come back. A Linux guest does for a minute, and gives up attestation for good then.
    Busy,
    /// The request fails. A Linux guest gives up attestation for good.
    Broken,
}

/// How a [`FileProvider`] goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a request waits for the lock. The vCPU of the guest stands still as long, and a Linux guest that is
    /// told to come back does so after two seconds.
    pub wait_limit: Duration,
    /// For a file that is not there. A file that somebody else has locked is always [`Unavailable::Busy`].
    pub missing: Instead,
    /// For a file that holds no table, is no file, cannot be read, does not pass the check, or is for another TCB.
    pub damaged: Instead,
    /// Keep the table of a file that did not change.
    pub keep: bool,
}

impl Default for Options {
    /// Half a second, empty tables, and the table is kept: no guest loses anything by any state of the file.
    fn default() -> Self {
        Self {
            wait_limit: Duration::from_millis(500),
            missing: Instead::EmptyTable,
            damaged: Instead::EmptyTable,
            keep: true,
        }
    }
}

/// A check of a table before guests get it: the reason of a refusal.
pub type Check = dyn Fn(&CheckedTable) -> Result<(), String> + Send + Sync;
/// Is told of each failure, with what the guest gets all the same.
pub type Report = dyn Fn(&FileError) + Send + Sync;

/// Asks the platform for its reported TCB, as by `SNP_PLATFORM_STATUS`. `None` if it does not say.
pub type Reported = dyn Fn() -> Option<TcbVersion> + Send + Sync;

/// Certificates from a file, leased under a shared lock on it.
pub struct FileProvider {
    path: PathBuf,
    options: Options,
    clock: Arc<dyn Clock>,
    check: Option<Box<Check>>,
    report: Option<Box<Report>>,
    reported: Option<Box<Reported>>,
    empty: Arc<CheckedTable>,
    kept: Mutex<Option<(Stamp, Content)>>,
}

/// What was read from the file.
#[derive(Clone)]
struct Content {
    table: Arc<CheckedTable>,
    /// The TCBs that its certificates are for, if anybody wants to know.
    certified: Arc<[TcbVersion]>,
}

impl fmt::Debug for FileProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileProvider")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl FileProvider {
    /// A provider for this file. Nothing is opened before the first request, and the file is looked up by its name for
    /// each.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            options: Options::default(),
            clock: Arc::new(SystemClock::default()),
            check: None,
            report: None,
            reported: None,
            empty: Arc::new(CheckedTable::empty()),
            kept: Mutex::new(None),
        }
    }

    /// With other options.
    #[must_use]
    pub const fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// With a check of each table that is read, as of its chain. It is not repeated for a table that was kept.
    #[must_use]
    pub fn with_check(
        mut self,
        check: impl Fn(&CheckedTable) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.check = Some(Box::new(check));
        self
    }

    /// With the platform's word on its reported TCB, which is asked for under the lock at each request. An updater that
    /// died between firmware and file has left no lock behind, and certificates that no report verifies with.
    #[must_use]
    pub fn with_reported_tcb(
        mut self,
        reported: impl Fn() -> Option<TcbVersion> + Send + Sync + 'static,
    ) -> Self {
        self.reported = Some(Box::new(reported));
        self
    }

    /// With somebody who is told of each failure, for a log. It is called on the thread of the vCPU.
    #[must_use]
    pub fn with_report(mut self, report: impl Fn(&FileError) + Send + Sync + 'static) -> Self {
        self.report = Some(Box::new(report));
        self
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The table of the file and the lock on it, or why not.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way, whatever the options make of it.
    pub fn read(&self) -> Result<(Arc<CheckedTable>, FileLock), FileError> {
        let lock = FileLock::acquire(&self.path, Mode::Shared, self.options.wait_limit, &*self.clock)?;
        // Under the lock, and before the bytes: what an updater without manners writes after this shows in the next
        // stamp.
        let metadata = lock.file().metadata().map_err(FileError::system("look at", &self.path))?;
        let stamp = Stamp::of(&metadata);
        let content = match self.kept_for(stamp) {
            Some(content) => content,
            None => self.read_locked(&lock, stamp)?,
        };
        self.check_tcb(&content)?;
        Ok((content.table, lock))
    }

    fn kept_for(&self, stamp: Stamp) -> Option<Content> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(of, _)| self.options.keep && *of == stamp).map(|(_, content)| content.clone())
    }

    fn read_locked(&self, lock: &FileLock, stamp: Stamp) -> Result<Content, FileError> {
        let read_at = self.clock.wall();
        let bytes = read_all(lock.file(), &self.path)?;
        let path = || self.path.clone();
        let table =
            CheckedTable::new(bytes).map_err(|source| FileError::Malformed { path: path(), source })?;
        if let Some(check) = &self.check {
            check(&table).map_err(|reason| FileError::Refused { path: path(), reason })?;
        }
        let certified = if self.reported.is_some() { self.certified(&table)? } else { Vec::new() };
        let content = Content { table: Arc::new(table), certified: certified.into() };
        if self.options.keep && stamp.is_settled(read_at) {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, content.clone()));
        }
        Ok(content)
    }

    fn certified(&self, table: &CheckedTable) -> Result<Vec<TcbVersion>, FileError> {
        let chains = Chain::all_of(table)
            .map_err(|error| FileError::Refused { path: self.path.clone(), reason: error.to_string() })?;
        Ok(chains.iter().filter_map(|chain| Some(chain.vek.endorsement()?.tcb)).collect())
    }

    fn check_tcb(&self, content: &Content) -> Result<(), FileError> {
        let Some(reported) = self.reported.as_ref().and_then(|ask| ask()) else { return Ok(()) };
        match content.certified.iter().find(|certified| **certified != reported) {
            Some(certified) => {
                Err(FileError::OtherTcb { path: self.path.clone(), certified: *certified, reported })
            }
            None => Ok(()),
        }
    }

    fn instead(&self, error: &FileError) -> Result<Lease, Unavailable> {
        let instead = match error {
            FileError::Busy { .. } | FileError::Restless { .. } => Instead::Busy,
            FileError::Missing { .. } => self.options.missing,
            _ => self.options.damaged,
        };
        match instead {
            Instead::EmptyTable => Ok(Lease::of(self.empty.clone())),
            Instead::Busy => Err(Unavailable::Busy),
            Instead::Broken => Err(Unavailable::Broken),
        }
    }
}

impl Guard for FileLock {}

impl Provider for FileProvider {
    fn lease(&self) -> Result<Lease, Unavailable> {
        match self.read() {
            Ok((table, lock)) => Ok(Lease::guarded(table, lock)),
            Err(error) => {
                if let Some(report) = &self.report {
                    report(&error);
                }
                self.instead(&error)
            }
        }
    }
}
