//! A VM that is handed over from one host to another, while hosts are killed and the connection between them breaks.
//!
//! Both sides are the state machines of `crates/service/src/migrate` themselves, [`Source`](exeunt::migrate::Source)
//! and [`Target`](exeunt::migrate::Target), and after a restart [`recover`](exeunt::migrate::recover). The model is what
//! is around them: disks that keep what was made durable, a connection that may lose what is on its way, an arbiter, and
//! processes that are killed between any two effects. Nothing is counted, so that all of it may happen any number of times.

mod host;

use exeunt::migrate::{Message, Record, Side};
use stateright::{Model, Property};

use crate::search::{Searched, exhaust, refute, strand};
use host::{BEFORE, Disk, OFFERED, Outcome, Process};

/// A bug of what carries the machines' actions out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// The source resumes when it hears nothing, and does not ask.
    ResumedOnTimeout,
    /// The target asks before the snapshot is durable.
    HeldInMemory,
    /// The source's record is not durable before it is relied on.
    RecordInMemory,
    /// The arbiter answers whoever asked last.
    ArbiterForgets,
    /// A side that starts again takes the VM for its own.
    RestartedWithoutAsking,
    /// What the guest says is let out before its state is durable.
    ReleasedEarly,
    /// The source saves without handing pending answers over first.
    NotDrained,
}

#[derive(Clone)]
struct Hosts {
    bug: Bug,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// The source and the target.
    hosts: [Host; 2],
    /// On its way to each.
    wire: [Vec<Message>; 2],
    is_cut: bool,
    decision: Option<Side>,
    /// Who has run the VM since the transfer began.
    has_run: [bool; 2],
    /// How often the guest has said what it says behind the checkpoint of the transfer.
    said: u8,
    /// That checkpoint was taken with no answer pending.
    is_drained: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Host {
    disk: Disk,
    process: Process,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The next step of a host, and how it goes.
    Go(Side, Outcome),
    /// The connection breaks.
    Cut,
    /// What was on its way when it broke is lost.
    Lose,
    Kill(Side),
    Restart(Side),
}

const SIDES: [Side; 2] = [Side::Source, Side::Target];

const BOTH: &str = "never do both hosts run the guest";
const TWICE: &str = "the guest says nothing twice";
const MISSED: &str = "no answer is lost on the way";
const NAMED: &str = "a record names a checkpoint that is there";

impl Model for Hosts {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let host =
            |side, record| Host { disk: Disk { record, has_offered: false }, process: Process::of(side) };
        let before = Record::Owns { checkpoint: BEFORE };
        vec![State {
            hosts: [host(Side::Source, Some(before)), host(Side::Target, None)],
            wire: [Vec::new(), Vec::new()],
            is_cut: false,
            decision: None,
            has_run: [false; 2],
            said: 0,
            is_drained: true,
        }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        for side in SIDES {
            let outcomes = [Outcome::Done, Outcome::Late, Outcome::FailedBefore, Outcome::FailedAfter];
            actions.extend(outcomes.map(|outcome| Action::Go(side, outcome)));
            actions.extend([Action::Kill(side), Action::Restart(side)]);
        }
        actions.extend([Action::Cut, Action::Lose]);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut state = state.clone();
        match action {
            Action::Go(side, outcome) => return state.go(self.bug, side, outcome),
            Action::Cut if !state.is_cut => state.is_cut = true,
            Action::Lose if state.is_cut && state.wire.iter().any(|wire| !wire.is_empty()) => {
                state.wire = [Vec::new(), Vec::new()];
            }
            Action::Kill(side) if state.hosts[side as usize].process != Process::Dead => {
                state.enter(side, Process::Dead);
                state.is_cut = true;
            }
            Action::Restart(side) if state.hosts[side as usize].process == Process::Dead => {
                let process = state.start(side as usize);
                state.enter(side, process);
            }
            _ => return None,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(BOTH, |_, state: &State| state.has_run != [true; 2]),
            Property::always(TWICE, |_, state: &State| state.said <= 1),
            Property::always(MISSED, |_, state: &State| {
                let runs = |host: &Host| host.process == Process::Runs(OFFERED);
                state.is_drained || !state.hosts.iter().any(runs)
            }),
            Property::always(NAMED, |machine: &Self, state: &State| {
                let is_there = |host: &Host| {
                    let named = host.disk.record.and_then(|record| record.checkpoint());
                    named != Some(OFFERED) || host.disk.has_offered
                };
                machine.bug == Bug::HeldInMemory || state.hosts.iter().all(is_there)
            }),
            Property::sometimes("the target runs, and the source knows", |_, state: &State| {
                state.hosts[0].process == Process::Ended && state.hosts[1].process == Process::RunsOn
            }),
            Property::sometimes("the source runs on, and the target knows", |_, state: &State| {
                state.hosts[0].process == Process::RunsOn
                    && matches!(state.hosts[1].disk.record, Some(Record::Dropped { .. }))
            }),
            Property::sometimes("both are dead, and only the arbiter knows", |_, state: &State| {
                let asks = |host: &Host| {
                    let record = host.disk.record;
                    host.process == Process::Dead
                        && matches!(record, Some(Record::Offers { .. } | Record::Holds { .. }))
                };
                state.hosts.iter().all(asks) && state.decision.is_some()
            }),
        ]
    }
}

impl Searched for Hosts {
    const NAME: &'static str = "hand-over";
    const GOAL: &'static str = "one host comes to run the guest";

