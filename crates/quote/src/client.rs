//! One request to a service.

use crate::Address;
use crate::qgs::{FRAME_BYTES, HEAD_BYTES, QgsError, Request, Response, frame, frame_length};
use crate::stream::Stream;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why there is no quote.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GetQuoteError {
    /// The service cannot be reached.
    #[error("cannot reach the quoting service at {address}: {source}")]
    Connect {
        /// Where it should be.
        address: Address,
        /// The operating system's word.
        source: io::Error,
    },
    /// The connection broke, or the time was up.
    #[error("the connection to the quoting service broke: {0}")]
    Connection(#[from] io::Error),
    /// The frame of the answer is empty or too large.
    #[error("an answer of {bytes} bytes, {limit} are allowed")]
    Length {
        /// Bytes that the service announces.
        bytes: u32,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// A message has no meaning, or says that there is no quote.
    #[error("the quoting service: {0}")]
    Message(#[from] QgsError),
}

/// Asks the service at this address for a quote of a report. It has `time` for everything together, and the quote has
/// `room_bytes` at most.
///
/// # Errors
///
/// There is no quote, for one of the reasons.
pub fn get_quote(
    address: &Address,
    report: &[u8],
    room_bytes: usize,
    time: Duration,
) -> Result<Vec<u8>, GetQuoteError> {
    get_quote_on(address, report, room_bytes, time, |_| ())
}

/// As [`get_quote`], and tells of the socket when it is connected.
pub(crate) fn get_quote_on(
    address: &Address,
    report: &[u8],
    room_bytes: usize,
    time: Duration,
    connected: impl FnOnce(&Arc<OwnedFd>),
) -> Result<Vec<u8>, GetQuoteError> {
    let request = frame(&Request { report, id_list: &[] }.encode()?)?;
    let now = Instant::now();
    let stream = Stream::connect(address, now.checked_add(time).unwrap_or(now))
        .map_err(|source| GetQuoteError::Connect { address: address.clone(), source })?;
    connected(stream.socket());
    stream.write(&request)?;
    let mut length = [0; FRAME_BYTES];
    stream.read(&mut length)?;
    let bytes = frame_length(length);
    let limit = room_bytes.saturating_add(HEAD_BYTES);
    let mut message = match usize::try_from(bytes) {
        Ok(count) if count > 0 && count <= limit => vec![0; count],
        _ => return Err(GetQuoteError::Length { bytes, limit }),
    };
    stream.read(&mut message)?;
    Ok(Response::decode(&message)?.quote.to_vec())
}
