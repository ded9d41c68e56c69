//! The socket between the two sides: a path, or a host and a port.

use crate::Failure;
use exeunt::migrate::{Frames, Input, Message};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// How long to wait before a side that is not there yet is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// Either kind of socket.
trait Socket: Read + Write {
    fn set_timeouts(&self, timeout: Duration) -> std::io::Result<()>;
}

impl Socket for TcpStream {
    fn set_timeouts(&self, timeout: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(timeout)).and_then(|()| self.set_write_timeout(Some(timeout)))
    }
}

impl Socket for UnixStream {
    fn set_timeouts(&self, timeout: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(timeout)).and_then(|()| self.set_write_timeout(Some(timeout)))
    }
}

/// A connection, and what has come of the next message.
pub(super) struct Wire {
    socket: Box<dyn Socket>,
    frames: Frames,
}

impl Wire {
    fn new(socket: Box<dyn Socket>) -> Self {
        Self { socket, frames: Frames::default() }
    }

    /// Connects to an address, until a time. A side that does not listen yet is waited for.
    pub(super) fn connect(address: &str, until: Instant) -> Result<Self, Failure> {
        loop {
            let connected: std::io::Result<Box<dyn Socket>> = if is_path(address) {
                UnixStream::connect(address).map(|socket| Box::new(socket) as Box<dyn Socket>)
            } else {
                connect_tcp(address, until).map(|socket| Box::new(socket) as Box<dyn Socket>)
            };
            match connected {
                Ok(socket) => return Ok(Self::new(socket)),
                Err(_) if Instant::now() < until => std::thread::sleep(RETRY),
                Err(error) => return Err(format!("cannot connect to {address}: {error}")),
            }
        }
    }

    /// Sends a message, until a time: also who reads byte by byte is late then.
    pub(super) fn send(&mut self, message: &Message, until: Instant) -> Input {
        let bytes = message.to_bytes();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            if Instant::now() >= until || self.socket.set_timeouts(left(until)).is_err() {
                return Input::Late;
            }
            match self.socket.write(rest) {
                Ok(0) => return Input::Closed,
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_late(&error) => return Input::Late,
                Err(_) => return Input::Closed,
            }
        }
        Input::Done
    }

    /// Waits for a message, until a time.
    pub(super) fn receive(&mut self, until: Instant) -> Input {
        let mut bytes = vec![0; 1 << 16];
        loop {
            let wants = match self.frames.pop().and_then(|message| match message {
                Some(message) => Ok(Err(message)),
                None => self.frames.wants().map(Ok),
            }) {
                Ok(Ok(wants)) => wants.min(bytes.len()),
                Ok(Err(message)) => return Input::Message(message),
                Err(error) => return Input::Broken(error),
            };
            if Instant::now() >= until || self.socket.set_timeouts(left(until)).is_err() {
                return Input::Late;
            }
            let to = bytes.get_mut(..wants).unwrap_or_default();
            match self.socket.read(to) {
                Ok(0) => return self.frames.finish().map_or_else(Input::Broken, |()| Input::Closed),
                Ok(count) => self.frames.push(to.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_late(&error) => return Input::Late,
                Err(_) => return Input::Closed,
            }
        }
    }
}

/// Someone who waits to be connected to.
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens. A socket file that a killed process left behind is removed.
    pub(super) fn bind(address: &str) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| format!("cannot listen on {address}: {error}");
        if !is_path(address) {
            let listener = TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            return Ok(Self::Tcp(listener));
        }
        if std::fs::metadata(address).is_ok_and(|it| it.file_type().is_socket()) {
            std::fs::remove_file(address).map_err(failed)?;
        }
        let listener = UnixListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self::Unix(listener))
    }

    /// The address to connect to, for a port that the system chose.
    pub(super) fn address(&self) -> Option<String> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.to_string()),
            Self::Unix(_) => None,
        }
    }

    /// Waits for the other side, until a time.
    pub(super) fn accept(&self, until: Instant) -> Option<Wire> {
        loop {
            let accepted: std::io::Result<Box<dyn Socket>> = match self {
                Self::Unix(listener) => listener
                    .accept()
                    .and_then(|(socket, _)| socket.set_nonblocking(false).map(|()| Box::new(socket) as _)),
                Self::Tcp(listener) => listener
                    .accept()
                    .and_then(|(socket, _)| socket.set_nonblocking(false).map(|()| Box::new(socket) as _)),
            };
            match accepted {
                Ok(socket) => return Some(Wire::new(socket)),
                Err(_) if Instant::now() < until => std::thread::sleep(RETRY),
                Err(_) => return None,
            }
        }
    }
}

/// Tries each address of a host, none for longer than there is time.
fn connect_tcp(address: &str, until: Instant) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(ErrorKind::NotFound, "the host has no address");
    for one in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&one, left(until)) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn is_path(address: &str) -> bool {
    address.contains('/')
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// What is left until a time; never 0, which would mean for ever.
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}
