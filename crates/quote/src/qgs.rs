//! Messages of Intel's quote generation service: bytes in, meaning out, and back.
//!
//! Source: intel/SGXDataCenterAttestationPrimitives, `QuoteGeneration/quote_wrapper/qgs_msg_lib/inc/qgs_msg_lib.h`; the
//! frame around a message: `QuoteGeneration/quote_wrapper/qgs/qgs_server.cpp`, `encode_header`. Numbers are
//! little-endian, the length of the frame is big-endian.

use thiserror::Error;

/// Bytes of the length before each message.
pub const FRAME_BYTES: usize = 4;

/// Bytes of a message before the report or the quote.
pub const HEAD_BYTES: usize = 24;

/// Bytes that each message begins with: version, type, size and error.
const HEADER_BYTES: usize = 16;

/// The version of the messages, and the one that is asked for. Services of version 1.0 answer with theirs; the messages
/// are the same, so the minor version of what comes is not looked at.
const VERSION: [u16; 2] = [1, 1];

/// `GET_QUOTE_REQ`.
const GET_QUOTE_REQ: u32 = 0;
/// `GET_QUOTE_RESP`.
const GET_QUOTE_RESP: u32 = 1;

/// `QGS_MSG_ERROR_UNEXPECTED`: what a service says that cannot say more.
pub const ERROR_UNEXPECTED: u32 = 0x1_2001;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QgsError {
    /// It ends before its lengths do.
    #[error("a message of {bytes} bytes is too short")]
    Short {
        /// Bytes that there are.
        bytes: usize,
    },
    /// The major version is not 1.
    #[error("a message of version {major}, expected 1")]
    Version {
        /// The version.
        major: u16,
    },
    /// Another type of message than this place is for.
    #[error("a message of type {number}, expected {expected}")]
    Type {
        /// The type.
        number: u32,
        /// The type that fits here.
        expected: u32,
    },
    /// The size in the message is not its size.
    #[error("a message of {bytes} bytes says that it has {stated}")]
    Size {
        /// Bytes that it says.
        stated: u32,
        /// Bytes that there are.
        bytes: usize,
    },
    /// The service made no quote. Numbers are the service's own.
    #[error("the service failed with {code:#x}")]
    Service {
        /// `error_code`.
        code: u32,
    },
    /// The two parts do not add up to the message.
    #[error("parts of {first} and {second} bytes in a message for {room}")]
    Parts {
        /// Bytes of the first, as stated.
        first: u32,
        /// Bytes of the second, as stated.
        second: u32,
        /// Bytes that there are for both.
        room: usize,
    },
    /// There is no report, or no quote.
    #[error("a message with nothing in it")]
    Empty,
    /// The parts are too long to be sent.
    #[error("{bytes} bytes are too long for a message")]
    Long {
        /// Bytes of the message.
        bytes: usize,
    },
}

/// `qgs_msg_get_quote_req_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The TD's report. Never empty.
    pub report: &'a [u8],
    /// Identities of quoting enclaves to choose from; empty for whichever there is.
    pub id_list: &'a [u8],
}

/// `qgs_msg_get_quote_resp_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The identity that was chosen; empty if there was nothing to choose from.
    pub selected_id: &'a [u8],
    /// The quote. Never empty.
    pub quote: &'a [u8],
}

impl<'a> Request<'a> {
    /// The message.
    ///
    /// # Errors
    ///
    /// [`QgsError::Empty`] without a report, [`QgsError::Long`] above 4 GiB.
    pub fn encode(&self) -> Result<Vec<u8>, QgsError> {
        if self.report.is_empty() {
            return Err(QgsError::Empty);
        }
        encode(GET_QUOTE_REQ, self.report, self.id_list)
    }

    /// What a message means.
    ///
    /// # Errors
    ///
    /// The first check that fails.
    pub fn decode(message: &'a [u8]) -> Result<Self, QgsError> {
        // Only an answer has an error.
        let (_, body) = decode_header(message, GET_QUOTE_REQ)?;
        let (report, id_list) = decode_parts(message, body)?;
        if report.is_empty() { Err(QgsError::Empty) } else { Ok(Self { report, id_list }) }
    }
}

