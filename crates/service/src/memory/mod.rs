//! The memory of a VM as its VMM sees it: slots, the state of each page, and the conversions that are under way.
//!
//! A conversion costs no system call where nothing changes, else one change of attributes for each run of pages and
//! one discard for each run whose other memory may hold something. No lock is held while the host does any of it:
//! conversions of pages apart do not meet, and one that overlaps another waits until that one is done, because
//! attributes, memory and what is known here can agree in no other order.

mod job;
mod slots;
mod tracker;

pub use job::Effect;
pub use slots::{MemorySlot, SlotsOverlap};
pub use tracker::PageInfo;

use crate::layer::trace::Observer;
use crate::sync::{Condvar, Mutex, MutexGuard};
use exeunt_abi::{Errno, Gfn};
use exeunt_proto::conversion::{Conversion, PageRange, PageState};
use exeunt_proto::host::Host;
use job::Job;
use slots::Slots;
use std::ops::Range;
use std::sync::PoisonError;
use tracker::Tracker;

/// Conversions under way for which room is kept: as many vCPUs convert at once without an allocation.
const QUEUE: usize = 64;

/// When memory is given back that its page no longer uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reclaim {
    /// With the conversion.
    #[default]
    AtOnce,
    /// When more than so many pages wait for it. A guest that converts the same pages to and fro costs one system
    /// call a conversion then, and the host up to so much memory.
    Lazily {
        /// Pages of 4 KiB.
        budget_pages: u64,
    },
}

/// How a VMM wants conversions done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryOptions {
    /// When memory is given back.
    pub reclaim: Reclaim,
    /// Pages that become private get memory at once, which saves the guest an exit for each of them.
    pub prefault: bool,
}

/// Slots, and what is known of their pages. Threads share it.
#[derive(Debug, Default)]
pub struct GuestMemory {
    state: Mutex<State>,
    freed: Condvar,
    options: MemoryOptions,
}

#[derive(Debug, Default)]
struct State {
    slots: Slots,
    tracker: Tracker,
    /// Conversions under way and those that wait for them, in the order they came.
    queue: Vec<(u64, PageRange)>,
    next_ticket: u64,
    /// Attributes outlive a slot, so that those of a later one are not known.
    has_removed: bool,
    /// Where the search for idle memory goes on.
    hand: u64,
}

impl State {
    fn add(&mut self, slot: MemorySlot) -> Result<(), SlotsOverlap> {
        self.slots.add(slot)?;
        if slot.has_private {
            let fresh = PageInfo::fresh(PageState::Shared);
            self.tracker.set(slot.range, if self.has_removed { fresh.doubted() } else { fresh });
        }
        Ok(())
    }

    /// Whether nobody who came earlier holds a page of a range.
    fn is_first(&self, ticket: u64, range: PageRange) -> bool {
        let mut earlier = self.queue.iter().take_while(|(other, _)| *other != ticket);
        earlier.all(|(_, other)| other.intersect(range).is_none())
    }

    /// Whether a conversion under way, or one that waits, has a page of a range.
    fn is_busy(&self, range: PageRange) -> bool {
        self.queue.iter().any(|(_, other)| other.intersect(range).is_some())
    }

    /// The first run of idle memory in a range of frames that no conversion has, and the state of its pages.
    fn first_idle(&self, frames: Range<u64>) -> Option<(Range<u64>, PageState)> {
        let mut from = frames.start;
        while let Some((run, state)) = self.tracker.first_idle(from..frames.end) {
            from = run.gfn().0;
            while let Some((_, busy)) =
                self.queue.iter().find(|(_, busy)| tracker::frames(*busy).contains(&from))
            {
                from = busy.end().0;
            }
            if from < run.end().0 {
                let behind = self.queue.iter().map(|(_, busy)| busy.gfn().0).filter(|start| *start > from);
                return Some((from..behind.min().unwrap_or(u64::MAX).min(run.end().0), state));
            }
        }
        None
    }

