//! A page-state change that comes to an end in pieces.
//!
//! The guest writes entries into memory that it shares with the host, KVM forms batches of them, and userspace answers
//! each batch with 0, `EINVAL` or `EAGAIN`. A batch may have been converted in part when it fails, a signal may end
//! `KVM_RUN` at any point, another vCPU may write to the descriptor, and a patient guest asks again from where the
//! descriptor says.
//!
//! The VMM decodes with [`map_gpa_range`] and answers with [`ConversionReply`]; entries are decoded by
//! [`PscEntry`](exeunt_proto::ghcb::PscEntry). KVM's part is in `kernel.rs`, and a test holds it to the kernel in
//! software.

mod kernel;
mod requests;
mod software;

use exeunt_abi::Gfn;
use exeunt_abi::ghcb::psc::{operation, result};
use exeunt_proto::conversion::{PageRange, PageState, map_gpa_range};
use exeunt_proto::reply::ConversionReply;
use stateright::{Model, Property};

use crate::search::{Searched, exhaust, refute};
use kernel::{Descriptor, ENTRIES, Flaws, Next, Psc, is_conversion};
use requests::{CRAFTED, REQUESTS, rewrites};

/// The two slots, which meet in the middle of a batch.
const SLOTS: [(u64, u64); 2] = [(0, 513), (513, 7)];
const FRAMES: u64 = 520;
/// How often a guest asks again: once more than userspace fails.
const MAX_REPEATS: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// KVM marks the entries of a batch as done before userspace has answered.
    ProgressTooEarly,
    /// The VMM says 0 when the first slot's part of a range was converted.
    PartForWhole,
    /// The VMM says `-EINVAL`, as system calls do, and enters again after KVM refused that.
    NegativeErrno,
    /// KVM trusts the header that the guest can write to, as 6.12 does.
    HeaderReadAgain,
    /// None, with a guest that crafts its entries.
    CraftedFollower,
}

#[derive(Clone)]
struct Machine {
    bug: Bug,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    /// The request as the guest made it.
    asked: Descriptor,
    descriptor: Descriptor,
    psc: Psc,
    place: Place,
    /// Bit by bit: the frames that are private.
    private: [u64; 9],
    failures: u8,
    signals: u8,
    rewrites: u8,
    /// Exits of one `VMGEXIT`.
    exits: u8,
    /// The last entry, as the header said when the request began.
    promised: u16,
    /// How often the guest has asked again.
    repeats: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// The guest runs, with the result of its last request.
    Guest(Option<u64>),
    /// It has made what it can of the request.
    Ended(u64),
    /// Userspace has an exit, and has converted this many parts of the range.
    Exit { args: [u64; 3], parts: u8 },
    /// The answer is in the run page.
    Answered(u64),
    /// `KVM_RUN` took the answer, and came back with `EINTR` before the guest ran.
    Interrupted(u64),
    /// `KVM_RUN` came back with `EINVAL`. The VMM ends the VM.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// `VMGEXIT`.
    Ask,
    /// The next part of a range is converted.
    Convert,
    /// The next part cannot be converted.
    Fail(Failure),
    Enter,
    /// `KVM_RUN` with a signal on its way, or with `immediate_exit`.
    EnterInterrupted,
    /// Another vCPU writes to the descriptor.
    Rewrite(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Invalid,
    Again,
}

impl State {
    fn new(asked: Descriptor) -> Self {
        let mut state = Self {
            asked,
            descriptor: asked,
            psc: Psc::default(),
            place: Place::Guest(None),
            private: [0; 9],
            failures: 2,
            signals: 2,
            rewrites: 1,
            exits: 0,
            promised: 0,
            repeats: 0,
        };
        // Every page is what its entry does not want, as far as the entry is not done.
        for index in 0..ENTRIES {
            let entry = asked.entry(index);
            let is_done = entry.cur_page() == entry.pages();
            let begins_private = (entry.operation() == operation::SHARED) != is_done;
            for gfn in entry.gfn()..(entry.gfn() + entry.pages()).min(FRAMES) {
                state.set(gfn, begins_private);
            }
        }
        state
    }

    fn set(&mut self, gfn: u64, is_private: bool) {
        let (word, bit) = (usize::try_from(gfn / 64).expect("few frames"), gfn % 64);
        self.private[word] = self.private[word] & !(1 << bit) | u64::from(is_private) << bit;
    }

    fn is_private(&self, gfn: u64) -> bool {
        self.private[usize::try_from(gfn / 64).expect("few frames")] >> (gfn % 64) & 1 == 1
    }

    fn was_rewritten(&self) -> bool {
        self.rewrites == 0
    }

    /// Whether the guest is told that an entry is done: by the header, or in the entry itself.
    fn is_reported(&self, index: usize) -> bool {
        let entry = self.descriptor.entry(index);
        index < usize::from(self.descriptor.cur) || entry.cur_page() == entry.pages()
    }

