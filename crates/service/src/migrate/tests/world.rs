//! Both sides, the wire between them, their disks and the arbiter, as one value that every step makes a new one of.

use super::super::*;
use std::collections::BTreeSet;

pub(super) const TRANSFER: TransferId = TransferId([7; 16]);
/// The checkpoint before the transfer, that of the transfer, and the next of whoever runs the VM.
pub(super) const BEFORE: Digest = [0; 32];
pub(super) const OFFERED: Digest = [1; 32];
pub(super) const AFTER: Digest = [2; 32];

/// What outlasts a kill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    pub(super) record: Option<Record>,
    pub(super) checkpoints: BTreeSet<Digest>,
}

/// What does not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Process {
    Dead,
    /// A machine, and what it wants to be done.
    Source(Source, Action),
    Target(Target, Action),
    /// A machine, and what has been done, of which it does not know yet.
    SourceHears(Source, Input),
    TargetHears(Target, Input),
    /// After a restart.
    Asks(Record, Record),
    Learnt(Record),
    /// It runs the VM, from this checkpoint.
    Runs(Digest),
    /// It has made the next checkpoint, and its output is to be released.
    Ran(Digest),
    /// It has come to its end, and does not run the VM.
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) disks: [Disk; 2],
    pub(super) processes: [Process; 2],
    /// On the way to each side.
    pub(super) wire: [Vec<Message>; 2],
    pub(super) is_cut: bool,
    pub(super) decision: Option<Side>,
    /// What the guest said to the outside.
    pub(super) said: u8,
    /// Who ran the VM after it was offered.
    pub(super) ran: [bool; 2],
    /// Kills, and failures of calls, that are left.
    pub(super) mishaps: u8,
}

pub(super) fn offer() -> Offer {
    Offer { transfer: TRANSFER, checkpoint: OFFERED, bytes: 2, origin: Vec::new(), needs: Vec::new() }
}

impl World {
    pub(super) fn new(mishaps: u8) -> Self {
        let (source, save) = Source::begin(TRANSFER, 10);
        let (target, wait) = Target::begin(0, 10, 100);
        let record = Some(Record::Owns { checkpoint: BEFORE });
        Self {
            disks: [Disk { record, checkpoints: BTreeSet::from([BEFORE]) }, Disk::default()],
            processes: [Process::Source(source, save), Process::Target(target, wait)],
            wire: Default::default(),
            is_cut: false,
            decision: None,
            said: 0,
            ran: [false; 2],
            mishaps,
        }
    }

    fn at(&self, side: usize, process: Process) -> Self {
        let mut next = self.clone();
        if matches!(process, Process::Runs(OFFERED))
            && self.disks[0].record != Some(Record::Owns { checkpoint: BEFORE })
        {
            next.ran[side] = true;
        }
        next.processes[side] = process;
        next
    }

    fn mishap(&self) -> Option<Self> {
        let mishaps = self.mishaps.checked_sub(1)?;
        Some(Self { mishaps, ..self.clone() })
    }

    /// Every world that can be next. With no mishaps left there are no kills, no failures and no cuts.
    pub(super) fn next(&self) -> Vec<Self> {
        let mut next = Vec::new();
        for side in 0..2 {
            self.step(side, &mut next);
            if let Some(mishap) = self.mishap().filter(|_| self.processes[side] != Process::Dead) {
                // What was on its way comes, or does not.
                next.push(mishap.kill(side));
                next.push(Self { wire: Default::default(), ..mishap.kill(side) });
            }
            if self.processes[side] == Process::Dead {
                next.push(self.restart(side));
            }
        }
        if let Some(mishap) = self.mishap().filter(|_| !self.is_cut) {
            next.push(Self { is_cut: true, ..mishap.clone() });
            next.push(Self { is_cut: true, wire: Default::default(), ..mishap });
        }
        next
    }

    pub(super) fn kill(&self, side: usize) -> Self {
        let mut next = self.at(side, Process::Dead);
        next.is_cut = true;
        next
    }

    pub(super) fn restart(&self, side: usize) -> Self {
        self.at(
            side,
            match recover(self.disks[side].record) {
                Recovery::Run { checkpoint } => Process::Runs(checkpoint),
                Recovery::Ask { won, lost, .. } => Process::Asks(won, lost),
                Recovery::Nothing => Process::Ended,
            },
        )
    }