    fn enqueue(&mut self, range: PageRange) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.queue.push((ticket, range));
        ticket
    }
}

impl GuestMemory {
    /// The memory of a new VM: every page is shared.
    ///
    /// # Errors
    ///
    /// Two slots overlap, which KVM does not allow either.
    pub fn new(slots: impl IntoIterator<Item = MemorySlot>) -> Result<Self, SlotsOverlap> {
        Self::with_options(slots, MemoryOptions::default())
    }

    /// As [`GuestMemory::new`], with options.
    ///
    /// # Errors
    ///
    /// As [`GuestMemory::new`].
    pub fn with_options(
        slots: impl IntoIterator<Item = MemorySlot>,
        options: MemoryOptions,
    ) -> Result<Self, SlotsOverlap> {
        let mut state = State { queue: Vec::with_capacity(QUEUE), ..State::default() };
        slots.into_iter().try_for_each(|slot| state.add(slot))?;
        Ok(Self { state: Mutex::new(state), freed: Condvar::new(), options })
    }

    /// Adds a slot, after `KVM_SET_USER_MEMORY_REGION2`.
    ///
    /// # Errors
    ///
    /// It overlaps another one.
    pub fn add_slot(&self, slot: MemorySlot) -> Result<(), SlotsOverlap> {
        self.lock().add(slot)
    }

    /// Takes the slot with this first frame away, before it is deleted. Whether there was one. It waits for conversions of
    /// its pages, so that afterwards none discards memory that may be another's by then; a thread that has begun one must
    /// not call it. The attributes stay: a VMM that puts something else there than memory with a private half sets them
    /// back.
    pub fn remove_slot(&self, gfn: Gfn) -> bool {
        let Some(slot) = self.lock().slots.at(gfn) else { return false };
        let _held = self.hold(slot.range);
        let mut state = self.lock();
        let Some(slot) = state.slots.remove(gfn) else { return false };
        state.tracker.forget(slot.range);
        state.has_removed = true;
        true
    }

    /// Says what the VMM itself has made of pages: at a launch, or before a restored guest runs. Pages outside of
    /// slots with a private half are left out.
    pub fn assume(&self, range: PageRange, info: PageInfo) {
        let state = &mut *self.lock();
        for part in state.slots.parts(range).filter(|part| part.has_private) {
            state.tracker.set(part.range, info);
        }
    }

    /// Whether slots cover all of a range.
    #[must_use]
    pub fn covers(&self, range: PageRange) -> bool {
        self.lock().slots.covers(range)
    }

    /// Whether a conversion can be done. To private, every page needs a private half. To shared, a page without
    /// memory is what it is to be already: guests convert MMIO ranges.
    #[must_use]
    pub fn allows(&self, conversion: Conversion) -> bool {
        conversion.to == PageState::Shared || self.lock().slots.has_private(conversion.range)
    }

    /// Whether slots cover all of a range, and the host may use all of its pages.
    #[must_use]
    pub fn is_shared(&self, range: PageRange) -> bool {
        let state = self.lock();
        state.slots.covers(range) && state.tracker.is_shared(range)
    }

    /// The state that all pages of a range certainly have. `None` if they differ, it is not sure, or a page has no
    /// private half.
    #[must_use]
    pub fn state_of(&self, range: PageRange) -> Option<PageState> {
        self.lock().tracker.state_of(range)
    }

    /// What is known of one page with a private half.
    #[must_use]
    pub fn page(&self, gfn: Gfn) -> Option<PageInfo> {
        self.lock().tracker.get(gfn)
    }

    /// All that is known of pages with a private half, run by run.
    #[must_use]
    pub fn runs(&self) -> Vec<(PageRange, PageInfo)> {
        self.lock().tracker.runs().collect()
    }

    /// How many runs it takes to know all pages: what the tracker costs.
    #[must_use]
    pub fn run_count(&self) -> usize {
        self.lock().tracker.run_count()
    }

