//! How a VM changes hands between two processes of which each can be killed at any instruction.
//!
//! [`Source`] and [`Target`] are the two sides as state machines that make no system call: they are told what has happened
//! and say what is to be done next, one thing at a time. An [`Arbiter`] says who owns the VM once it has been offered, a
//! [`Record`] is what a side remembers when it was killed, and [`recover`] says what it does then.
//!
//! `docs/migration.md` has the protocol, step by step.

mod message;
mod record;
mod source;
mod target;

pub use message::{Frames, MAX_DATA_BYTES, MAX_MESSAGE_BYTES, Message, MessageError, Offer, PROTOCOL};
pub use record::{Record, RecordError};
pub use source::{Source, SourceStep};
pub use target::{Target, TargetStep};

use crate::snapshot::Digest;
use std::fmt;

/// Which transfer: random, and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub [u8; 16]);

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One of the two that a transfer is between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who has the VM before.
    Source,
    /// Who is to have it.
    Target,
}

impl Side {
    /// The name in decisions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who both sides ask, and who gives both the same answer for ever.
pub trait Arbiter {
    /// Why there was no answer.
    type Error;

    /// Says who owns the VM after a transfer. The first call for a transfer records `me`, durably before it returns; every
    /// call returns what is recorded.
    ///
    /// # Errors
    ///
    /// Nothing is known then: the decision may have been recorded or not. Who asked does not run, and asks again.
    fn decide(&mut self, transfer: TransferId, me: Side) -> Result<Side, Self::Error>;
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Input {
    /// What was to be done is done.
    Done,
    /// The VM was saved, and this can be offered. The answer to [`Action::Save`].
    Saved(Offer),
    /// What was to be done could not be done.
    Failed(String),
    /// A message came.
    Message(Message),
    /// What came is no message.
    Broken(MessageError),
    /// The other side closed the socket, or the socket broke.
    Closed,
    /// The time of [`Action::Wait`] is up.
    Late,
    /// The arbiter's answer to [`Action::Decide`].
    Decided(Side),
}

/// What is to be done next. Its outcome is the next [`Input`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Pause and drain the VM, take a snapshot, and make it durable.
    Save,
    /// Replace the record durably.
    Record(Record),
    /// Let the guest's output out, up to the checkpoint that the record names.
    Release,
    /// Send a message.
    Send(Message),
    /// Send the snapshot's bytes as data.
    SendData,
    /// Wait for a message, until this time.
    Wait {
        /// By the clock of `now_ns`.
        until_ns: u64,
    },
    /// Ask whether a VM of this kind can be here.
    Check(Offer),
    /// Put bytes of the snapshot away. If they were the last, that is done; else wait for a message until this time.
    Keep {
        /// The bytes, which follow those before.
        bytes: Vec<u8>,
        /// How many are to follow.
        left_bytes: u64,
        /// By the clock of `now_ns`.
        until_ns: u64,
    },
    /// Read the snapshot that was put away, compare its digest, and build a VM of it that does not run.
    Build {
        /// What its digest has to be.
        checkpoint: Digest,
    },
    /// Make the snapshot durable under the name of its digest.
    Hold {
        /// The digest.
        checkpoint: Digest,
    },
    /// Ask the arbiter.
    Decide(TransferId, Side),
    /// Run the VM: it is this side's. The last action.
    Run,
    /// Do not run it. The last action.
    Stop(End),
}

/// How a transfer ended for a side that does not run the VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// The VM is the other side's.
    Gave,
    /// The target has taken nothing and asked for nothing: the source goes on.
    Nothing {
        /// Why.
        why: Why,
    },
    /// The arbiter gave the VM back to the source before the target asked.
    Dropped,
    /// Who owns the VM is not known here. The record says what to ask when this side is started again.
    Undecided {
        /// Why.
        why: Why,
    },
}

/// Why a transfer did not go on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// The other side refused, and said why.
    Refused(String),
    /// What the other side sent is no message.
    Broken(MessageError),
    /// A message came that does not belong here.
    Unexpected(&'static str),
    /// The socket was closed.
    Closed,
    /// It took too long.
    Late,
    /// Something failed on this side.
    Failed(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "the other side refused: {why}"),
            Self::Broken(error) => write!(f, "the other side sent what is no message: {error}"),
            Self::Unexpected(name) => write!(f, "{name} came where it does not belong"),
            Self::Closed => f.write_str("the other side closed the connection"),
            Self::Late => f.write_str("the other side took too long"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl Why {
    /// What an input that does not lead on says.
    fn of(input: Input) -> Self {
        match input {
            Input::Message(Message::Refuse(why) | Message::Dropped(why)) => Self::Refused(why),
            Input::Message(message) => Self::Unexpected(message.name()),
            Input::Broken(error) => Self::Broken(error),
            Input::Closed => Self::Closed,
            Input::Late => Self::Late,
            Input::Failed(why) => Self::Failed(why),
            Input::Done => Self::Unexpected("done"),
            Input::Saved(_) => Self::Unexpected("saved"),
            Input::Decided(_) => Self::Unexpected("decided"),
        }
    }
}

/// What a side that was killed does with its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It runs the VM from this checkpoint.
    Run {
        /// Its digest.
        checkpoint: Digest,
    },
    /// It asks the arbiter, and then replaces its record by one of two.
    Ask {
        /// Which transfer.
        transfer: TransferId,
        /// Which side it is.
        me: Side,
        /// The record if the VM is this side's.
        won: Record,
        /// The record if it is not.
        lost: Record,
    },
    /// It has no VM.
    Nothing,
}

/// Reads a record after a restart. `None` is a side without one.
#[must_use]
pub fn recover(record: Option<Record>) -> Recovery {
    match record {
        Some(Record::Owns { checkpoint }) => Recovery::Run { checkpoint },
        Some(Record::Offers { transfer, checkpoint }) => Recovery::Ask {
            transfer,
            me: Side::Source,
            won: Record::Owns { checkpoint },
            lost: Record::Gave { transfer },
        },
        Some(Record::Holds { transfer, checkpoint }) => Recovery::Ask {
            transfer,
            me: Side::Target,
            won: Record::Owns { checkpoint },
            lost: Record::Dropped { transfer },
        },
        Some(Record::Gave { .. } | Record::Dropped { .. }) | None => Recovery::Nothing,
    }
}

/// What a side waits for, by name: the states of its machine.
macro_rules! steps {
    ($(#[$about:meta])* $type:ident { $($(#[$what:meta])* $step:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $type { $($(#[$what])* $step,)* }

        impl $type {
            /// Every step, in the order in which a transfer that goes well comes to them.
            pub const ALL: &'static [Self] = &[$(Self::$step,)*];

            /// The name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$step => $name,)* }
            }

            /// The step with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|step| step.name() == name)
            }
        }
    };
}
use steps;

#[cfg(test)]
mod tests;
