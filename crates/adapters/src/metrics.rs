//! Counters and latencies per kind of exit, as Prometheus text.
//!
//! [`Metrics`] is the VM's, [`VcpuMetrics`] one for each vCPU thread: an observer that counts in memory of its own,
//! so that vCPUs do not share a cache line. Rendering adds them up. The time of an exit is that from the decoded page
//! to the answer, effects on the host included; time in the guest is not. Two readings of the clock are most of what
//! counting costs, so that [`Metrics::timing_one_in`] times a part of the exits; they are counted all the same.
//!
//! | name | labels | what |
//! |---|---|---|
//! | `exeunt_exits_total` | `kind` | exits |
//! | `exeunt_exit_errors_total` | `kind` | exits with a failed effect, or that ended the run by a failure |
//! | `exeunt_exit_handling_seconds` | `kind` | histogram of the time to an answer |
//! | `exeunt_effects_total` | `effect`, `result` | effects on the host; the result is `ok` or `error` |
//! | `exeunt_effect_bytes_total` | `effect` | bytes of guest memory in effects that succeeded |
//! | `exeunt_replies_total` | `reply` | answers |
//! | `exeunt_stops_total` | `kind` | ends of a run |
//!
//! A series appears when it is first counted.

mod cells;
mod render;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use exeunt::layer::event::{Event, ExitKind, ReplyKind};
use exeunt::layer::trace::Observer;

use cells::{Cells, bump};

/// The metrics of a VM. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    vcpus: Mutex<Vcpus>,
    /// Exits between two that are timed.
    untimed: u32,
}

#[derive(Debug, Default)]
struct Vcpus {
    /// What vCPUs counted that are gone, so that a counter never falls.
    gone: Cells,
    here: Vec<Arc<Cells>>,
}

impl Metrics {
    /// Metrics without a vCPU.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Metrics that time the first exit of each vCPU and then one in so many.
    #[must_use]
    pub fn timing_one_in(exits: NonZeroU32) -> Self {
        let untimed = exits.get().saturating_sub(1);
        Self { shared: Arc::new(Shared { untimed, ..Shared::default() }) }
    }

    /// The counters of one more vCPU, for its thread.
    #[must_use]
    pub fn vcpu(&self) -> VcpuMetrics {
        let cells = Arc::new(Cells::default());
        self.lock(|vcpus| vcpus.here.push(Arc::clone(&cells)));
        VcpuMetrics { metrics: self.clone(), cells, open: None, untimed: 0 }
    }

    /// Everything as Prometheus text, format version 0.0.4: `text/plain; version=0.0.4`.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text);
        text
    }

    /// As [`Metrics::render`], to a writer.
    ///
    /// # Errors
    ///
    /// The writer's own.
    pub fn write(&self, to: &mut impl fmt::Write) -> fmt::Result {
        let sum = Cells::default();
        self.lock(|vcpus| {
            sum.add(&vcpus.gone);
            vcpus.here.iter().for_each(|cells| sum.add(cells));
        });
        render::write(&sum, to)
    }

    fn lock<T>(&self, with: impl FnOnce(&mut Vcpus) -> T) -> T {
        // A thread that panicked here has at worst counted a vCPU once too little.
        with(&mut self.shared.vcpus.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The counters of one vCPU: an observer.
#[derive(Debug)]
pub struct VcpuMetrics {
    metrics: Metrics,
    cells: Arc<Cells>,
    open: Option<Open>,
    /// Exits until one is timed.
    untimed: u32,
}

/// An exit that has no answer yet.
#[derive(Debug)]
struct Open {
    kind: ExitKind,
    since: Option<Instant>,
    has_failed: bool,
}

impl VcpuMetrics {
    /// The time, if this exit is one that is timed.
    fn clock(&mut self) -> Option<Instant> {
        if let Some(left) = self.untimed.checked_sub(1) {
            self.untimed = left;
            return None;
        }
        self.untimed = self.metrics.shared.untimed;
        Some(Instant::now())
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        if let Some(since) = open.since {
            self.cells.latency(open.kind, since.elapsed());
        }
        if open.has_failed {
            bump(self.cells.errors.get(open.kind.index()), 1);
        }
    }
}

impl Observer for VcpuMetrics {
    fn event(&mut self, event: &Event) {
        match *event {
            Event::Exit { kind, .. } => {
                bump(self.cells.exits.get(kind.index()), 1);
                let since = self.clock();
                self.open = Some(Open { kind, since, has_failed: false });
            }
            Event::Effect(effect) => {
                let (ok, failed) = (effect.kind.index() * 2, effect.kind.index() * 2 + 1);
                if effect.result.is_ok() {
                    bump(self.cells.effects.get(ok), 1);
                    bump(self.cells.effect_bytes.get(effect.kind.index()), effect.size_bytes);
                } else {
                    bump(self.cells.effects.get(failed), 1);
                    if let Some(open) = &mut self.open {
                        open.has_failed = true;
                    }
                }
            }
            Event::Reply(reply) => {
                bump(self.cells.replies.get(ReplyKind::of(&reply).index()), 1);
                self.close();
            }
            Event::Stop(kind) => {
                bump(self.cells.stops.get(kind.index()), 1);
                if let Some(open) = &mut self.open {
                    open.has_failed |= kind.is_failure();
                }
                self.close();
            }
            // Plans are answers before they are given.
            _ => {}
        }
    }
}

impl Drop for VcpuMetrics {
    fn drop(&mut self) {
        self.metrics.lock(|vcpus| {
            vcpus.here.retain(|cells| !Arc::ptr_eq(cells, &self.cells));
            vcpus.gone.add(&self.cells);
        });
    }
}

#[cfg(test)]
mod tests;