    /// Whether the pages that an entry asked for are what it asked for.
    fn is_converted(&self, index: usize) -> bool {
        let asked = self.asked.entry(index);
        let wants_private = asked.operation() == operation::PRIVATE;
        !is_conversion(asked)
            || (asked.cur_page()..asked.pages())
                .all(|page| self.is_private(asked.gfn() + page) == wants_private)
    }

    fn take(&mut self, next: Next) {
        self.place = match next {
            Next::Exit(args) => {
                self.exits += 1;
                Place::Exit { args, parts: 0 }
            }
            Next::Over(result) => Place::Guest(Some(result)),
        };
    }
}

impl Machine {
    fn flaws(&self) -> Flaws {
        Flaws {
            marks_early: self.bug == Bug::ProgressTooEarly,
            reads_header_again: self.bug == Bug::HeaderReadAgain,
        }
    }

    /// The guest asks, or asks again, or has what it wanted.
    fn ask(&self, state: &mut State, last: Option<u64>) {
        let is_over = match last {
            Some(result::SUCCESS) => state.descriptor.cur > state.descriptor.end,
            None => false,
            // Linux ends itself here. This guest goes on from where the header says, unless that never helps.
            Some(result::GENERIC) => state.repeats == MAX_REPEATS,
            Some(_) => true,
        };
        if let (true, Some(result)) = (is_over, last) {
            state.place = Place::Ended(result);
            return;
        }
        state.repeats += u8::from(last.is_some());
        state.exits = 0;
        state.promised = state.descriptor.end;
        let next = state.psc.begin(&mut state.descriptor, self.flaws());
        state.take(next);
    }

    /// Userspace converts what is in the next slot, or answers when there is no more, or fails.
    fn convert(&self, state: &mut State, failure: Option<Failure>) {
        let Place::Exit { args, parts } = state.place else { return };
        let part = match map_gpa_range(args) {
            Ok(conversion) if conversion.range.end().0 <= FRAMES => {
                let slots = SLOTS.iter().filter_map(|(gfn, pages)| PageRange::new(Gfn(*gfn), *pages));
                let mut ranges = slots.filter_map(|slot| slot.intersect(conversion.range));
                Ok((ranges.nth(parts.into()), conversion.to == PageState::Private))
            }
            _ => Err(ConversionReply::Invalid),
        };
        state.place = match (part, failure) {
            (Err(reply), _) => Place::Answered(self.ret(reply)),
            (Ok((None, _)), _) => Place::Answered(self.ret(ConversionReply::Done)),
            (Ok(_), Some(_)) if self.bug == Bug::PartForWhole && parts > 0 => Place::Answered(0),
            (Ok(_), Some(Failure::Invalid)) => Place::Answered(self.ret(ConversionReply::Invalid)),
            (Ok(_), Some(Failure::Again)) => Place::Answered(self.ret(ConversionReply::Again)),
            (Ok((Some(range), is_private)), None) => {
                (range.gfn().0..range.end().0).for_each(|gfn| state.set(gfn, is_private));
                Place::Exit { args, parts: parts + 1 }
            }
        };
    }

    fn ret(&self, reply: ConversionReply) -> u64 {
        match self.bug {
            Bug::NegativeErrno => reply.ret().wrapping_neg(),
            _ => reply.ret(),
        }
    }

