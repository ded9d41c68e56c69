//! The side that has the VM.

use super::{Action, End, Input, Message, Offer, Record, Side, TransferId, Why, steps};

steps! {
    /// What a source waits for.
    SourceStep {
        /// The VM is paused, drained and saved.
        Saved = "saved",
        /// The record says that it owns the VM from the new checkpoint on.
        Owned = "owned",
        /// The guest's output up to the checkpoint is out.
        Released = "released",
        /// The record says that it offers the VM. From here on the arbiter decides.
        Offered = "offered",
        /// The offer is sent.
        OfferSent = "offer-sent",
        /// The target accepts or refuses.
        Accepted = "accepted",
        /// The snapshot is sent.
        DataSent = "data-sent",
        /// The target says what became of it.
        Taken = "taken",
        /// The arbiter says who owns the VM.
        Decided = "decided",
        /// The record says that the VM is the target's.
        Gave = "gave",
        /// The record says that the VM is the source's again.
        Kept = "kept",
    }
}

/// The source of a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    step: SourceStep,
    transfer: TransferId,
    patience_ns: u64,
    offer: Option<Offer>,
    /// Why the transfer did not go well, if it did not.
    why: Option<Why>,
}

impl Source {
    /// A transfer that nobody knows of yet. `patience_ns` is how long each message of the target may take.
    #[must_use]
    pub const fn begin(transfer: TransferId, patience_ns: u64) -> (Self, Action) {
        let step = SourceStep::Saved;
        (Self { step, transfer, patience_ns, offer: None, why: None }, Action::Save)
    }

    /// What it waits for.
    #[must_use]
    pub const fn step(&self) -> SourceStep {
        self.step
    }

    /// Why the transfer did not go well, as far as it is known by now.
    #[must_use]
    pub const fn why(&self) -> Option<&Why> {
        self.why.as_ref()
    }

    /// Takes in what has happened, and says what is next. `now_ns` is any clock that does not go back.
    #[must_use]
    pub fn handle(self, now_ns: u64, input: Input) -> (Self, Action) {
        match self.step {
            SourceStep::Saved | SourceStep::Owned | SourceStep::Released => self.prepare(input),
            SourceStep::Offered
            | SourceStep::OfferSent
            | SourceStep::Accepted
            | SourceStep::DataSent
            | SourceStep::Taken => self.transfer(now_ns, input),
            SourceStep::Decided | SourceStep::Gave | SourceStep::Kept => self.conclude(input),
        }
    }

    /// The VM has been offered to nobody: it is the source's whatever happens.
    fn prepare(mut self, input: Input) -> (Self, Action) {
        match (self.step, input) {
            (SourceStep::Saved, Input::Saved(offer)) if offer.transfer == self.transfer => {
                let checkpoint = offer.checkpoint;
                self.offer = Some(offer);
                self.to(SourceStep::Owned, Action::Record(Record::Owns { checkpoint }))
            }
            // Nothing was written over: the VM is there, and runs on.
            (SourceStep::Saved, Input::Failed(why)) => {
                self.why = Some(Why::Failed(why));
                self.to(SourceStep::Kept, Action::Run)
            }
            (SourceStep::Owned, Input::Done) => self.to(SourceStep::Released, Action::Release),
            (SourceStep::Released, Input::Done) => {
                let transfer = self.transfer;
                match self.offer.as_ref().map(|offer| offer.checkpoint) {
                    Some(checkpoint) => {
                        let record = Record::Offers { transfer, checkpoint };
                        self.to(SourceStep::Offered, Action::Record(record))
                    }
                    None => self.undecided(Input::Done),
                }
            }
            // The record or the log may have been written or not. A restart reads what is there.
            (_, input) => self.undecided(input),
        }
    }

    /// The VM may have been offered: whatever goes wrong, the arbiter is asked.
    fn transfer(mut self, now_ns: u64, input: Input) -> (Self, Action) {
        let until_ns = now_ns.saturating_add(self.patience_ns);
        match (self.step, input) {
            (SourceStep::Offered, Input::Done) => match self.offer.clone() {
                Some(offer) => self.to(SourceStep::OfferSent, Action::Send(Message::Offer(offer))),
                None => self.undecided(Input::Done),
            },
            (SourceStep::OfferSent, Input::Done) => self.to(SourceStep::Accepted, Action::Wait { until_ns }),
            (SourceStep::Accepted, Input::Message(Message::Accept)) => {
                self.to(SourceStep::DataSent, Action::SendData)
            }
            (SourceStep::DataSent, Input::Done) => self.to(SourceStep::Taken, Action::Wait { until_ns }),
            // It is believed only when the arbiter says so, too.
            (SourceStep::Taken, Input::Message(Message::Taken)) => self.decide(),
            (_, input) => {
                self.why = Some(Why::of(input));
                self.decide()
            }
        }
    }

    fn conclude(mut self, input: Input) -> (Self, Action) {
        let transfer = self.transfer;
        let checkpoint = self.offer.as_ref().map(|offer| offer.checkpoint);
        match (self.step, input, checkpoint) {
            (SourceStep::Decided, Input::Decided(Side::Target), _) => {
                self.to(SourceStep::Gave, Action::Record(Record::Gave { transfer }))
            }
            (SourceStep::Decided, Input::Decided(Side::Source), Some(checkpoint)) => {
                self.to(SourceStep::Kept, Action::Record(Record::Owns { checkpoint }))
            }
            // What came before does not matter: the VM is there, and runs.
            (SourceStep::Gave, Input::Done, _) => {
                self.why = None;
                (self, Action::Stop(End::Gave))
            }
            (SourceStep::Kept, Input::Done, _) => (self, Action::Run),
            (_, input, _) => self.undecided(input),
        }
    }

    fn decide(self) -> (Self, Action) {
        let ask = Action::Decide(self.transfer, Side::Source);
        self.to(SourceStep::Decided, ask)
    }

    fn undecided(mut self, input: Input) -> (Self, Action) {
        let why = Why::of(input);
        self.why = Some(why.clone());
        (self, Action::Stop(End::Undecided { why }))
    }

    fn to(mut self, step: SourceStep, action: Action) -> (Self, Action) {
        self.step = step;
        (self, action)
    }
}
