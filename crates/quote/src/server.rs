//! A quote generation service for tests. It signs nothing.

use crate::qgs::{ERROR_UNEXPECTED, FRAME_BYTES, Request, Response, encode_failure, frame, frame_length};
use crate::simulated::simulated_quote;
use crate::stream::{Listener, Stream};
use crate::{Address, TIMEOUT};
use std::io::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The largest request that is read, in bytes.
const MAX_REQUEST_BYTES: u32 = 128 << 10;

/// How a service treats its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conduct {
    /// With a simulated quote.
    #[default]
    Answer,
    /// With a failure of this number.
    Fail(u32),
    /// With a frame around bytes that are no message.
    Garbage,
    /// With the first half of an answer.
    CloseEarly,
    /// With the announcement of 4 GiB.
    Oversize,
    /// With an answer that comes byte by byte, one every so often.
    Trickle(Duration),
}

/// What a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// A quote of so many bytes, for a report of so many.
    Quote {
        /// Bytes of the report.
        report_bytes: usize,
        /// Bytes of the quote.
        quote_bytes: usize,
    },
    /// A failure with this number, because the conduct says so or because the request made no sense.
    Failure(u32),
    /// Something else that the conduct says.
    Misbehaved,
}

/// A service that listens.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    is_closed: AtomicBool,
    conduct: Conduct,
    delay: Duration,
}

impl Server {
    /// Listens. Each answer comes after `delay`.
    ///
    /// # Errors
    ///
    /// The address cannot be listened at.
    pub fn new(address: &Address, conduct: Conduct, delay: Duration) -> Result<Self> {
        Ok(Self { listener: Listener::new(address)?, is_closed: AtomicBool::new(false), conduct, delay })
    }

    /// Serves one client after the other until [`Server::close`], and tells what became of each. Several threads may serve
    /// at the same time.
    pub fn serve(&self, mut told: impl FnMut(Result<Served>)) {
        while !self.is_closed.load(Ordering::Acquire) {
            match self.listener.accept(TIMEOUT) {
                Ok(Some(stream)) => told(self.serve_one(&stream)),
                Ok(None) => {}
                Err(error) => {
                    told(Err(error));
                    // What is wrong with the listener, descriptors that ran out for one, is not mended by haste.
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    /// Ends [`Server::serve`] on every thread, within a fraction of a second.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    fn serve_one(&self, stream: &Stream) -> Result<Served> {
        let mut length = [0; FRAME_BYTES];
        stream.read(&mut length)?;
        let length = frame_length(length);
        if length > MAX_REQUEST_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; usize::try_from(length).unwrap_or(0)];
        stream.read(&mut message)?;
        thread::sleep(self.delay);
        self.answer(stream, &message)
    }

    fn answer(&self, stream: &Stream, message: &[u8]) -> Result<Served> {
        let Ok(request) = Request::decode(message) else {
            return fail(stream, ERROR_UNEXPECTED);
        };
        let quote = simulated_quote(request.report);
        let response =
            Response { selected_id: &[], quote: &quote }.encode().and_then(|message| frame(&message));
        let response = response.map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
        match self.conduct {
            Conduct::Answer => {
                stream.write(&response)?;
                return Ok(Served::Quote { report_bytes: request.report.len(), quote_bytes: quote.len() });
            }
            Conduct::Fail(code) => return fail(stream, code),
            Conduct::Garbage => stream.write(&[[0, 0, 0, 60].as_slice(), &[0x5a; 60]].concat())?,
            Conduct::CloseEarly => stream.write(response.get(..response.len() / 2).unwrap_or_default())?,
            Conduct::Oversize => stream.write(&[0xff; 64])?,
            Conduct::Trickle(pause) => {
                for byte in response.chunks(1) {
                    stream.write(byte)?;
                    thread::sleep(pause);
                }
            }
        }
        Ok(Served::Misbehaved)
    }
}

fn fail(stream: &Stream, code: u32) -> Result<Served> {
    let answer = frame(&encode_failure(code)).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
    stream.write(&answer)?;
    Ok(Served::Failure(code))
}
