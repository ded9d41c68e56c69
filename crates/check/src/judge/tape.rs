//! The recorder, shared by all parts of the port.

use super::transcript::{Crossing, End, Record, Status};
use super::twist::{Seen, Twist};
use exeunt_abi::kvm::run::RunPage;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Entries after which a VMM counts as hung. The longest scenario needs 40.
const MAX_RUNS: usize = 400;

/// The record of one run, and what twists the VMM. Clones are handles of the same.
#[derive(Clone)]
pub(super) struct Tape(Arc<Mutex<Inner>>);

pub(super) struct Inner {
    pub(super) records: Vec<Record>,
    pub(super) twist: Twist,
    /// The last exit.
    pub(super) seen: Seen,
    runs: usize,
    pub(super) is_hung: bool,
}

impl Tape {
    pub(super) fn new(twist: Twist) -> Self {
        let seen = Seen { vcpu: 0, entered: Ok(()), page: RunPage::zeroed(), exit: None };
        Self(Arc::new(Mutex::new(Inner { records: Vec::new(), twist, seen, runs: 0, is_hung: false })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, machine: u8, crossing: Crossing) {
        self.lock().records.push(Record { machine, crossing });
    }

    /// The end of the VMM, unless it goes on instead. One that hangs is ended by the judge.
    pub(super) fn end(&self, end: End) -> Option<End> {
        let mut inner = self.lock();
        if inner.is_hung {
            return Some(End {
                status: Status::Hung,
                text: "still running after all that was allowed".into(),
            });
        }
        let Inner { twist, seen, .. } = &mut *inner;
        match &mut twist.end {
            Some(hook) => hook(seen, end),
            None => Some(end),
        }
    }

    /// Whether the VMM ends where it need not.
    pub(super) fn gives_up(&self, page: &RunPage) -> Option<End> {
        let Inner { twist, seen, .. } = &mut *self.lock();
        twist.give_up.as_mut().and_then(|hook| hook(seen, page))
    }

    /// The records so far.
    pub(super) fn into_records(self) -> Vec<Record> {
        std::mem::take(&mut self.lock().records)
    }
}

impl Inner {
    /// Counts an entry. `false` if it is not to be made: the VMM has had its chances.
    pub(super) fn may_run(&mut self) -> bool {
        self.runs = self.runs.saturating_add(1);
        self.is_hung |= self.runs > MAX_RUNS;
        !self.is_hung
    }
}
