//! Carrying out what the machines of the hand-over say.

use super::arbiter::Directory;
use super::machine::{Kernel, Machine, Place};
use super::store::Store;
use super::wire::{Listener, Wire};
use crate::Failure;
use exeunt::migrate::{
    Action, Arbiter, End, Input, MAX_DATA_BYTES, Message, Offer, Record, Recovery, Side, Source, Target,
    TransferId, recover,
};
use exeunt::snapshot::{Digest, Limits, Snapshot};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The steps of an owner that runs its VM, beside those of the two machines.
pub(super) const OWNER_STEPS: [&str; 4] = ["ran", "checkpointed", "recorded", "logged"];

/// Where a process is to be killed: a step, and whether before it, in its middle or behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StopAt {
    pub(super) step: String,
    pub(super) when: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Before,
    During,
    After,
}

/// Where a process is to wait until a file is there, so that a test decides who is first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HoldAt {
    pub(super) at: StopAt,
    pub(super) file: PathBuf,
}

/// The longest that a process is held.
const MAX_HELD: Duration = Duration::from_secs(60);

/// What a side has to do with.
pub(super) struct Driver<'a> {
    pub(super) store: &'a Store,
    pub(super) arbiter: &'a Path,
    pub(super) log: &'a Path,
    pub(super) place: Place,
    pub(super) patience: Duration,
    pub(super) stop_at: Option<StopAt>,
    pub(super) hold_at: Option<HoldAt>,
    pub(super) started: Instant,
}

/// How it went for a side.
pub(super) enum Outcome {
    /// The VM is here, and may run.
    Here(Box<Machine>),
    /// It is not.
    NotHere(End),
}

