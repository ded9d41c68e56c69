//! What the two sides say to each other.

use super::TransferId;
use crate::snapshot::section::{self, Need, Origin};
use crate::snapshot::{Digest, FormatError};
use std::collections::VecDeque;
use thiserror::Error;

/// The protocol that is spoken. Another number is refused.
pub const PROTOCOL: u32 = 1;
/// The longest message, in bytes without its head.
pub const MAX_MESSAGE_BYTES: u32 = 1 << 20;
/// The most data of one message.
pub const MAX_DATA_BYTES: usize = 1 << 16;
/// The longest text that is sent; what is longer is cut.
const MAX_TEXT_BYTES: usize = 1024;
/// Kind and length.
const HEAD_BYTES: usize = 5;

/// A VM that can be had, and what it asks of who takes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// Which transfer.
    pub transfer: TransferId,
    /// The digest of the snapshot.
    pub checkpoint: Digest,
    /// The length of the snapshot in bytes.
    pub bytes: u64,
    /// The payload of its section `origin`.
    pub origin: Vec<u8>,
    /// The payload of its section `needs`.
    pub needs: Vec<u8>,
}

impl Offer {
    /// What the two payloads say.
    ///
    /// # Errors
    ///
    /// They say nothing.
    pub fn read(&self) -> Result<(Origin, Vec<Need>), FormatError> {
        section::read_head(&self.origin, &self.needs)
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Message {
    /// From the source: what there is.
    Offer(Offer),
    /// From the target: send it.
    Accept,
    /// From the target: not here, for this reason.
    Refuse(String),
    /// From the source: the next bytes of the snapshot.
    Data(Vec<u8>),
    /// From the target: the VM is mine.
    Taken,
    /// From the target: the VM is yours, for this reason.
    Dropped(String),
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A kind that does not exist.
    #[error("there is no message of kind {kind}")]
    UnknownKind {
        /// The kind.
        kind: u8,
    },
    /// Longer than any message.
    #[error("a message of kind {kind} says that it has {bytes} bytes")]
    TooLong {
        /// The kind.
        kind: u8,
        /// What it says.
        bytes: u32,
    },
    /// The bytes inside have no meaning.
    #[error("a message of kind {kind} is malformed")]
    Malformed {
        /// The kind.
        kind: u8,
    },
    /// Another protocol.
    #[error("the source speaks protocol {protocol}, and not {PROTOCOL}")]
    Protocol {
        /// Its number.
        protocol: u32,
    },
    /// The socket was closed in the middle of a message.
    #[error("the connection ended in the middle of a message")]
    CutOff,
}

impl Message {
    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Offer(_) => "offer",
            Self::Accept => "accept",
            Self::Refuse(_) => "refuse",
            Self::Data(_) => "data",
            Self::Taken => "taken",
            Self::Dropped(_) => "dropped",
        }
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Offer(_) => 1,
            Self::Accept => 2,
            Self::Refuse(_) => 3,
            Self::Data(_) => 4,
            Self::Taken => 5,
            Self::Dropped(_) => 6,
        }
    }

    /// Its bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        match self {
            Self::Offer(offer) => {
                payload.extend(PROTOCOL.to_le_bytes());
                payload.extend(offer.transfer.0);
                payload.extend(offer.checkpoint);
                payload.extend(offer.bytes.to_le_bytes());
                for part in [&offer.origin, &offer.needs] {
                    payload.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
                    payload.extend(part);
                }
            }
            Self::Refuse(text) | Self::Dropped(text) => {
                let cut = (0..=MAX_TEXT_BYTES).rev().find_map(|length| text.get(..length));
                payload.extend(cut.filter(|cut| cut.len() < text.len()).unwrap_or(text).bytes());
            }
            Self::Data(bytes) => payload.extend(bytes),
            Self::Accept | Self::Taken => {}
        }
        let mut bytes = vec![self.kind()];
        bytes.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(payload);
        bytes
    }

    fn from_payload(kind: u8, payload: &[u8]) -> Result<Self, MessageError> {
        let malformed = MessageError::Malformed { kind };
        let text = || {
            let text = std::str::from_utf8(payload).ok().filter(|text| text.len() <= MAX_TEXT_BYTES);
            text.map(ToOwned::to_owned).ok_or(malformed)
        };
        match kind {
            1 => offer(payload),
            2 if payload.is_empty() => Ok(Self::Accept),
            3 => text().map(Self::Refuse),
            4 if !payload.is_empty() && payload.len() <= MAX_DATA_BYTES => Ok(Self::Data(payload.to_vec())),
            5 if payload.is_empty() => Ok(Self::Taken),
            6 => text().map(Self::Dropped),
            2 | 4 | 5 => Err(malformed),
            kind => Err(MessageError::UnknownKind { kind }),
        }
    }
}