    /// How many pages have a memory that they do not use and that may hold something. Those whose state is not sure do
    /// not count: either memory may be the one in use, and none can be given back.
    #[must_use]
    pub fn idle_pages(&self) -> u64 {
        self.lock().tracker.idle_pages()
    }

    /// Converts pages: what is left of them to convert.
    ///
    /// # Errors
    ///
    /// The error of the first run that could not be converted. Runs before it have been. The run itself is as it was
    /// where that could be had, else it is not known and the next conversion sets its attributes again.
    pub fn convert(
        &self,
        conversion: Conversion,
        host: &mut impl Host,
        observer: &mut impl Observer,
    ) -> Result<(), Errno> {
        if let Some(converting) = self.begin_unless_done(conversion) {
            carry_out(converting, host, observer)?;
        }
        self.reclaim(host, observer);
        Ok(())
    }

    /// Gives idle memory back that is above the budget. [`GuestMemory::convert`] has done it; who carries conversions out
    /// by itself does it after them.
    pub fn reclaim(&self, host: &mut impl Host, observer: &mut impl Observer) {
        if let Reclaim::Lazily { budget_pages } = self.options.reclaim {
            self.reclaim_down_to(budget_pages, host, observer);
        }
    }

    /// Gives idle memory back until no more than so many pages have some, or it cannot be given back. Pages of conversions
    /// under way are left out.
    pub fn reclaim_down_to(&self, pages: u64, host: &mut impl Host, observer: &mut impl Observer) {
        while self.idle_pages() > pages {
            let before = self.idle_pages();
            let Some(job) = self.begin_reclaim(before.saturating_sub(pages)) else { return };
            // A discard that fails is not an error of the job: the memory is still known to be there.
            let _ = carry_out(job, host, observer);
            if self.idle_pages() >= before {
                return;
            }
        }
    }

    /// Begins a conversion whose effects the caller carries out, and waits for those that overlap. A thread that
    /// has begun one must not begin another before it has ended.
    pub fn begin(&self, conversion: Conversion) -> Converting<'_> {
        self.wait_for(conversion, self.lock())
    }

    /// As [`GuestMemory::begin`], or nothing where there is nothing to do and nobody to wait for.
    fn begin_unless_done(&self, conversion: Conversion) -> Option<Converting<'_>> {
        let mut state = self.lock();
        if state.is_busy(conversion.range) {
            return Some(self.wait_for(conversion, state));
        }
        let job = self.job(conversion, &state);
        if job.is_done() {
            return None;
        }
        let ticket = state.enqueue(conversion.range);
        Some(Converting { memory: self, ticket, job, has_ended: false })
    }

    fn wait_for<'a>(&'a self, conversion: Conversion, state: MutexGuard<'a, State>) -> Converting<'a> {
        let mut state = state;
        let ticket = state.enqueue(conversion.range);
        while !state.is_first(ticket, conversion.range) {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let job = self.job(conversion, &state);
        Converting { memory: self, ticket, job, has_ended: false }
    }

    fn job(&self, conversion: Conversion, state: &State) -> Job {
        let reclaims = self.options.reclaim == Reclaim::AtOnce;
        Job::new(conversion, reclaims, self.options.prefault, &state.tracker)
    }

    /// As [`GuestMemory::begin`] for those who cannot wait: `None` while another conversion overlaps.
    #[must_use]
    pub fn try_begin(&self, conversion: Conversion) -> Option<Converting<'_>> {
        let mut state = self.lock();
        if state.is_busy(conversion.range) {
            return None;
        }
        let ticket = state.enqueue(conversion.range);
        let job = self.job(conversion, &state);
        Some(Converting { memory: self, ticket, job, has_ended: false })
    }

    /// Begins to give back a run of idle memory that no conversion has, of at most so many pages: going round, so that each
    /// has its turn.
    fn begin_reclaim(&self, pages: u64) -> Option<Converting<'_>> {
        let mut state = self.lock();
        let hand = state.hand;
        let found = state.first_idle(hand..u64::MAX);
        let (run, to) = found.or_else(|| state.first_idle(0..hand))?;
        let end = run.start.saturating_add(pages.max(1)).min(run.end);
        let range = tracker::page_range(run.start..end)?;
        state.hand = end;
        let ticket = state.enqueue(range);
        let job = Job::new(Conversion { range, to }, true, false, &state.tracker);
        Some(Converting { memory: self, ticket, job, has_ended: false })
    }

    /// Keeps pages as they are while the host writes to them: waits for conversions that overlap, and others wait for it.
    /// What is written amid a conversion would be memory that nobody knows of.
    pub(crate) fn hold(&self, range: PageRange) -> Held<'_> {
        let mut state = self.lock();
        let ticket = state.enqueue(range);
        while !state.is_first(ticket, range) {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Held { memory: self, ticket }
    }

    /// As [`GuestMemory::hold`] for those who cannot wait: `None` while a conversion overlaps.
    pub(crate) fn try_hold(&self, range: PageRange) -> Option<Held<'_>> {
        let mut state = self.lock();
        if state.is_busy(range) {
            return None;
        }
        Some(Held { memory: self, ticket: state.enqueue(range) })
    }

    /// Lets others have the pages of a ticket.
    fn release(&self, ticket: u64, state: MutexGuard<'_, State>) {
        let mut state = state;
        let at = state.queue.iter().position(|(other, _)| *other == ticket);
        let ended = at.map(|at| state.queue.remove(at));
        // Waking is a system call, whether anyone sleeps or not. Who waits for these pages is in the queue.
        let is_awaited = ended.is_some_and(|(_, range)| state.is_busy(range));
        drop(state);
        if is_awaited {
            self.freed.notify_all();
        }
    }

    /// No code that holds the lock can leave the state half changed, so that a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two are equal if they are the same one.