impl Driver<'_> {
    /// Kills this process, if it is to be killed here: as by `kill -9`, with nothing cleaned up.
    pub(super) fn at(&self, step: &str, when: When) {
        let is_here = |stop: &StopAt| stop.step == step && stop.when == when;
        if let Some(hold) = self.hold_at.as_ref().filter(|hold| is_here(&hold.at)) {
            let since = Instant::now();
            while !hold.file.exists() && since.elapsed() < MAX_HELD {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        if self.stop_at.as_ref().is_some_and(is_here) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn patience_ns(&self) -> u64 {
        u64::try_from(self.patience.as_nanos()).unwrap_or(u64::MAX)
    }

    fn until(&self, until_ns: u64) -> Instant {
        let at = self.started.checked_add(Duration::from_nanos(until_ns));
        at.unwrap_or_else(|| Instant::now() + self.patience)
    }

    fn decide(&self, step: &str, transfer: TransferId, me: Side) -> Result<Side, Failure> {
        Directory::new(self.arbiter, &|| self.at(step, When::During)).decide(transfer, me)
    }

    fn record(&self, step: &str, record: &Record) -> Result<(), Failure> {
        self.store.set_record(record, &|| self.at(step, When::During))?;
        // What the record no longer names is of no use to anyone.
        self.store.clean(record.checkpoint());
        Ok(())
    }

    /// Writes a snapshot to bytes, and makes it durable.
    fn keep(&self, step: &str, snapshot: &Snapshot) -> Result<(Digest, Vec<u8>), Failure> {
        let (bytes, digest) = snapshot.write(Vec::new()).map_err(|error| error.to_string())?;
        self.store.put(&digest, &bytes, &|| self.at(step, When::During))?;
        Ok((digest, bytes))
    }

    /// Runs a VM that is this side's, makes a checkpoint, and lets the guest's output out.
    pub(super) fn own(&self, machine: &mut Machine, values: u64) -> Result<Digest, Failure> {
        let [ran, checkpointed, recorded, logged] = OWNER_STEPS;
        self.at(ran, When::Before);
        machine.run(values)?;
        self.at(ran, When::After);
        self.at(checkpointed, When::Before);
        let (checkpoint, _) = self.keep(checkpointed, &machine.save()?)?;
        self.at(checkpointed, When::After);
        self.at(recorded, When::Before);
        self.record(recorded, &Record::Owns { checkpoint })?;
        self.at(recorded, When::After);
        self.at(logged, When::Before);
        machine.release(self.log, &|| self.at(logged, When::During))?;
        self.at(logged, When::After);
        Ok(checkpoint)
    }

    /// Builds the VM of a checkpoint that this side owns, and releases what may not have been released.
    pub(super) fn resume(&self, checkpoint: &Digest) -> Result<Machine, Failure> {
        let (snapshot, _) = self.store.checkpoint(checkpoint)?;
        let mut machine = Machine::of_snapshot(&snapshot, self.place)?;
        machine.release(self.log, &|| {})?;
        Ok(machine)
    }

    /// Gives a VM to whoever listens at an address.
    pub(super) fn send(&self, machine: Machine, transfer: TransferId, to: &str) -> Result<Outcome, Failure> {
        let (mut source, mut action) = Source::begin(transfer, self.patience_ns());
        let (mut machine, mut wire, mut bytes) = (machine, None, Vec::new());
        loop {
            let step = source.step().name();
            let input = match &action {
                Action::Run => {
                    if let Some(why) = source.why() {
                        say(format_args!("the VM stays here: {why}"));
                    }
                    return Ok(Outcome::Here(Box::new(machine)));
                }
                Action::Stop(end) => return Ok(Outcome::NotHere(end.clone())),
                doing => {
                    self.at(step, When::Before);
                    let input = match doing {
                        Action::Save => self
                            .save_offer(step, &mut machine, transfer, &mut bytes)
                            .map_or_else(Input::Failed, Input::Saved),
                        Action::Release => done(machine.release(self.log, &|| self.at(step, When::During))),
                        Action::Send(message) => self.connect_and_send(&mut wire, to, message),
                        Action::SendData => self.send_data(step, wire.as_mut(), &bytes),
                        Action::Wait { until_ns } => receive(wire.as_mut(), self.until(*until_ns)),
                        other => self.common(step, other),
                    };
                    self.at(step, When::After);
                    input
                }
            };
            say(format_args!("{transfer}: source {step}: {}", outcome(&input)));
            (source, action) = source.handle(self.now_ns(), input);
        }
    }

    fn save_offer(
        &self,
        step: &str,
        machine: &mut Machine,
        transfer: TransferId,
        bytes: &mut Vec<u8>,
    ) -> Result<Offer, Failure> {
        let snapshot = machine.save()?;
        let (checkpoint, written) = self.keep(step, &snapshot)?;
        let (origin, needs) = snapshot.head();
        *bytes = written;
        Ok(Offer { transfer, checkpoint, bytes: bytes.len() as u64, origin, needs })
    }

    fn connect_and_send(&self, wire: &mut Option<Wire>, to: &str, message: &Message) -> Input {
        let until = Instant::now() + self.patience;
        if wire.is_none() {
            match Wire::connect(to, until) {
                Ok(connected) => *wire = Some(connected),
                Err(failure) => return Input::Failed(failure),
            }
        }
        wire.as_mut().map_or(Input::Closed, |wire| wire.send(message, until))
    }

    fn send_data(&self, step: &str, wire: Option<&mut Wire>, bytes: &[u8]) -> Input {
        let Some(wire) = wire else { return Input::Closed };
        let half = bytes.len() / 2;
        let mut sent = 0usize;
        for chunk in bytes.chunks(MAX_DATA_BYTES.min(half.max(1))) {
            if sent >= half {
                self.at(step, When::During);
            }
            match wire.send(&Message::Data(chunk.to_vec()), Instant::now() + self.patience) {
                Input::Done => sent = sent.saturating_add(chunk.len()),
                failed => return failed,
            }
        }
        Input::Done
    }

    /// Takes a VM from whoever connects.
    pub(super) fn receive(
        &self,
        listener: &Listener,
        kernel: Kernel,
    ) -> Result<(Outcome, Option<TransferId>), Failure> {
        let (mut target, mut action) =
            Target::begin(self.now_ns(), self.patience_ns(), Limits::default().total_bytes);
        let (mut wire, mut bytes, mut machine) = (None::<Wire>, Vec::new(), None);
        loop {
            let step = target.step().name();
            let input = match &action {
                Action::Run => {
                    let machine = machine.ok_or("no VM was built")?;
                    return Ok((Outcome::Here(Box::new(machine)), transfer(&target)));
                }
                Action::Stop(end) => return Ok((Outcome::NotHere(end.clone()), transfer(&target))),
                doing => {
                    self.at(step, When::Before);
                    let input = match doing {
                        Action::Wait { until_ns } => {
                            let until = self.until(*until_ns);
                            if wire.is_none() {
                                wire = listener.accept(until);
                            }
                            receive(wire.as_mut(), until)
                        }
                        Action::Check(offer) => done(self.check(offer, kernel)),
                        Action::Keep { bytes: more, left_bytes, until_ns } => {
                            bytes.extend(more);
                            self.at(step, When::During);
                            match left_bytes {
                                0 => Input::Done,
                                _ => receive(wire.as_mut(), self.until(*until_ns)),
                            }
                        }
                        Action::Build { checkpoint } => match self.build(&bytes, checkpoint) {
                            Ok(built) => {
                                machine = Some(built);
                                Input::Done
                            }
                            Err(failure) => Input::Failed(failure),
                        },
                        Action::Hold { checkpoint } => {
                            done(self.store.put(checkpoint, &bytes, &|| self.at(step, When::During)))
                        }
                        Action::Release => match &mut machine {
                            Some(machine) => done(machine.release(self.log, &|| self.at(step, When::During))),
                            None => Input::Failed("no VM was built".into()),
                        },
                        Action::Send(message) => wire
                            .as_mut()
                            .map_or(Input::Closed, |wire| wire.send(message, Instant::now() + self.patience)),
                        other => self.common(step, other),
                    };
                    self.at(step, When::After);
                    input
                }
            };
            say(format_args!("target {step}: {}", outcome(&input)));
            (target, action) = target.handle(self.now_ns(), input);
        }
    }

    fn check(&self, offer: &Offer, kernel: Kernel) -> Result<(), Failure> {
        let (origin, needs) = offer.read().map_err(|error| error.to_string())?;
        Machine::check(&origin, &needs, kernel, self.place)
    }

    fn build(&self, bytes: &[u8], checkpoint: &Digest) -> Result<Machine, Failure> {
        let (snapshot, found) =
            Snapshot::read(bytes, Limits::default()).map_err(|error| error.to_string())?;
        if found != *checkpoint {
            return Err("the snapshot is another one than was offered".into());
        }
        Machine::of_snapshot(&snapshot, self.place)
    }

    /// What both sides do alike.
    fn common(&self, step: &str, action: &Action) -> Input {
        match action {
            Action::Record(record) => done(self.record(step, record)),
            Action::Decide(transfer, me) => {
                self.decide(step, *transfer, *me).map_or_else(Input::Failed, Input::Decided)
            }
            _ => Input::Failed("this side does not do that".into()),
        }
    }

    /// What a side that was killed does when it is started again.
    pub(super) fn recover(&self) -> Result<(Outcome, Option<TransferId>), Failure> {
        let record = self.store.record()?;
        let transfer = record.and_then(|record| record.transfer());
        let checkpoint = match recover(record) {
            Recovery::Run { checkpoint } => checkpoint,
            Recovery::Nothing => {
                let end = match record {
                    Some(Record::Gave { .. }) => End::Gave,
                    _ => End::Dropped,
                };
                return Ok((Outcome::NotHere(end), transfer));
            }
            Recovery::Ask { transfer, me, won, lost } => {
                let decided = match self.decide("decided", transfer, me) {
                    Ok(decided) => decided,
                    Err(why) => {
                        let why = exeunt::migrate::Why::Failed(why);
                        return Ok((Outcome::NotHere(End::Undecided { why }), Some(transfer)));
                    }
                };
                say(format_args!("{transfer}: the arbiter says {decided}, and this is the {me}"));
                let record = if decided == me { won } else { lost };
                self.record("recorded", &record)?;
                let Some(checkpoint) = record.checkpoint() else {
                    let end = if me == Side::Source { End::Gave } else { End::Dropped };
                    return Ok((Outcome::NotHere(end), Some(transfer)));
                };
                checkpoint
            }
        };
        Ok((Outcome::Here(Box::new(self.resume(&checkpoint)?)), transfer))
    }
}

fn transfer(target: &Target) -> Option<TransferId> {
    target.offer().map(|offer| offer.transfer)
}

/// Says how far it is on standard error.
fn say(what: impl std::fmt::Display) {
    // The other side's words are among it. Progress that nobody reads is no failure.
    let line = format!("exeunt: {}\n", crate::one_line(&what.to_string()));
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

fn receive(wire: Option<&mut Wire>, until: Instant) -> Input {
    wire.map_or(Input::Late, |wire| wire.receive(until))
}

fn done(result: Result<(), Failure>) -> Input {
    result.map_or_else(Input::Failed, |()| Input::Done)
}

/// An input as a line of progress has it.
fn outcome(input: &Input) -> String {
    match input {
        Input::Done => "done".into(),
        Input::Saved(offer) => format!("a snapshot of {} bytes", offer.bytes),
        Input::Failed(why) => why.clone(),
        Input::Message(Message::Data(bytes)) => format!("{} bytes", bytes.len()),
        Input::Message(message) => message.name().into(),
        Input::Broken(error) => error.to_string(),
        Input::Closed => "the other side closed the connection".into(),
        Input::Late => "the time is up".into(),
        Input::Decided(side) => format!("the VM is the {side}'s"),
        _ => String::new(),
    }
}
