//! The side that is to have the VM.

use super::{Action, End, Input, MAX_DATA_BYTES, Message, Offer, Record, Side, Why, steps};

steps! {
    /// What a target waits for.
    TargetStep {
        /// A source offers a VM.
        Offer = "offer",
        /// It is known whether such a VM can be here.
        Checked = "checked",
        /// The offer is accepted.
        AcceptSent = "accept-sent",
        /// The next bytes of the snapshot.
        Data = "data",
        /// A VM is built of the snapshot.
        Built = "built",
        /// The snapshot is durable.
        Held = "held",
        /// The record says that the snapshot is held. From here on the arbiter decides.
        Holds = "holds",
        /// The arbiter says who owns the VM.
        Decided = "decided",
        /// The record says that the VM is the target's.
        Owned = "owned",
        /// The source is told.
        TakenSent = "taken-sent",
        /// The guest's output up to the checkpoint is out.
        Released = "released",
        /// The record says that the VM stayed with the source.
        Dropped = "dropped",
        /// The source is told that it keeps the VM.
        DroppedSent = "dropped-sent",
        /// The source is told that the VM cannot be here.
        RefusalSent = "refusal-sent",
    }
}

/// The target of a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    step: TargetStep,
    patience_ns: u64,
    max_bytes: u64,
    offer: Option<Offer>,
    /// Bytes of the snapshot that have not come.
    left_bytes: u64,
    why: Option<Why>,
}

impl Target {
    /// A target that waits for an offer. `patience_ns` is how long each message of the source may take, `max_bytes` how long
    /// a snapshot may be.
    #[must_use]
    pub const fn begin(now_ns: u64, patience_ns: u64, max_bytes: u64) -> (Self, Action) {
        let until_ns = now_ns.saturating_add(patience_ns);
        let step = TargetStep::Offer;
        let target = Self { step, patience_ns, max_bytes, offer: None, left_bytes: 0, why: None };
        (target, Action::Wait { until_ns })
    }

    /// What it waits for.
    #[must_use]
    pub const fn step(&self) -> TargetStep {
        self.step
    }

    /// The offer, once there is one.
    #[must_use]
    pub const fn offer(&self) -> Option<&Offer> {
        self.offer.as_ref()
    }

    /// Takes in what has happened, and says what is next. `now_ns` is any clock that does not go back.
    #[must_use]
    pub fn handle(self, now_ns: u64, input: Input) -> (Self, Action) {
        match self.step {
            TargetStep::Offer
            | TargetStep::Checked
            | TargetStep::AcceptSent
            | TargetStep::Data
            | TargetStep::Built
            | TargetStep::RefusalSent => self.receive(now_ns, input),
            TargetStep::Held | TargetStep::Holds | TargetStep::Decided => self.claim(input),
            TargetStep::Owned
            | TargetStep::TakenSent
            | TargetStep::Released
            | TargetStep::Dropped
            | TargetStep::DroppedSent => self.conclude(input),
        }
    }

    /// Nothing is durable: whatever goes wrong leaves nothing behind.
    fn receive(mut self, now_ns: u64, input: Input) -> (Self, Action) {
        let until_ns = now_ns.saturating_add(self.patience_ns);
        match (self.step, input) {
            (TargetStep::Offer, Input::Message(Message::Offer(offer))) => {
                if offer.bytes == 0 || offer.bytes > self.max_bytes {
                    let why =
                        format!("a snapshot of {} bytes, and at most {} fit", offer.bytes, self.max_bytes);
                    return self.refuse(why);
                }
                self.left_bytes = offer.bytes;
                self.offer = Some(offer.clone());
                self.to(TargetStep::Checked, Action::Check(offer))
            }
            (TargetStep::Checked, Input::Done) => {
                self.to(TargetStep::AcceptSent, Action::Send(Message::Accept))
            }
            (TargetStep::AcceptSent, Input::Done) => self.to(TargetStep::Data, Action::Wait { until_ns }),
            (TargetStep::Data, Input::Message(Message::Data(bytes))) => self.keep(bytes, until_ns),
            // The bytes before were put away, and there are no more.
            (TargetStep::Data, Input::Done) if self.left_bytes == 0 => {
                match self.offer.as_ref().map(|offer| offer.checkpoint) {
                    Some(checkpoint) => self.to(TargetStep::Built, Action::Build { checkpoint }),
                    None => self.nothing(Input::Done),
                }
            }
            (TargetStep::Built, Input::Done) => match self.offer.as_ref().map(|offer| offer.checkpoint) {
                Some(checkpoint) => self.to(TargetStep::Held, Action::Hold { checkpoint }),
                None => self.nothing(Input::Done),
            },
            // The source waits for an answer. One that has gone is not told.
            (TargetStep::Checked | TargetStep::Data | TargetStep::Built, Input::Failed(why)) => {
                self.refuse(why)
            }
            (TargetStep::RefusalSent, _) => {
                let why = self.why.take().unwrap_or(Why::Closed);
                (self, Action::Stop(End::Nothing { why }))
            }
            (_, input) => self.nothing(input),
        }
    }

