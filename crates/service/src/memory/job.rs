//! One conversion on its way: which effect comes next, and what it means that one failed.
//!
//! Each run of pages that has to change goes through the same stations: the host is told, the attributes change, the
//! host is told again, the memory that is no longer used is given back. A failure ends the conversion at its run;
//! runs before it have been converted and stay so.

use super::tracker::{Tracker, Work, idle_backing};
use exeunt_abi::Errno;
use exeunt_proto::conversion::{Conversion, PageRange, PageState};
use exeunt_proto::host::{Action, Host};

/// How often a change of attributes is tried again at once. An SNP guest takes "again" for the end, so that what
/// a signal interrupted is better repeated here.
const TRIES: u32 = 4;

/// What is to be done next for a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Tell the host that a run is about to change.
    Before(Conversion),
    /// Apply this.
    Apply(Action<'static>),
    /// Tell the host that a run has changed.
    After(Conversion),
    /// Tell the host that a run does not change, although it was told so.
    Undo(Conversion),
}

impl Effect {
    /// Does it.
    ///
    /// # Errors
    ///
    /// The host's.
    pub fn carry_out(&self, host: &mut impl Host) -> Result<(), Errno> {
        match self {
            Self::Before(conversion) => host.before_conversion(*conversion),
            Self::Apply(action) => host.apply(action),
            Self::After(conversion) => host.after_conversion(*conversion),
            Self::Undo(conversion) => {
                host.undo_conversion(*conversion);
                Ok(())
            }
        }
    }
}

/// Where a conversion is. Each station has the run that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Station {
    /// Between two runs.
    Seek,
    Before(PageRange),
    Attributes {
        run: PageRange,
        tries: u32,
    },
    After(PageRange),
    /// The host could not take the change in, so the attributes go back.
    TakeBack(PageRange),
    Undo(PageRange),
    Discard(PageRange),
    Prefault(PageRange),
    End,
}

/// A conversion on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    conversion: Conversion,
    /// What is no longer used is given back at once.
    reclaims: bool,
    prefaults: bool,
    /// Everything before this frame is done.
    cursor: u64,
    station: Station,
    /// Where it goes on after the host has taken a change in: found while the pages were looked at anyway.
    then: Station,
    /// The effect of the station has not been asked for.
    is_fresh: bool,
    failure: Option<Errno>,
}