    fn is_goal(&self, state: &State) -> bool {
        let [source, target] = &state.hosts;
        matches!(
            (&source.process, &target.process),
            (Process::RunsOn, Process::Ended) | (Process::Ended, Process::RunsOn)
        )
    }
}

#[test]
fn one_host_comes_to_run_the_guest_whatever_is_killed_and_nothing_is_lost_or_comes_twice() {
    exhaust(&Hosts { bug: Bug::None }, 2000);
}

#[test]
fn a_source_that_resumes_without_asking_runs_beside_the_target() {
    let way = refute(&Hosts { bug: Bug::ResumedOnTimeout }, Bug::ResumedOnTimeout, BOTH);
    assert!(way.contains(&Action::Go(Side::Source, Outcome::Late)), "{way:?}");
}

#[test]
fn a_target_that_asks_before_its_snapshot_is_durable_strands_the_guest() {
    let way = strand(&Hosts { bug: Bug::HeldInMemory }, Bug::HeldInMemory);
    let is_of_target =
        |action: &Action| matches!(action, Action::Go(Side::Target, _) | Action::Kill(Side::Target));
    assert!(way.last().is_some_and(is_of_target), "{way:?}");
}

#[test]
fn a_record_that_is_not_durable_lets_both_run() {
    refute(&Hosts { bug: Bug::RecordInMemory }, Bug::RecordInMemory, BOTH);
}

#[test]
fn an_arbiter_that_changes_its_mind_lets_both_run() {
    refute(&Hosts { bug: Bug::ArbiterForgets }, Bug::ArbiterForgets, BOTH);
}

#[test]
fn a_side_that_starts_again_without_asking_runs_beside_the_other() {
    let bug = Bug::RestartedWithoutAsking;
    let way = refute(&Hosts { bug }, bug, BOTH);
    assert!(way.iter().any(|action| matches!(action, Action::Restart(_))), "{way:?}");
}

#[test]
fn output_that_is_let_out_before_a_checkpoint_comes_twice() {
    refute(&Hosts { bug: Bug::ReleasedEarly }, Bug::ReleasedEarly, TWICE);
}

#[test]
fn an_answer_that_was_not_handed_over_is_lost() {
    refute(&Hosts { bug: Bug::NotDrained }, Bug::NotDrained, MISSED);
}