    fn keep(mut self, bytes: Vec<u8>, until_ns: u64) -> (Self, Action) {
        match self.left_bytes.checked_sub(bytes.len() as u64) {
            Some(left_bytes) if bytes.len() <= MAX_DATA_BYTES => {
                self.left_bytes = left_bytes;
                (self, Action::Keep { bytes, left_bytes, until_ns })
            }
            _ => self.refuse("more bytes than were offered".to_owned()),
        }
    }

    /// The snapshot is complete here: whoever is asked later can answer with this side.
    fn claim(mut self, input: Input) -> (Self, Action) {
        let Some(Offer { transfer, checkpoint, .. }) = self.offer.clone() else {
            return self.undecided(input);
        };
        match (self.step, input) {
            (TargetStep::Held, Input::Done) => {
                self.to(TargetStep::Holds, Action::Record(Record::Holds { transfer, checkpoint }))
            }
            // A snapshot without a record is nothing.
            (TargetStep::Held, Input::Failed(why)) => self.refuse(why),
            (TargetStep::Holds, Input::Done) => {
                self.to(TargetStep::Decided, Action::Decide(transfer, Side::Target))
            }
            (TargetStep::Decided, Input::Decided(Side::Target)) => {
                self.to(TargetStep::Owned, Action::Record(Record::Owns { checkpoint }))
            }
            (TargetStep::Decided, Input::Decided(Side::Source)) => {
                self.why = Some(Why::Late);
                self.to(TargetStep::Dropped, Action::Record(Record::Dropped { transfer }))
            }
            (_, input) => self.undecided(input),
        }
    }

    fn conclude(self, input: Input) -> (Self, Action) {
        match (self.step, input) {
            (TargetStep::Owned, Input::Done) => self.to(TargetStep::TakenSent, Action::Send(Message::Taken)),
            // A source that is not there finds out from the arbiter.
            (TargetStep::TakenSent, _) => self.to(TargetStep::Released, Action::Release),
            (TargetStep::Released, Input::Done) => (self, Action::Run),
            (TargetStep::Dropped, Input::Done) => {
                let message = Message::Dropped("the source took the VM back".to_owned());
                self.to(TargetStep::DroppedSent, Action::Send(message))
            }
            (TargetStep::DroppedSent, _) => (self, Action::Stop(End::Dropped)),
            (_, input) => self.undecided(input),
        }
    }

    fn refuse(mut self, why: String) -> (Self, Action) {
        self.why = Some(Why::Failed(why.clone()));
        self.to(TargetStep::RefusalSent, Action::Send(Message::Refuse(why)))
    }

    fn nothing(self, input: Input) -> (Self, Action) {
        let why = Why::of(input);
        (self, Action::Stop(End::Nothing { why }))
    }

    fn undecided(self, input: Input) -> (Self, Action) {
        let why = Why::of(input);
        (self, Action::Stop(End::Undecided { why }))
    }

    fn to(mut self, step: TargetStep, action: Action) -> (Self, Action) {
        self.step = step;
        (self, action)
    }
}