impl Job {
    /// A conversion of pages that nobody else converts until it ends.
    pub(crate) fn new(conversion: Conversion, reclaims: bool, prefaults: bool, tracker: &Tracker) -> Self {
        let cursor = conversion.range.gfn().0;
        let (station, then, is_fresh, failure) = (Station::End, Station::End, true, None);
        let mut job = Self { conversion, reclaims, prefaults, cursor, station, then, is_fresh, failure };
        job.station = job.seek(tracker);
        job
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_done(&self) -> bool {
        self.station == Station::End
    }

    /// What comes next, where that is not decided by what is known of pages.
    pub(crate) fn next_by_itself(&mut self, last: Result<(), Errno>) -> Option<Effect> {
        match (self.station, last) {
            _ if self.is_fresh => self.is_fresh = false,
            (Station::Before(run), Ok(())) => self.station = Station::Attributes { run, tries: 1 },
            (Station::After(run), Ok(())) if self.prefaults_for() => self.station = Station::Prefault(run),
            // Without prefaulted pages the guest pays with exits, so that this is no failure.
            (Station::After(_), Ok(())) | (Station::Prefault(_), _) => self.station = self.then,
            _ => return None,
        }
        self.effect()
    }

    /// What has failed, if the conversion did.
    pub(crate) const fn failure(&self) -> Option<Errno> {
        self.failure
    }

    /// Takes in how the last effect went, and says what comes next. `None` at the end. Asked after
    /// [`Job::next_by_itself`].
    pub(crate) fn next_effect(&mut self, tracker: &mut Tracker, last: Result<(), Errno>) -> Option<Effect> {
        self.station = self.after_station(tracker, last);
        if self.station == Station::Seek {
            self.station = self.seek(tracker);
        }
        self.effect()
    }

    /// What is done at this station.
    fn effect(&self) -> Option<Effect> {
        let of = |range| Conversion { range, to: self.conversion.to };
        Some(match self.station {
            Station::Seek | Station::End => return None,
            Station::Before(run) => Effect::Before(of(run)),
            Station::Attributes { run, .. } => {
                Effect::Apply(Action::SetAttributes { range: run, to: self.conversion.to })
            }
            Station::After(run) => Effect::After(of(run)),
            Station::TakeBack(run) => {
                Effect::Apply(Action::SetAttributes { range: run, to: other(self.conversion.to) })
            }
            Station::Undo(run) => Effect::Undo(of(run)),
            Station::Discard(range) => {
                Effect::Apply(Action::Discard { range, backing: idle_backing(self.conversion.to) })
            }
            Station::Prefault(range) => Effect::Apply(Action::Prefault { range }),
        })
    }

    /// The conversion will not go on: nobody knows what came of an effect that was under way.
    pub(crate) fn abandon(&self, tracker: &mut Tracker) {
        if let Station::Attributes { run, .. } | Station::TakeBack(run) | Station::After(run) = self.station {
            doubt(tracker, run);
        }
    }

    fn after_station(&mut self, tracker: &mut Tracker, last: Result<(), Errno>) -> Station {
        match (self.station, last) {
            (Station::Seek, _) => Station::Seek,
            // Where these lead is not decided here.
            (station @ (Station::Before(_) | Station::After(_)), Ok(()))
            | (station @ Station::Prefault(_), _) => station,
            (Station::Before(_), Err(errno)) => {
                self.failure = Some(errno);
                Station::End
            }
            (Station::Attributes { run, .. }, Ok(())) => {
                set_state(tracker, run, self.conversion.to);
                if !self.reclaims {
                    self.cursor = run.end().0;
                }
                // The idle memory of the run comes next, or the next run.
                self.then = self.seek(tracker);
                Station::After(run)
            }
            (Station::Attributes { run, tries }, Err(Errno::EINTR | Errno::EAGAIN)) if tries < TRIES => {
                Station::Attributes { run, tries: tries.saturating_add(1) }
            }
            (Station::Attributes { run, .. }, Err(errno)) => {
                self.failure = Some(errno);
                doubt(tracker, run);
                Station::Undo(run)
            }
            (Station::After(run), Err(errno)) => {
                self.failure = Some(errno);
                Station::TakeBack(run)
            }
            (Station::TakeBack(run), Ok(())) => {
                set_state(tracker, run, other(self.conversion.to));
                Station::Undo(run)
            }
            (Station::TakeBack(run), Err(_)) => {
                doubt(tracker, run);
                Station::Undo(run)
            }
            (Station::Undo(_) | Station::End, _) => Station::End,
            (Station::Discard(range), result) => {
                if result.is_ok() {
                    forget_idle(tracker, range, self.conversion.to);
                }
                // Memory that cannot be given back is still known as such, and the conversion has been done.
                self.cursor = range.end().0;
                Station::Seek
            }
        }
    }

    const fn prefaults_for(&self) -> bool {
        self.prefaults && matches!(self.conversion.to, PageState::Private)
    }

    /// The next run that has to change or to be given back, whichever comes first.
    fn seek(&self, tracker: &Tracker) -> Station {
        let end = self.conversion.range.end().0;
        if self.cursor >= end {
            return Station::End;
        }
        match tracker.first_work(self.conversion.to, self.cursor..end, self.reclaims) {
            Some(Work::Change(run)) => Station::Before(run),
            Some(Work::Reclaim(run)) => Station::Discard(run),
            None => Station::End,
        }
    }
}

const fn other(state: PageState) -> PageState {
    match state {
        PageState::Private => PageState::Shared,
        PageState::Shared => PageState::Private,
    }
}

/// The pages have this state now, and the guest can use the memory that belongs to it.
fn set_state(tracker: &mut Tracker, run: PageRange, state: PageState) {
    tracker.update(run, |info| {
        let (has_shared, has_private) = match state {
            PageState::Shared => (true, info.has_private),
            PageState::Private => (info.has_shared, true),
        };
        super::PageInfo { state, is_certain: true, has_shared, has_private }
    });
}

fn doubt(tracker: &mut Tracker, run: PageRange) {
    tracker.update(run, super::PageInfo::doubted);
}

fn forget_idle(tracker: &mut Tracker, range: PageRange, state: PageState) {
    tracker.update(range, |info| match state {
        PageState::Shared => super::PageInfo { has_private: false, ..info },
        PageState::Private => super::PageInfo { has_shared: false, ..info },
    });
}
