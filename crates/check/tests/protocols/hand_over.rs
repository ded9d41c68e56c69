//! A VM that is handed over from one host to another, while hosts crash and the connection between them breaks.
//!
//! Neither host can know what became of the other, so an arbiter that both can reach decides once, for whoever asks first.
//! The source drains its vCPUs, saves them, and sends them; the target saves what it has received and only then asks
//! for the decision. A source that hears nothing asks, too, and resumes if the decision is for it. A host that starts
//! again asks before anything else. What a host has run is never run from its snapshot again.
//!
//! No code is called: this is the order of steps that hosts keep to around `exeunt::run::drain` and
//! `exeunt::snapshot`. A crash takes what is in memory; what was saved stays. The mark that a host has entered the guest
//! is saved in the same step, since a crash between the two is the crash of a VM that has just begun to run.

use stateright::{Model, Property};

use crate::search::{Searched, exhaust, refute, strand};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// The source resumes when it hears nothing, and does not ask.
    ResumedOnTimeout,
    /// The target asks for the decision before it has saved what it received.
    ClaimedBeforeSaved,
    /// A source that starts again runs what it finds on its disk.
    RestartedWithoutAsking,
    /// A host that starts again does not know that it has run its snapshot.
    RunTwice,
    /// The source saves without handing pending answers over first.
    NotDrained,
}

#[derive(Clone)]
struct Hosts {
    bug: Bug,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Source,
    Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    /// The decision, which is made once.
    arbiter: Option<Side>,
    source: Host,
    target: Host,
    /// A snapshot on its way.
    sent: Option<Vm>,
    /// The target's word that it runs, on its way.
    ack: bool,
    /// How often the guest got its event, and the answer to its request.
    delivered: u8,
    answered: u8,
    /// The source crashed before it had saved anything: a VM that is lost with its host.
    is_lost: bool,
}

/// What there is of the VM, as far as a guest could notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Vm {
    /// An event waits for the guest. A snapshot has it.
    event: bool,
    /// A completion waits in KVM. No snapshot has it.
    completion: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Host {
    step: Step,
    memory: Option<Vm>,
    disk: Option<Vm>,
    /// On disk: this host has run the guest after the hand-over began.
    has_entered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// The target waits for a snapshot.
    Listens,
    Paused,
    Drained,
    /// The target has a snapshot in memory.
    Received,
    Saved,
    /// The source waits for word from the target.
    Sent,
    /// Asks the arbiter.
    Asks,
    /// The arbiter has heard it; the answer is on its way.
    Asked,
    Owns,
    Runs,
    /// Has nothing to do with the VM any more.
    Gone,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The next step of a host's own.
    Go(Side),
    /// The guest gets its event.
    Deliver(Side),
    /// The snapshot comes in.
    Receive,
    /// The source hears that the target runs.
    Hear,
    /// The source has heard nothing for long enough.
    TimeOut,
    /// The target gives up waiting for a snapshot.
    HangUp,
    /// The connection breaks, and what is on its way is lost.
    Break,
    Crash(Side),
    Restart(Side),
}

impl State {
    fn host(&mut self, side: Side) -> &mut Host {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }

    fn hosts(&self) -> [Host; 2] {
        [self.source, self.target]
    }
}

impl Hosts {
    /// The next step of a host, if there is one that it takes by itself.
    fn go(&self, state: &mut State, side: Side) -> Option<()> {
        let mut host = *state.host(side);
        host.step = match (side, host.step) {
            (Side::Source, Step::Runs) if !host.has_entered => Step::Paused,
            (_, Step::Paused) => {
                if self.bug != Bug::NotDrained {
                    state.answered += u8::from(host.memory?.completion);
                    host.memory = host.memory.map(|vm| Vm { completion: false, ..vm });
                }
                Step::Drained
            }
            (_, Step::Drained) => {
                host.disk = host.memory.map(|vm| Vm { completion: false, ..vm });
                Step::Saved
            }
            (Side::Source, Step::Saved) => {
                state.sent = host.disk;
                Step::Sent
            }
            (Side::Target, Step::Received) if self.bug == Bug::ClaimedBeforeSaved => Step::Asks,
            (Side::Target, Step::Received) => {
                host.disk = host.memory;
                Step::Saved
            }
            (Side::Target, Step::Saved) => Step::Asks,
            (_, Step::Asks) => {
                state.arbiter.get_or_insert(side);
                Step::Asked
            }
            (_, Step::Asked) if state.arbiter == Some(side) => Step::Owns,
            (_, Step::Asked) => {
                (host.memory, host.disk) = (None, None);
                Step::Gone
            }
            (_, Step::Owns) => {
                host.has_entered = self.bug != Bug::RunTwice;
                // Entering hands over what is left of an answer.
                state.answered += u8::from(host.memory?.completion);
                host.memory = host.memory.map(|vm| Vm { completion: false, ..vm });
                state.ack |= side == Side::Target;
                Step::Runs
            }
            _ => return None,
        };
        *state.host(side) = host;
        Some(())
    }

    /// What a host does that starts again.
    fn restart(&self, state: &mut State, side: Side) {
        let host = state.host(side);
        host.memory = host.disk;
        host.step = match (side, host.disk) {
            _ if host.has_entered => {
                // The VM has crashed, as VMs do. Its snapshot is of the past.
                host.memory = None;
                Step::Gone
            }
            (_, None) => Step::Gone,
            (Side::Source, Some(_)) if self.bug == Bug::RestartedWithoutAsking => Step::Owns,
            (_, Some(_)) => Step::Asks,
        };
    }
}

const BOTH: &str = "never do both hosts run the guest";
const TWICE: &str = "nothing is delivered twice";
const MISSED: &str = "nothing is lost on the way";

