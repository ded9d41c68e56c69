//! The supervisor of a run, on a thread of its own.

use super::LaunchError;
use crate::notify::{Ended, Supervisor};
use crate::plan::Plan;
use crate::ring::{Reader, Writer};
use exeunt_abi::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// Answers until it is stopped, or nobody is left who asks.
#[derive(Debug)]
pub(super) struct Supervision {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Ended, Errno>>>,
}

impl Supervision {
    pub(super) fn start(listener: OwnedFd, plan: &Plan, ring: &Reader) -> Result<Self, LaunchError> {
        let failed = |why: String| LaunchError::Supervisor { why };
        let writer = Writer::of(ring.file()).map_err(|errno| failed(errno.to_string()))?;
        let supervisor = Supervisor::new(listener, plan, Arc::new(writer), None);
        let mut supervisor = supervisor.map_err(|error| failed(error.to_string()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = Builder::new().name("exeunt-notify".into()).spawn(move || supervisor.run(&told));
        Ok(Self { stop, thread: Some(thread.map_err(|error| failed(error.to_string()))?) })
    }

    /// Stops it. Calls that still wait fail with `ENOSYS`. What went wrong, if something did.
    pub(super) fn stop(&mut self) -> Option<String> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take()?.join() {
            Ok(Ok(_)) => None,
            Ok(Err(errno)) => Some(format!("the supervisor of system calls failed with {errno}")),
            Err(_) => Some("the supervisor of system calls panicked, which is a bug of exeunt".into()),
        }
    }
}

impl Drop for Supervision {
    fn drop(&mut self) {
        self.stop();
    }
}
