//! One host: its disk, and the process that carries out what the state machines of `exeunt::migrate` ask for.

use exeunt::migrate::{
    Action, End, Input, Message, Offer, Record, Recovery, Side, Source, Target, TransferId, Why, recover,
};
use exeunt::snapshot::Digest;

use super::{Bug, State};

const TRANSFER: TransferId = TransferId([7; 16]);
/// The checkpoint that the source had before, that of the transfer, and the next of whoever runs the VM.
pub(super) const BEFORE: Digest = [0; 32];
pub(super) const OFFERED: Digest = [1; 32];
pub(super) const AFTER: Digest = [2; 32];

/// What outlasts a kill.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    pub(super) record: Option<Record>,
    /// The checkpoint of the transfer is there.
    pub(super) has_offered: bool,
}

/// What does not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Process {
    Dead,
    /// A machine, and what it wants to be done.
    Source(Source, Action),
    Target(Target, Action),
    /// It was started again and asks; one of these two is its next record.
    Asks(Record, Record),
    Learnt(Record),
    /// It runs the VM from this checkpoint.
    Runs(Digest),
    /// The VM has said something, and what it is now is durable. What it said is not out yet.
    Speaks,
    RunsOn,
    /// It does not run the VM, and has nothing more to do.
    Ended,
}

/// How an action goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// A wait that nobody ends.
    Late,
    /// It fails, and has had no effect.
    FailedBefore,
    /// It is said to fail, and has had its effect.
    FailedAfter,
}

impl Process {
    pub(super) fn of(side: Side) -> Self {
        match side {
            Side::Source => {
                let (source, action) = Source::begin(TRANSFER, 10);
                Self::Source(source, action)
            }
            Side::Target => {
                let (target, action) = Target::begin(0, 10, 100);
                Self::Target(target, action)
            }
        }
    }

    pub(super) const fn runs(&self) -> bool {
        matches!(self, Self::Runs(_) | Self::Speaks | Self::RunsOn)
    }

    fn action(&self) -> Option<&Action> {
        match self {
            Self::Source(_, action) | Self::Target(_, action) => Some(action),
            _ => None,
        }
    }

    /// Tells the machine what has happened.
    fn hear(self, input: Input) -> Self {
        match self {
            Self::Source(source, _) => {
                let (source, action) = source.handle(0, input);
                Self::Source(source, action)
            }
            Self::Target(target, _) => {
                let (target, action) = target.handle(0, input);
                Self::Target(target, action)
            }
            other => other,
        }
    }
}

impl State {
    /// The next step of a host. `None` if it has none, or it cannot go like this.
    pub(super) fn go(mut self, bug: Bug, side: Side, outcome: Outcome) -> Option<Self> {
        let at = side as usize;
        if let Some(action) = self.hosts[at].process.action().cloned() {
            return self.carry_out(bug, side, &action, outcome);
        }
        if outcome != Outcome::Done {
            return None;
        }
        let process = match self.hosts[at].process.clone() {
            Process::Asks(won, lost) => {
                let is_won = bug == Bug::RestartedWithoutAsking || self.decide(bug, side) == side;
                Process::Learnt(if is_won { won } else { lost })
            }
            Process::Learnt(record) => {
                self.hosts[at].disk.record = Some(record);
                self.start(at)
            }
            Process::Runs(checkpoint) => {
                // What was said before the checkpoint is out; what is said from now on waits for the next one.
                if bug == Bug::ReleasedEarly {
                    self.says();
                }
                if checkpoint != BEFORE {
                    self.hosts[at].disk.record = Some(Record::Owns { checkpoint: AFTER });
                }
                if checkpoint == OFFERED { Process::Speaks } else { Process::RunsOn }
            }
            Process::Speaks => {
                if bug != Bug::ReleasedEarly {
                    self.says();
                }
                Process::RunsOn
            }
            _ => return None,
        };
        self.enter(side, process);
        Some(self)
    }