fn offer(payload: &[u8]) -> Result<Message, MessageError> {
    let malformed = MessageError::Malformed { kind: 1 };
    let (protocol, rest) = payload.split_first_chunk().ok_or(malformed)?;
    let protocol = u32::from_le_bytes(*protocol);
    if protocol != PROTOCOL {
        return Err(MessageError::Protocol { protocol });
    }
    let (transfer, rest) = rest.split_first_chunk().ok_or(malformed)?;
    let (checkpoint, rest) = rest.split_first_chunk().ok_or(malformed)?;
    let (bytes, rest) = rest.split_first_chunk().ok_or(malformed)?;
    let (origin, rest) = part(rest).ok_or(malformed)?;
    let (needs, rest) = part(rest).ok_or(malformed)?;
    if !rest.is_empty() {
        return Err(malformed);
    }
    Ok(Message::Offer(Offer {
        transfer: TransferId(*transfer),
        checkpoint: *checkpoint,
        bytes: u64::from_le_bytes(*bytes),
        origin: origin.to_vec(),
        needs: needs.to_vec(),
    }))
}

fn part(from: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = from.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// Messages out of a stream of bytes. It holds one message that is not complete, and no more.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    bytes: VecDeque<u8>,
}

impl Frames {
    /// How many bytes it can use now: what completes a head or a message. Ask for no more at a time.
    ///
    /// # Errors
    ///
    /// What is there is the head of no message.
    pub fn wants(&self) -> Result<usize, MessageError> {
        let end = match self.head()? {
            None => HEAD_BYTES,
            Some((_, length)) => HEAD_BYTES.saturating_add(length),
        };
        Ok(end.saturating_sub(self.bytes.len()))
    }

    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The next message, if it is complete.
    ///
    /// # Errors
    ///
    /// What is there is no message. Nothing that follows has a meaning.
    pub fn pop(&mut self) -> Result<Option<Message>, MessageError> {
        let Some((kind, length)) = self.head()? else { return Ok(None) };
        let end = HEAD_BYTES.saturating_add(length);
        if self.bytes.len() < end {
            return Ok(None);
        }
        let payload: Vec<u8> = self.bytes.drain(..end).skip(HEAD_BYTES).collect();
        Message::from_payload(kind, &payload).map(Some)
    }

    /// The stream has ended.
    ///
    /// # Errors
    ///
    /// It ended in the middle of a message.
    pub fn finish(&self) -> Result<(), MessageError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(MessageError::CutOff) }
    }

    fn head(&self) -> Result<Option<(u8, usize)>, MessageError> {
        let mut bytes = self.bytes.iter().copied();
        let Some(kind) = bytes.next() else { return Ok(None) };
        if !(1..=6).contains(&kind) {
            return Err(MessageError::UnknownKind { kind });
        }
        let (Some(a), Some(b), Some(c), Some(d)) = (bytes.next(), bytes.next(), bytes.next(), bytes.next())
        else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([a, b, c, d]);
        if length > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLong { kind, bytes: length });
        }
        Ok(Some((kind, usize::try_from(length).unwrap_or(usize::MAX))))
    }
}

#[cfg(test)]
mod tests;
