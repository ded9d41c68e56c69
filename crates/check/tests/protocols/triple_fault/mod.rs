//! A triple fault that KVM was asked for and has not serviced, across saves and restores.
//!
//! The VMM of the model saves and restores by calling [`SavedEvents::save`] and [`SavedEvents::restore`] themselves,
//! and asks [`SavedEvents::triple_fault`] whether the source can say what is pending. Its kernel, [`Kvm`], mirrors
//! `EventState::get` and `EventState::set` of `crates/model/src/events/mod.rs`, and a test holds the two together.

mod kvm;

use exeunt::snapshot::{SavedEvents, SnapshotError};
use exeunt_abi::kvm::events::{VALID_TRIPLE_FAULT, VcpuEvents};
use exeunt_proto::host::Events;
use stateright::{Model, Property};
use zerocopy::{FromBytes, IntoBytes};

use crate::search::{Searched, exhaust, refute};
use kvm::{Capability, Kvm};

/// A bug of the VMM, or of its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// The VMM does not enable capability 218, and takes events that do not say for events without a triple fault.
    CapabilityOff,
    /// Reading the events takes the request away.
    ConsumedByGet,
    /// The VMM passes on the flags that it knew before there was this one.
    FlagMasked,
    /// The VMM gives the events to KVM as they are, and without the flag if that is refused.
    RetriedWithoutFlag,
    /// The VMM gives the events to KVM as they are, and takes an error for proof that nothing happened.
    RefusedByKvm,
    /// The VMM sets the flag only for a triple fault that is pending, so an old request is never taken back.
    ValidOnlyWhenPending,
}

/// A vCPU's way over three hosts.
#[derive(Clone)]
struct Hosts {
    bug: Bug,
}

#[expect(clippy::struct_excessive_bools, reason = "what was seen so far, each for itself")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    kvm: [Kvm; 3],
    /// The host that the vCPU belongs to.
    at: usize,
    phase: Phase,
    /// A triple fault was requested and has not been serviced.
    is_owed: bool,
    serviced: u8,
    /// `KVM_EXIT_SHUTDOWN` came with nothing owed.
    is_spurious: bool,
    /// The guest was run with a triple fault owed.
    ran_on: bool,
    /// A target that refused is not as it was.
    is_touched: bool,
    refusals: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Runs,
    Paused,
    /// Saved at this host.
    Saved([u8; 64]),
    /// The next host has it, too, and has not been told to run.
    Restored([u8; 64]),
    /// The VM has ended by `KVM_EXIT_SHUTDOWN`.
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// KVM synthesizes a triple fault, or the VMM reports a machine check or a lost window that leads to one.
    Request,
    /// `KVM_RUN`.
    Enter,
    Pause,
    Resume,
    Save,
    Restore,
    /// The source lets go, and the target is the owner.
    Commit,
}

impl Hosts {
    fn restore(&self, record: [u8; 64], target: &mut Kvm) -> Result<(), SnapshotError> {
        let mut events = VcpuEvents::read_from_bytes(&record).expect("64 bytes");
        let set = |target: &mut Kvm, events: &VcpuEvents| {
            target.set_events(events).map_err(|errno| SnapshotError::Set { errno })
        };
        match self.bug {
            Bug::FlagMasked => events.flags &= !VALID_TRIPLE_FAULT,
            Bug::ValidOnlyWhenPending if events.triple_fault_pending == 0 => {
                events.flags &= !VALID_TRIPLE_FAULT;
            }
            Bug::RefusedByKvm => return set(target, &events),
            Bug::RetriedWithoutFlag => {
                return set(target, &events).or_else(|_| {
                    events.flags &= !VALID_TRIPLE_FAULT;
                    set(target, &events)
                });
            }
            _ => {}
        }
        SavedEvents::from(events).restore(target)
    }

    /// What one step makes of the state; `None` where it is not taken.
    fn take(&self, state: &mut State, action: Action) -> Option<()> {
        let State { at, phase, .. } = *state;
        match (action, phase) {
            (Action::Request, Phase::Runs | Phase::Paused) if !state.is_owed => {
                state.kvm[at].is_requested = true;
                state.is_owed = true;
            }
            (Action::Enter, Phase::Runs) => state.enter(),
            (Action::Pause, Phase::Runs) => state.phase = Phase::Paused,
            // A migration can be given up for as long as the target has not become the owner.
            (Action::Resume, Phase::Paused | Phase::Saved(_) | Phase::Restored(_)) => {
                state.phase = Phase::Runs;
            }
            (Action::Save, Phase::Paused | Phase::Saved(_)) if at < 2 => {
                let saved = SavedEvents::save(&mut state.kvm[at]).expect("reading does not fail");
                // Events that do not say whether a triple fault is pending are not to be run anywhere else.
                if saved.triple_fault().is_none() && self.bug != Bug::CapabilityOff {
                    return None;
                }
                let record = saved.events().as_bytes().try_into().expect("64 bytes");
                state.phase = Phase::Saved(record);
            }
            // Twice, if the answer to the first got lost.
            (Action::Restore, Phase::Saved(record) | Phase::Restored(record)) => {
                let before = state.kvm[at + 1];
                let after = &mut state.kvm[at + 1];
                if self.restore(record, after).is_ok() {
                    state.phase = Phase::Restored(record);
                } else {
                    state.is_touched |= *after != before;
                    state.refusals = 1;
                }
            }
            (Action::Commit, Phase::Restored(_)) => {
                state.at += 1;
                state.phase = Phase::Runs;
            }
            _ => return None,
        }
        Some(())
    }
}

