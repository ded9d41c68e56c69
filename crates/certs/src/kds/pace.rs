//! Not more often than the service allows, for all who share a cache.

use super::KdsError;
use crate::clock::Clock;
use crate::file::{FileError, FileLock, Mode, read_bounded};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The longest that the service is left alone, whatever it says.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// A moment further away than this comes from a clock that was set back, and does not count.
const FARTHEST: Duration = Duration::from_secs(2 * 24 * 3600);

/// When the service may be asked next. Processes that share a cache share a file in it, threads share this.
#[derive(Debug)]
pub(super) struct Pace {
    file: Option<PathBuf>,
    /// Without a file: since the start of the clock.
    not_before: Mutex<Duration>,
}

impl Pace {
    pub(super) const fn new(file: Option<PathBuf>) -> Self {
        Self { file, not_before: Mutex::new(Duration::ZERO) }
    }

    /// Waits for a turn, and takes it: the next one is `spacing` later.
    ///
    /// # Errors
    ///
    /// How long it would take, if that is longer than `limit`; or nobody else lets go of the file.
    pub(super) fn wait(
        &self,
        spacing: Duration,
        limit: Duration,
        clock: &dyn Clock,
    ) -> Result<Result<(), Duration>, KdsError> {
        let start = clock.now();
        self.update(limit, clock, |wait| {
            if wait > limit.saturating_sub(clock.now().saturating_sub(start)) {
                return (None, Err(wait));
            }
            clock.sleep(wait);
            (Some(spacing), Ok(()))
        })
    }

    /// Nobody is to ask within this time.
    pub(super) fn hold_off(
        &self,
        time: Duration,
        limit: Duration,
        clock: &dyn Clock,
    ) -> Result<(), KdsError> {
        self.update(limit, clock, |wait| (Some(wait.max(time)), ()))
    }

    /// Calls `turn` with the time that is to pass before the next request. What it gives, from then on, is the new one.
    fn update<T>(
        &self,
        limit: Duration,
        clock: &dyn Clock,
        turn: impl FnOnce(Duration) -> (Option<Duration>, T),
    ) -> Result<T, KdsError> {
        let Some(path) = &self.file else {
            let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
            let (next, value) = turn(not_before.saturating_sub(clock.now()));
            if let Some(next) = next {
                *not_before = clock.now().saturating_add(next.min(LONGEST));
            }
            return Ok(value);
        };
        let failed = |source| FileError::System { what: "write", path: path.clone(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed).map_err(KdsError::Turn)?;
        }
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(failed)
            .map_err(KdsError::Turn)?;
        let lock = FileLock::acquire(path, Mode::Exclusive, limit, clock).map_err(KdsError::Turn)?;
        let now = since_epoch(clock);
        let text = read_bounded(path).unwrap_or_default();
        let not_before = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        let wait = Duration::from_millis(not_before.unwrap_or(0)).saturating_sub(now);
        let (next, value) = turn(if wait > FARTHEST { Duration::ZERO } else { wait });
        if let Some(next) = next {
            let at = since_epoch(clock).saturating_add(next.min(LONGEST)).as_millis();
            let mut file = lock.file();
            let written = file.set_len(0).and_then(|()| file.write_all(format!("{at}\n").as_bytes()));
            written.map_err(failed).map_err(KdsError::Turn)?;
        }
        Ok(value)
    }
}

fn since_epoch(clock: &dyn Clock) -> Duration {
    clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