impl Model for Hosts {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let host = |step| Host { step, memory: None, disk: None, has_entered: false };
        let vm = Vm { event: true, completion: true };
        vec![State {
            arbiter: None,
            source: Host { memory: Some(vm), ..host(Step::Runs) },
            target: host(Step::Listens),
            sent: None,
            ack: false,
            delivered: 0,
            answered: 0,
            is_lost: false,
        }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        actions.extend([Action::Receive, Action::Hear, Action::TimeOut, Action::HangUp, Action::Break]);
        for side in [Side::Source, Side::Target] {
            let own = [Action::Go(side), Action::Deliver(side), Action::Crash(side), Action::Restart(side)];
            actions.extend(own);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut state = *state;
        match action {
            Action::Go(side) => self.go(&mut state, side)?,
            Action::Deliver(side) => {
                let host = state.host(side);
                if host.step != Step::Runs || !host.memory?.event {
                    return None;
                }
                host.memory = host.memory.map(|vm| Vm { event: false, ..vm });
                state.delivered += 1;
            }
            Action::Receive if state.target.step == Step::Listens => {
                state.target.memory = Some(state.sent.take()?);
                state.target.step = Step::Received;
            }
            Action::Hear if state.ack && state.source.step == Step::Sent => {
                state.ack = false;
                (state.source.memory, state.source.disk) = (None, None);
                state.source.step = Step::Gone;
            }
            Action::TimeOut if state.source.step == Step::Sent => {
                let asks = self.bug != Bug::ResumedOnTimeout;
                state.source.step = if asks { Step::Asks } else { Step::Owns };
            }
            Action::HangUp if state.target.step == Step::Listens => state.target.step = Step::Gone,
            Action::Break if state.sent.is_some() || state.ack => {
                (state.sent, state.ack) = (None, false);
            }
            Action::Crash(side) => {
                let host = state.host(side);
                if matches!(host.step, Step::Down | Step::Gone) {
                    return None;
                }
                // A snapshot that a guest has run away from is of no use, and nothing was saved before the first.
                let is_lost = side == Side::Source && host.disk.is_none();
                (host.step, host.memory) = (Step::Down, None);
                state.is_lost |= is_lost;
            }
            Action::Restart(side) if state.host(side).step == Step::Down => self.restart(&mut state, side),
            _ => return None,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(BOTH, |_, state: &State| {
                let runs = |host: Host| host.step == Step::Runs;
                !state.hosts().into_iter().all(|host| host.has_entered || runs(host))
            }),
            Property::always(TWICE, |_, state: &State| state.delivered <= 1 && state.answered <= 1),
            Property::always(MISSED, |_, state: &State| {
                state.hosts().into_iter().filter(|host| host.step == Step::Runs).all(|host| {
                    let left = host.memory.unwrap_or(Vm { event: false, completion: false });
                    state.delivered + u8::from(left.event) >= 1
                        && state.answered + u8::from(left.completion) >= 1
                })
            }),
            Property::always("only the side that was decided for runs", |_, state: &State| {
                !state.target.has_entered || state.arbiter == Some(Side::Target)
            }),
            Property::sometimes("the target runs, and the source knows", |_, state: &State| {
                state.target.step == Step::Runs && state.source.step == Step::Gone && state.delivered == 1
            }),
            Property::sometimes("the source runs on, and the target knows", |_, state: &State| {
                state.source.has_entered
                    && state.source.step == Step::Runs
                    && state.arbiter == Some(Side::Source)
                    && state.target.step == Step::Gone
            }),
            Property::sometimes("both hosts are down with a snapshot on each disk", |_, state: &State| {
                state.hosts().into_iter().all(|host| host.step == Step::Down && host.disk.is_some())
            }),
        ]
    }
}

impl Searched for Hosts {
    const NAME: &'static str = "hand-over";
    const GOAL: &'static str = "one host comes to run the guest";

    fn is_goal(&self, state: &State) -> bool {
        let ends = |host: Host| matches!(host.step, Step::Runs | Step::Gone);
        let ran = |host: Host| host.has_entered || host.step == Step::Runs;
        let [source, target] = state.hosts();
        state.is_lost || ends(source) && ends(target) && (ran(source) || ran(target))
    }
}

#[test]
fn one_host_comes_to_run_the_guest_whatever_crashes_and_nothing_is_lost_or_comes_twice() {
    exhaust(&Hosts { bug: Bug::None }, 400);
}

#[test]
fn a_source_that_resumes_without_asking_runs_beside_the_target() {
    let way = refute(&Hosts { bug: Bug::ResumedOnTimeout }, Bug::ResumedOnTimeout, BOTH);
    assert!(!way.contains(&Action::Crash(Side::Source)), "nothing has to crash for it: {way:?}");
}

#[test]
fn a_target_that_asks_before_it_has_saved_strands_the_guest() {
    let way = strand(&Hosts { bug: Bug::ClaimedBeforeSaved }, Bug::ClaimedBeforeSaved);
    assert!(way.contains(&Action::Go(Side::Target)), "{way:?}");
}

#[test]
fn a_source_that_starts_again_without_asking_runs_beside_the_target() {
    refute(&Hosts { bug: Bug::RestartedWithoutAsking }, Bug::RestartedWithoutAsking, BOTH);
}

#[test]
fn a_snapshot_that_is_run_twice_delivers_twice() {
    refute(&Hosts { bug: Bug::RunTwice }, Bug::RunTwice, TWICE);
}

#[test]
fn an_answer_that_was_not_handed_over_is_lost() {
    refute(&Hosts { bug: Bug::NotDrained }, Bug::NotDrained, MISSED);
}