    fn enter(&self, state: &mut State, is_interrupted: bool) -> Option<()> {
        match state.place {
            Place::Answered(ret) => {
                match state.psc.complete(&mut state.descriptor, self.flaws(), ret) {
                    Ok(next) => state.take(next),
                    // The completion is gone, and the guest goes on with the zeroes that KVM began with.
                    Err(_) if self.bug == Bug::NegativeErrno => {
                        state.place = Place::Guest(Some(result::SUCCESS));
                    }
                    Err(_) => state.place = Place::Stopped,
                }
                // The next exit comes back whether a signal is on its way or not.
                if let (true, Place::Guest(Some(result))) = (is_interrupted, state.place) {
                    state.place = Place::Interrupted(result);
                }
            }
            Place::Interrupted(result) if !is_interrupted => state.place = Place::Guest(Some(result)),
            _ => return None,
        }
        Some(())
    }
}

const UNCONVERTED: &str = "what is done was converted";
const AHEAD: &str = "after a failure cur_entry is the first entry that is not done";
const UNFINISHED: &str = "success means that all is done";
const PROLONGED: &str = "a request ends where its header said when it began";

impl Model for Machine {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        match self.bug {
            Bug::CraftedFollower => vec![State::new(CRAFTED)],
            _ => REQUESTS.map(State::new).into(),
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        match state.place {
            Place::Guest(_) => actions.push(Action::Ask),
            Place::Ended(_) | Place::Stopped => return,
            Place::Exit { .. } => {
                actions.push(Action::Convert);
                if state.failures > 0 {
                    actions.extend([Action::Fail(Failure::Invalid), Action::Fail(Failure::Again)]);
                }
            }
            Place::Answered(_) | Place::Interrupted(_) => {
                actions.push(Action::Enter);
                if state.signals > 0 {
                    actions.push(Action::EnterInterrupted);
                }
            }
        }
        if state.rewrites > 0 {
            actions.extend((0..rewrites(state.descriptor).len()).map(Action::Rewrite));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut state = *state;
        match (action, state.place) {
            (Action::Ask, Place::Guest(last)) => self.ask(&mut state, last),
            (Action::Convert, _) => self.convert(&mut state, None),
            (Action::Fail(failure), _) => {
                state.failures -= 1;
                self.convert(&mut state, Some(failure));
            }
            (Action::Enter, _) => self.enter(&mut state, false)?,
            (Action::EnterInterrupted, _) => {
                state.signals -= 1;
                self.enter(&mut state, true)?;
            }
            (Action::Rewrite(which), _) => {
                state.rewrites -= 1;
                state.descriptor = rewrites(state.descriptor)[which];
            }
            (Action::Ask, _) => return None,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(UNCONVERTED, |_, state: &State| {
                let is_true = |index| !state.is_reported(index) || state.is_converted(index);
                state.was_rewritten() || (0..ENTRIES).all(is_true)
            }),
            Property::always(AHEAD, |_, state: &State| {
                let failed = matches!(
                    state.place,
                    Place::Guest(Some(code)) if code == result::GENERIC || code == result::INVALID_ENTRY
                );
                let first = (0..ENTRIES).find(|index| {
                    let entry = state.descriptor.entry(*index);
                    entry.cur_page() != entry.pages()
                });
                !failed || state.was_rewritten() || first == Some(state.descriptor.cur.into())
            }),
            Property::always(UNFINISHED, |_, state: &State| {
                let succeeded = state.place == Place::Guest(Some(result::SUCCESS));
                let Descriptor { cur, end, .. } = state.descriptor;
                !succeeded || state.was_rewritten() || cur > end
            }),
            Property::always(PROLONGED, |_, state: &State| {
                !matches!(state.place, Place::Exit { .. }) || state.psc.cur <= state.promised
            }),
            Property::always("a request has no more exits than entries", |_, state: &State| {
                usize::from(state.exits) <= ENTRIES
            }),
            Property::always("a guest that asks again gets what it wants", |_, state: &State| {
                state.was_rewritten() || state.place != Place::Ended(result::GENERIC)
            }),
            Property::always("no answer of this VMM is refused", |machine: &Self, state: &State| {
                machine.bug == Bug::NegativeErrno || state.place != Place::Stopped
            }),
            Property::sometimes("a batch fails and is done the second time", |_, state: &State| {
                state.place == Place::Ended(result::SUCCESS)
                    && state.asked == REQUESTS[0]
                    && state.repeats > 0
                    && !state.was_rewritten()
            }),
            Property::sometimes("what came before a malformed entry stays converted", |_, state: &State| {
                state.place == Place::Ended(result::INVALID_ENTRY) && state.is_private(512)
            }),
            Property::sometimes(
                "a range outside of memory is refused",
                |_, state: &State| matches!(state.place, Place::Exit { args: [gpa, ..], .. } if gpa >= FRAMES << 12),
            ),
            Property::sometimes("a signal comes when all is done", |_, state: &State| {
                state.place == Place::Interrupted(result::SUCCESS)
            }),
        ]
    }
}

impl Searched for Machine {
    const NAME: &'static str = "page-state change";
    const GOAL: &'static str = "every request ends";

    fn is_goal(&self, state: &State) -> bool {
        matches!(state.place, Place::Ended(_))
    }
}

#[test]
fn no_page_is_reported_done_that_was_not_converted_and_every_request_ends() {
    exhaust(&Machine { bug: Bug::None }, 10_000);
}

#[test]
fn progress_that_is_advanced_before_the_answer_reports_what_did_not_happen() {
    let way = refute(&Machine { bug: Bug::ProgressTooEarly }, Bug::ProgressTooEarly, UNCONVERTED);
    assert_eq!(way, [Action::Ask]);
}

#[test]
fn a_part_that_is_reported_for_the_whole_leaves_pages_behind() {
    let way = refute(&Machine { bug: Bug::PartForWhole }, Bug::PartForWhole, UNCONVERTED);
    assert!(way.contains(&Action::Convert), "{way:?}");
}

#[test]
fn a_negative_errno_is_success_for_the_guest() {
    let way = refute(&Machine { bug: Bug::NegativeErrno }, Bug::NegativeErrno, UNFINISHED);
    assert!(!way.iter().any(|action| matches!(action, Action::Rewrite(_))), "{way:?}");
}

#[test]
fn a_header_that_is_read_again_lets_the_guest_prolong_its_request() {
    let way = refute(&Machine { bug: Bug::HeaderReadAgain }, Bug::HeaderReadAgain, PROLONGED);
    assert!(way.iter().any(|action| matches!(action, Action::Rewrite(_))), "{way:?}");
}

#[test]
fn a_crafted_follower_is_reported_done_and_another_page_is_converted() {
    let way = refute(&Machine { bug: Bug::CraftedFollower }, Bug::CraftedFollower, UNCONVERTED);
    assert!(!way.iter().any(|action| matches!(action, Action::Fail(_))), "{way:?}");
}