impl State {
    /// `KVM_RUN`: a request is serviced before the guest runs, and taken away by that.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `vcpu_enter_guest`.
    fn enter(&mut self) {
        let kvm = &mut self.kvm[self.at];
        if kvm.is_requested {
            kvm.is_requested = false;
            self.is_spurious |= !self.is_owed;
            self.is_owed = false;
            self.serviced += 1;
            // The VMM ends the VM: KVM would run it again and remembers nothing.
            self.phase = Phase::Down;
        } else {
            self.ran_on |= self.is_owed;
        }
    }
}

const LOST: &str = "no guest runs on after its triple fault";
const SPURIOUS: &str = "no triple fault comes that nobody asked for";
const UNTOUCHED: &str = "a target that refuses is as it was";

impl Model for Hosts {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut states = Vec::new();
        let all = [Capability::Unknown, Capability::Off, Capability::On];
        let first = if self.bug == Bug::CapabilityOff { Capability::Off } else { Capability::On };
        for capabilities in all.map(|second| all.map(|third| [first, second, third])).as_flattened() {
            // A vCPU that is loaded over still has the request of its former life.
            for is_stale in [false, true] {
                let mut kvm = capabilities.map(Kvm::new);
                for kvm in &mut kvm {
                    kvm.consumes = self.bug == Bug::ConsumedByGet;
                }
                kvm[0].nmi_pending = 1;
                if is_stale && capabilities[1] != Capability::On {
                    continue;
                }
                kvm[1].is_requested = is_stale;
                states.push(State {
                    kvm,
                    at: 0,
                    phase: Phase::Runs,
                    is_owed: false,
                    serviced: 0,
                    is_spurious: false,
                    ran_on: false,
                    is_touched: false,
                    refusals: 0,
                });
            }
        }
        states
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        actions.extend([
            Action::Request,
            Action::Enter,
            Action::Pause,
            Action::Resume,
            Action::Save,
            Action::Restore,
            Action::Commit,
        ]);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut state = *state;
        self.take(&mut state, action).map(|()| state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LOST, |_, state: &State| !state.ran_on),
            Property::always(SPURIOUS, |_, state: &State| !state.is_spurious),
            Property::always(UNTOUCHED, |_, state: &State| !state.is_touched),
            Property::always("it is serviced once", |_, state: &State| state.serviced <= 1),
            Property::sometimes("it is serviced two hosts on", |_, state: &State| {
                state.serviced == 1 && state.at == 2
            }),
            Property::sometimes("a refusal leaves it to the source", |_, state: &State| {
                state.serviced == 1 && state.refusals > 0
            }),
            Property::sometimes(
                "a target without the capability takes a vCPU without one",
                |_, state: &State| state.at == 1 && state.kvm[1].capability == Capability::Unknown,
            ),
        ]
    }
}

impl Searched for Hosts {
    const NAME: &'static str = "triple fault";
    const GOAL: &'static str = "what is owed is serviced";

    fn is_goal(&self, state: &State) -> bool {
        !state.is_owed
    }
}

#[test]
fn a_triple_fault_is_serviced_once_wherever_it_was_requested_or_the_restore_is_refused() {
    exhaust(&Hosts { bug: Bug::None }, 300);
}

#[test]
fn a_source_without_the_capability_loses_it() {
    let way = refute(&Hosts { bug: Bug::CapabilityOff }, Bug::CapabilityOff, LOST);
    assert!(way.contains(&Action::Save) && way.last() == Some(&Action::Enter), "{way:?}");
}

#[test]
fn a_read_that_consumes_loses_it_without_any_migration() {
    let way = refute(&Hosts { bug: Bug::ConsumedByGet }, Bug::ConsumedByGet, LOST);
    assert!(!way.contains(&Action::Commit), "{way:?}");
}

#[test]
fn a_vmm_that_masks_the_flag_loses_it() {
    refute(&Hosts { bug: Bug::FlagMasked }, Bug::FlagMasked, LOST);
}

#[test]
fn a_retry_without_the_flag_loses_it() {
    refute(&Hosts { bug: Bug::RetriedWithoutFlag }, Bug::RetriedWithoutFlag, LOST);
}

#[test]
fn an_error_of_kvm_leaves_a_part_of_the_events_behind() {
    let way = refute(&Hosts { bug: Bug::RefusedByKvm }, Bug::RefusedByKvm, UNTOUCHED);
    assert!(!way.contains(&Action::Request), "{way:?}");
}

#[test]
fn a_flag_that_is_left_out_when_nothing_is_pending_lets_an_old_request_live() {
    refute(&Hosts { bug: Bug::ValidOnlyWhenPending }, Bug::ValidOnlyWhenPending, SPURIOUS);
}