impl<'a> Response<'a> {
    /// The message.
    ///
    /// # Errors
    ///
    /// [`QgsError::Empty`] without a quote, [`QgsError::Long`] above 4 GiB.
    pub fn encode(&self) -> Result<Vec<u8>, QgsError> {
        if self.quote.is_empty() {
            return Err(QgsError::Empty);
        }
        encode(GET_QUOTE_RESP, self.selected_id, self.quote)
    }

    /// What a message means. An answer that says that there is no quote is an error, however much of it there is.
    ///
    /// # Errors
    ///
    /// The first check that fails.
    pub fn decode(message: &'a [u8]) -> Result<Self, QgsError> {
        let (error_code, body) = decode_header(message, GET_QUOTE_RESP)?;
        if error_code != 0 {
            return Err(QgsError::Service { code: error_code });
        }
        let (selected_id, quote) = decode_parts(message, body)?;
        if quote.is_empty() { Err(QgsError::Empty) } else { Ok(Self { selected_id, quote }) }
    }
}

/// The answer of a service that makes no quote: a header and nothing else.
#[must_use]
pub fn encode_failure(code: u32) -> [u8; HEADER_BYTES] {
    header(GET_QUOTE_RESP, 16, code)
}

/// A message in its frame.
///
/// # Errors
///
/// [`QgsError::Long`] above 4 GiB.
pub fn frame(message: &[u8]) -> Result<Vec<u8>, QgsError> {
    let bytes = message.len();
    let length = u32::try_from(bytes).map_err(|_| QgsError::Long { bytes })?;
    Ok([length.to_be_bytes().as_slice(), message].concat())
}

/// Bytes of the message that follows.
#[must_use]
pub const fn frame_length(frame: [u8; FRAME_BYTES]) -> u32 {
    u32::from_be_bytes(frame)
}

fn encode(kind: u32, first: &[u8], second: &[u8]) -> Result<Vec<u8>, QgsError> {
    let bytes = HEAD_BYTES.saturating_add(first.len()).saturating_add(second.len());
    let length = |bytes: usize| u32::try_from(bytes).map_err(|_| QgsError::Long { bytes });
    let size = length(bytes)?;
    let lengths = [length(first.len())?.to_le_bytes(), length(second.len())?.to_le_bytes()];
    Ok([&header(kind, size, 0), lengths.as_flattened(), first, second].concat())
}

fn header(kind: u32, size: u32, error_code: u32) -> [u8; HEADER_BYTES] {
    let [[v0, v1], [v2, v3]] = VERSION.map(u16::to_le_bytes);
    let [k0, k1, k2, k3] = kind.to_le_bytes();
    let [s0, s1, s2, s3] = size.to_le_bytes();
    let [e0, e1, e2, e3] = error_code.to_le_bytes();
    [v0, v1, v2, v3, k0, k1, k2, k3, s0, s1, s2, s3, e0, e1, e2, e3]
}

/// The error that the header states, and what follows the header.
fn decode_header(message: &[u8], expected: u32) -> Result<(u32, &[u8]), QgsError> {
    let bytes = message.len();
    let short = QgsError::Short { bytes };
    let (version, rest) = word(message).ok_or(short)?;
    let [low, high, ..] = version.to_le_bytes();
    let major = u16::from_le_bytes([low, high]);
    let (number, rest) = word(rest).ok_or(short)?;
    let (stated, rest) = word(rest).ok_or(short)?;
    let (error_code, body) = word(rest).ok_or(short)?;
    match (major, number) {
        (major, _) if major != VERSION[0] => Err(QgsError::Version { major }),
        (_, number) if number != expected => Err(QgsError::Type { number, expected }),
        _ if stated as usize != bytes => Err(QgsError::Size { stated, bytes }),
        _ => Ok((error_code, body)),
    }
}

/// The two parts of a message, which fill it.
fn decode_parts<'a>(message: &[u8], body: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), QgsError> {
    let short = QgsError::Short { bytes: message.len() };
    let (first, rest) = word(body).ok_or(short)?;
    let (second, rest) = word(rest).ok_or(short)?;
    let parts = rest.split_at_checked(first as usize).filter(|(_, rest)| rest.len() == second as usize);
    parts.ok_or(QgsError::Parts { first, second, room: rest.len() })
}

/// The next number.
fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*word), rest))
}

#[cfg(test)]
mod tests;
