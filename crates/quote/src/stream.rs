//! A connection with an end: it gives up at one moment, however little by little the other side works.

use crate::Address;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, VsockAddr, bind, connect, listen, socket,
};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, accept_with, recv, send, shutdown};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// `VMADDR_CID_HOST`.
const CID_HOST: u32 = 2;
/// `VMADDR_CID_ANY`.
const CID_ANY: u32 = u32::MAX;

/// How long [`Listener::accept`] waits. The end of a listener that another thread waits for takes as long.
const ACCEPT_TIME: Duration = Duration::from_millis(100);

/// A connection and the moment of its end.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Arc<OwnedFd>,
    end: Instant,
}

impl Stream {
    /// Connects. To a vsock port this takes 2 seconds at most, whatever the end is: Linux's default.
    pub(crate) fn connect(address: &Address, end: Instant) -> Result<Self> {
        let stream = Self { socket: Arc::new(new_socket(address)?), end };
        // A Unix socket whose queue is full waits as long as a send would.
        stream.limit(Timeout::Send)?;
        let fd = stream.socket.as_raw_fd();
        match address {
            Address::Unix(path) => connect(fd, &UnixAddr::new(path)?),
            Address::Vsock { cid, port } => connect(fd, &VsockAddr::new(cid.unwrap_or(CID_HOST), *port)),
        }
        .map_err(|errno| timed_out(errno.into()))?;
        Ok(stream)
    }

    /// The socket, for [`hang_up`].
    pub(crate) fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// Reads until the buffer is full.
    pub(crate) fn read(&self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            self.limit(Timeout::Recv)?;
            match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((_, 0)) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok((_, count)) => buffer = buffer.get_mut(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(timed_out(errno.into())),
            }
        }
        Ok(())
    }

    /// Writes all of it. A reader that went away is an error, and no signal.
    pub(crate) fn write(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.limit(Timeout::Send)?;
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(timed_out(errno.into())),
            }
        }
        Ok(())
    }

    /// Lets the next call wait for what is left of the time, and no longer.
    fn limit(&self, which: Timeout) -> Result<()> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        // Zero would be for ever, and the kernel counts in microseconds.
        let left = left.max(Duration::from_millis(1));
        set_socket_timeout(&self.socket, which, Some(left)).map_err(Error::from)
    }
}

/// Ends what anybody does on the socket.
pub(crate) fn hang_up(socket: &OwnedFd) {
    // One that is not connected any more has ended already.
    let _ = shutdown(socket, Shutdown::Both);
}

/// A call that ran into its limit says `EAGAIN`.
fn timed_out(error: Error) -> Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

fn new_socket(address: &Address) -> Result<OwnedFd> {
    let family = match address {
        Address::Unix(_) => AddressFamily::Unix,
        Address::Vsock { .. } => AddressFamily::Vsock,
    };
    Ok(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// A socket that listens. The path of a Unix socket goes away with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    path: Option<PathBuf>,
}

impl Listener {
    pub(crate) fn new(address: &Address) -> Result<Self> {
        let socket = new_socket(address)?;
        let fd = socket.as_raw_fd();
        let path = match address {
            Address::Unix(path) => {
                bind(fd, &UnixAddr::new(path)?)?;
                Some(path.clone())
            }
            Address::Vsock { cid, port } => {
                bind(fd, &VsockAddr::new(cid.unwrap_or(CID_ANY), *port))?;
                None
            }
        };
        // From here on the path is ours to remove.
        let listener = Self { socket, path };
        set_socket_timeout(&listener.socket, Timeout::Recv, Some(ACCEPT_TIME))?;
        listen(&listener.socket, Backlog::MAXCONN)?;
        Ok(listener)
    }

    /// The next connection, which lasts for `time` at most. `None` if nobody comes for a while.
    pub(crate) fn accept(&self, time: Duration) -> Result<Option<Stream>> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC) {
            Ok(socket) => {
                let now = Instant::now();
                Ok(Some(Stream { socket: Arc::new(socket), end: now.checked_add(time).unwrap_or(now) }))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}