impl PartialEq for GuestMemory {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for GuestMemory {}

fn carry_out(
    mut job: Converting<'_>,
    host: &mut impl Host,
    observer: &mut impl Observer,
) -> Result<(), Errno> {
    let mut last = Ok(());
    while let Some(effect) = job.next_effect(last) {
        last = effect.carry_out(host);
        if let Effect::Apply(action) = &effect {
            observer.effect(action, last);
        }
    }
    job.finish()
}

/// Pages that nobody converts until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held<'a> {
    memory: &'a GuestMemory,
    ticket: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.memory.release(self.ticket, self.memory.lock());
    }
}

/// A conversion under way. Nobody else converts its pages until it has ended or is dropped.
///
/// Effects are carried out in order: [`Converting::next_effect`] takes how the last one went, `Ok` at first. One that
/// is dropped before its end leaves the run that it was at in doubt, and the next conversion sets it right.
#[derive(Debug)]
#[must_use]
pub struct Converting<'a> {
    memory: &'a GuestMemory,
    ticket: u64,
    job: Job,
    has_ended: bool,
}

impl Converting<'_> {
    /// Takes in how the last effect went, and says what comes next; `None` at the end.
    pub fn next_effect(&mut self, last: Result<(), Errno>) -> Option<Effect> {
        if let Some(effect) = self.job.next_by_itself(last) {
            return Some(effect);
        }
        let mut state = self.memory.lock();
        let next = self.job.next_effect(&mut state.tracker, last);
        if next.is_none() && !self.has_ended {
            self.has_ended = true;
            self.memory.release(self.ticket, state);
        }
        next
    }

    /// How it ended.
    ///
    /// # Errors
    ///
    /// As for [`GuestMemory::convert`]; `ECANCELED` before its end.
    pub fn finish(self) -> Result<(), Errno> {
        match self.job.failure() {
            _ if !self.has_ended => Err(Errno::ECANCELED),
            Some(errno) => Err(errno),
            None => Ok(()),
        }
    }
}

impl Drop for Converting<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            let mut state = self.memory.lock();
            self.job.abandon(&mut state.tracker);
            self.memory.release(self.ticket, state);
        }
    }
}

#[cfg(test)]
mod tests;
