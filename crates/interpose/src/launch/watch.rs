//! When a run is over, by what has been seen of it.

use super::Ended;
use super::family::Status;
use crate::record::{File, Record, What};
use std::time::{Duration, Instant};

/// What is known at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) now: Instant,
    /// Calls of `KVM_RUN` so far, and moments that one waited.
    pub(super) entries: u64,
    /// The interposer lets nobody in any more.
    pub(super) hung: bool,
    /// How the program that was started ended.
    pub(super) first: Option<Status>,
    /// How the process that opened `/dev/kvm` ended, if it is not the first and was left to the keeper.
    pub(super) vmm: Option<Status>,
    /// No process is left.
    pub(super) gone: bool,
}

/// Sees a run go by.
#[derive(Debug)]
pub(super) struct Watch {
    start: Instant,
    timeout: Duration,
    settle: Duration,
    last_record: Instant,
    last_activity: Instant,
    entries: u64,
    exits: u64,
    scene_over: bool,
    hung: bool,
    vmm: Option<i32>,
    ended_at: Option<Instant>,
}

/// How many times the settle time a process that was left behind may take to open `/dev/kvm`.
const DAEMON: u32 = 10;

impl Watch {
    pub(super) const fn new(start: Instant, timeout: Duration, settle: Duration) -> Self {
        Self {
            start,
            timeout,
            settle,
            last_record: start,
            last_activity: start,
            entries: 0,
            exits: 0,
            scene_over: false,
            hung: false,
            vmm: None,
            ended_at: None,
        }
    }

    /// The process that opened `/dev/kvm` last.
    pub(super) const fn vmm(&self) -> Option<i32> {
        self.vmm
    }

    /// `KVM_RUN`s that came back.
    pub(super) const fn exits(&self) -> u64 {
        self.exits
    }

    /// A record has come.
    pub(super) fn see(&mut self, record: &Record, now: Instant) {
        (self.last_record, self.last_activity) = (now, now);
        match &record.what {
            What::Opened { file: File::System, result: Ok(_) } => self.vmm = i32::try_from(record.pid).ok(),
            What::Run(_) => self.exits = self.exits.saturating_add(1),
            What::PlainRuns { count, .. } => self.exits = self.exits.saturating_add(*count),
            What::SceneOver => self.scene_over = true,
            What::Hung => self.hung = true,
            _ => {}
        }
    }

    /// Whether the run is over, and how it ended. `inside` says whether a thread of the VMM is in a vCPU or busy.
    pub(super) fn decide(&mut self, sample: Sample, inside: impl FnOnce() -> bool) -> Option<Ended> {
        let Sample { now, entries, .. } = sample;
        if entries != self.entries {
            self.entries = entries;
            self.last_activity = now;
        }
        let status = sample.vmm.or(sample.first);
        if sample.gone {
            return Some(status.map_or(Ended::Lost, Ended::from));
        }
        if self.hung || sample.hung {
            return Some(Ended::Hung);
        }
        if let Some(ended) = self.left_behind(sample) {
            return Some(ended);
        }
        let is_quiet = |since: Instant| now.saturating_duration_since(since) >= self.settle;
        // A guest that halted at its end waits in its vCPU for ever, and counts.
        if self.scene_over && is_quiet(self.last_record) {
            return Some(Ended::GuestDone);
        }
        if (self.exits > 0 || self.entries > 0) && is_quiet(self.last_activity) && !inside() {
            return Some(Ended::Paused);
        }
        (now.saturating_duration_since(self.start) >= self.timeout).then_some(Ended::TimedOut)
    }

    /// The VMM has ended, and something that it started has not.
    fn left_behind(&mut self, sample: Sample) -> Option<Ended> {
        // A VMM that became a daemon lives on when the program that was started has ended.
        let (status, patience) = match (sample.vmm, sample.first, self.vmm) {
            (Some(status), ..) => (status, self.settle),
            (None, Some(status), None) => (status, self.settle.saturating_mul(DAEMON)),
            _ => return None,
        };
        let since = *self.ended_at.get_or_insert(sample.now);
        let from = since.max(self.last_activity);
        (sample.now.saturating_duration_since(from) >= patience).then_some(Ended::from(status))
    }
}

#[cfg(test)]
#[path = "tests/watch.rs"]
mod tests;