    /// What a process does that finds this on its disk.
    pub(super) fn start(&self, at: usize) -> Process {
        let disk = &self.hosts[at].disk;
        match recover(disk.record) {
            // There is nothing to run.
            Recovery::Run { checkpoint: OFFERED } if !disk.has_offered => Process::Ended,
            Recovery::Run { checkpoint } => Process::Runs(checkpoint),
            Recovery::Ask { won, lost, .. } => Process::Asks(won, lost),
            Recovery::Nothing => Process::Ended,
        }
    }

    pub(super) fn enter(&mut self, side: Side, process: Process) {
        let at = side as usize;
        self.has_run[at] |= process.runs();
        self.hosts[at].process = process;
    }

    fn says(&mut self) {
        self.said = self.said.saturating_add(1);
    }

    /// The arbiter: the first call counts.
    fn decide(&mut self, bug: Bug, me: Side) -> Side {
        if bug == Bug::ArbiterForgets {
            self.decision = Some(me);
        }
        *self.decision.get_or_insert(me)
    }

    fn carry_out(mut self, bug: Bug, side: Side, action: &Action, outcome: Outcome) -> Option<Self> {
        let at = side as usize;
        let waits =
            matches!(action, Action::Wait { .. }) || matches!(action, Action::Keep { left_bytes: 1.., .. });
        let input = match (action, outcome) {
            (Action::Run, Outcome::Done) => {
                let record = self.hosts[at].disk.record.and_then(|record| record.checkpoint());
                self.enter(side, Process::Runs(record?));
                return Some(self);
            }
            (Action::Stop(end), Outcome::Done) => {
                // Whoever is gone has closed the socket.
                self.is_cut = true;
                let starts_again = matches!(end, End::Undecided { .. });
                self.enter(side, if starts_again { Process::Dead } else { Process::Ended });
                return Some(self);
            }
            (Action::Run | Action::Stop(_), _) => return None,
            (_, Outcome::Late) => waits.then_some(Input::Late)?,
            _ if waits => self.receive(at, outcome)?,
            (Action::Send(_) | Action::SendData, Outcome::FailedBefore | Outcome::FailedAfter) => {
                return None;
            }
            (_, Outcome::FailedBefore) => Input::Failed(String::new()),
            (_, Outcome::Done) => self.effect(bug, side, action),
            (_, Outcome::FailedAfter) => {
                self.effect(bug, side, action);
                Input::Failed(String::new())
            }
        };
        let process = self.hosts[at].process.clone().hear(input);
        self.enter(side, process);
        Some(self)
    }

    fn receive(&mut self, at: usize, outcome: Outcome) -> Option<Input> {
        match (outcome, self.wire[at].is_empty()) {
            (Outcome::Done, false) => Some(Input::Message(self.wire[at].remove(0))),
            (Outcome::Done, true) => self.is_cut.then_some(Input::Closed),
            _ => None,
        }
    }

    fn effect(&mut self, bug: Bug, side: Side, action: &Action) -> Input {
        let at = side as usize;
        let messages = match action {
            Action::Save => {
                self.hosts[at].disk.has_offered = true;
                self.is_drained = bug != Bug::NotDrained;
                return Input::Saved(offer());
            }
            Action::Record(record) => {
                if bug != Bug::RecordInMemory || side == Side::Target {
                    self.hosts[at].disk.record = Some(*record);
                }
                return Input::Done;
            }
            Action::Hold { .. } => {
                self.hosts[at].disk.has_offered = bug != Bug::HeldInMemory;
                return Input::Done;
            }
            Action::Decide(_, me) => {
                let gave_up = matches!(
                    &self.hosts[at].process,
                    Process::Source(source, _) if matches!(source.why(), Some(Why::Late | Why::Closed))
                );
                let is_skipped = bug == Bug::ResumedOnTimeout && gave_up;
                return Input::Decided(if is_skipped { side } else { self.decide(bug, *me) });
            }
            Action::Send(message) => vec![message.clone()],
            Action::SendData => [1, 2].map(|byte| Message::Data(vec![byte])).into(),
            _ => return Input::Done,
        };
        if self.is_cut {
            return Input::Closed;
        }
        self.wire[1 - at].extend(messages);
        Input::Done
    }
}

fn offer() -> Offer {
    Offer { transfer: TRANSFER, checkpoint: OFFERED, bytes: 2, origin: Vec::new(), needs: Vec::new() }
}