    /// What a side does next, in every way in which it can go.
    pub(super) fn step(&self, side: usize, next: &mut Vec<Self>) {
        let now_ns = 1;
        match self.processes[side].clone() {
            Process::Dead | Process::Ended => {}
            Process::SourceHears(machine, input) => {
                let (machine, action) = machine.handle(now_ns, input);
                next.push(self.at(side, Process::Source(machine, action)));
            }
            Process::TargetHears(machine, input) => {
                let (machine, action) = machine.handle(now_ns, input);
                next.push(self.at(side, Process::Target(machine, action)));
            }
            Process::Source(machine, action) => {
                for (world, input) in self.carry_out(side, &action) {
                    next.push(world.at(side, Process::SourceHears(machine.clone(), input)));
                }
                next.extend(self.ended(side, &action));
            }
            Process::Target(machine, action) => {
                for (world, input) in self.carry_out(side, &action) {
                    next.push(world.at(side, Process::TargetHears(machine.clone(), input)));
                }
                next.extend(self.ended(side, &action));
            }
            Process::Asks(won, lost) => {
                let mut world = self.clone();
                let me = [Side::Source, Side::Target][side];
                let record = if *world.decision.get_or_insert(me) == me { won } else { lost };
                next.push(world.at(side, Process::Learnt(record)));
            }
            Process::Learnt(record) => {
                let mut world = self.clone();
                world.disks[side].record = Some(record);
                let process = record.checkpoint().map_or(Process::Ended, Process::Runs);
                next.push(world.at(side, process));
            }
            Process::Runs(checkpoint) => next.push(self.run(side, checkpoint)),
            Process::Ran(checkpoint) => {
                let mut world = self.clone();
                world.release(checkpoint);
                next.push(world.at(side, Process::Ended));
            }
        }
    }

    fn ended(&self, side: usize, action: &Action) -> Option<Self> {
        match action {
            Action::Run => {
                let checkpoint = self.disks[side].record.and_then(|record| record.checkpoint());
                Some(self.at(side, Process::Runs(checkpoint.expect("who runs has a checkpoint"))))
            }
            // Who is gone has closed the socket.
            Action::Stop(End::Undecided { .. }) => Some(self.kill(side)),
            Action::Stop(_) => Some(Self { is_cut: true, ..self.at(side, Process::Ended) }),
            _ => None,
        }
    }

    /// One turn of the VM: it releases what it said before, goes on, and makes what comes of it durable.
    fn run(&self, side: usize, checkpoint: Digest) -> Self {
        let mut world = self.clone();
        world.release(checkpoint);
        if checkpoint != OFFERED {
            return world.at(side, Process::Ended);
        }
        world.disks[side].checkpoints.insert(AFTER);
        world.disks[side].record = Some(Record::Owns { checkpoint: AFTER });
        world.at(side, Process::Ran(AFTER))
    }

    fn release(&mut self, checkpoint: Digest) {
        let [upto, ..] = checkpoint;
        assert!(self.said <= upto, "someone who ran on has said more: {self:?}");
        self.said = upto;
    }

    /// What can come of an action.
    fn carry_out(&self, side: usize, action: &Action) -> Vec<(Self, Input)> {
        let mut all = Vec::new();
        let fails = || Input::Failed("failed".into());
        let mut world = self.clone();
        let input = match action {
            Action::Save => {
                world.disks[side].checkpoints.insert(OFFERED);
                Input::Saved(offer())
            }
            Action::Record(record) => {
                world.disks[side].record = Some(*record);
                Input::Done
            }
            Action::Release => {
                let record = world.disks[side].record.and_then(|record| record.checkpoint());
                world.release(record.expect("a record with a checkpoint"));
                Input::Done
            }
            Action::Hold { checkpoint } => {
                world.disks[side].checkpoints.insert(*checkpoint);
                Input::Done
            }
            Action::Decide(TRANSFER, me) => Input::Decided(*world.decision.get_or_insert(*me)),
            Action::Check(_) | Action::Build { .. } | Action::Keep { left_bytes: 0, .. } => Input::Done,
            Action::Send(message) => return vec![self.send(side, std::slice::from_ref(message))],
            Action::SendData => {
                return vec![self.send(side, &[Message::Data(vec![1]), Message::Data(vec![2])])];
            }
            Action::Keep { .. } | Action::Wait { .. } => return self.hear(side),
            _ => return Vec::new(),
        };
        if let Some(mishap) = self.mishap() {
            // It failed before it had an effect, and after.
            all.push((mishap, fails()));
            all.push((Self { mishaps: self.mishaps - 1, ..world.clone() }, fails()));
        }
        all.push((world, input));
        all
    }

    fn send(&self, side: usize, messages: &[Message]) -> (Self, Input) {
        let mut world = self.clone();
        if world.is_cut {
            return (world, Input::Closed);
        }
        world.wire[1 - side].extend(messages.iter().cloned());
        (world, Input::Done)
    }

    /// A message, the end, or the time that is up, which can be at any time.
    fn hear(&self, side: usize) -> Vec<(Self, Input)> {
        let mut world = self.clone();
        let mut all = Vec::new();
        if !world.wire[side].is_empty() {
            let message = world.wire[side].remove(0);
            all.push((world, Input::Message(message)));
        } else if world.is_cut {
            all.push((world, Input::Closed));
        }
        all.extend(self.mishap().map(|mishap| (mishap, Input::Late)));
        all
    }
}
