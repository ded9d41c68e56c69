//! The VMM, what it has started, and their keeper, as exeunt sees them.

use super::error::{LaunchError, Step};
use super::keeper::{KILL, TERMINATE, Wire, Word};
use super::spawn_unsafe::{FAILED, LISTENER, Order, spawn};
use super::stray;
use crate::notify::Filter;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
    recv, recvmsg, send, socketpair,
};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Exited(i32),
    Killed(i32),
}

impl Status {
    /// From the number that `wait` gives.
    const fn from_raw(raw: i32) -> Self {
        match raw & 0x7f {
            0 => Self::Exited(raw >> 8 & 0xff),
            signal => Self::Killed(signal),
        }
    }
}

/// What is started.
pub(super) struct Start<'a> {
    pub(super) path: &'a Path,
    pub(super) command: &'a [OsString],
    pub(super) env: &'a [(OsString, OsString)],
    pub(super) directory: Option<&'a Path>,
    pub(super) output: BorrowedFd<'a>,
    pub(super) filter: Option<&'a Filter>,
    /// The value of a variable that all processes of the run and no others have.
    pub(super) mark: &'a str,
}

/// All processes of a run. When it is dropped, they are gone.
#[derive(Debug)]
pub(super) struct Family {
    keeper: Pid,
    socket: OwnedFd,
    first: Option<i32>,
    ended: Vec<(i32, Status)>,
    state: State,
    mark: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Alive,
    /// The keeper said that nobody is left.
    Alone,
    /// The keeper went without a word.
    Orphaned,
    /// All are gone, the keeper too.
    Gone,
}

/// How many ends of processes are remembered, besides that of the first.
const MAX_ENDED: usize = 1024;

impl Family {
    /// Starts the VMM. Returns when it has been executed, with the listener if there is a filter.
    pub(super) fn start(start: &Start<'_>) -> Result<(Self, Option<OwnedFd>), LaunchError> {
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
        let input = null.map_err(|error| system("open of /dev/null", error))?;
        let (socket, of_keeper) = pair()?;
        let (status, of_child) = pair()?;
        let environment = start.env.iter().map(|(name, value)| {
            let mut pair = name.clone();
            pair.push("=");
            pair.push(value);
            pair
        });
        let order = Order {
            path: text("the path", start.path.as_os_str())?,
            argv: start.command.iter().map(|word| text("the command", word)).collect::<Result<_, _>>()?,
            env: environment.map(|pair| text("the environment", &pair)).collect::<Result<_, _>>()?,
            directory: start.directory.map(|path| text("the directory", path.as_os_str())).transpose()?,
            input: input.as_fd(),
            output: start.output,
            status: of_child.as_fd(),
            socket: of_keeper.as_fd(),
            filter: start.filter,
        };
        let keeper = spawn(&order).map_err(|source| LaunchError::System { what: "fork", source })?;
        drop(of_keeper);
        drop(of_child);
        let mark = start.mark.to_owned();
        // If there is no VMM, dropping this takes the keeper away.
        let family = Self { keeper, socket, first: None, ended: Vec::new(), state: State::Alive, mark };
        let listener = Self::wait_for_exec(&status, start.path)?;
        Ok((family, listener))
    }

    /// Waits until the program is executed, or says why it is not. The listener comes before.
    fn wait_for_exec(status: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>, LaunchError> {
        let mut listener = None;
        loop {
            let mut bytes = [0_u8; 8];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let got =
                recvmsg(status, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
            let count = match got {
                Ok(message) => message.bytes,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(system("recvmsg", error)),
            };
            match bytes {
                _ if count == 0 => return Ok(listener),
                [LISTENER, ..] => {
                    listener = control.drain().find_map(|message| match message {
                        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
                        _ => None,
                    });
                }
                [FAILED, step, a, b, c, d, ..] => {
                    let step = Step::ALL.get(usize::from(step)).copied().unwrap_or(Step::Exec);
                    let source = io::Error::from_raw_os_error(i32::from_le_bytes([a, b, c, d]));
                    return Err(LaunchError::Start { path: path.into(), step, source });
                }
                _ => return Err(LaunchError::KeeperGone),
            }
        }
    }

    /// Hears what the keeper has said.
    pub(super) fn listen(&mut self) {
        while self.state == State::Alive {
            let mut wire = Wire::default();
            match recv(&self.socket, wire.as_mut_bytes(), RecvFlags::DONTWAIT).map(|(bytes, _)| bytes) {
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Ok(bytes) if bytes == size_of::<Wire>() => self.hear(wire),
                Ok(_) | Err(_) => self.state = State::Orphaned,
            }
        }
    }

    fn hear(&mut self, wire: Wire) {
        match Word::decode(wire) {
            Some(Word::First { pid }) => self.first = Some(pid),
            Some(Word::Ended { pid, status }) if self.ended.len() < MAX_ENDED || Some(pid) == self.first => {
                self.ended.push((pid, Status::from_raw(status)));
            }
            Some(Word::Alone) => self.state = State::Alone,
            Some(Word::Ended { .. }) | None => {}
        }
    }

    /// The socket on which the keeper speaks.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// How the program that was started ended, if it has.
    pub(super) fn first_status(&self) -> Option<Status> {
        self.first.and_then(|pid| self.status_of(pid))
    }

    /// How a process ended, if it has and was left to the keeper.
    pub(super) fn status_of(&self, pid: i32) -> Option<Status> {
        self.ended.iter().find(|(other, _)| *other == pid).map(|(_, status)| *status)
    }

    /// No process is left.
    pub(super) fn is_gone(&self) -> bool {
        self.state != State::Alive
    }

    /// The keeper was killed.
    pub(super) fn lost_its_keeper(&self) -> bool {
        self.state == State::Orphaned
    }

    /// Ends all of them: politely, and after the grace not. True if none is left.
    pub(super) fn end(&mut self, grace: Duration) -> bool {
        if grace > Duration::ZERO {
            self.tell(TERMINATE);
            self.wait(grace);
        }
        self.tell(KILL);
        self.wait(PATIENCE);
        self.bury()
    }

    fn tell(&self, word: u8) {
        let _ = send(&self.socket, &[word], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }

    fn wait(&mut self, longest: Duration) {
        let end = Instant::now() + longest;
        self.listen();
        while self.state == State::Alive && Instant::now() < end {
            sleep(Duration::from_millis(1));
            self.listen();
        }
    }

    /// Takes the keeper's status, so that it is no zombie.
    fn bury(&mut self) -> bool {
        match self.state {
            State::Gone => return true,
            // Something cannot be killed: it waits in the kernel. The keeper goes on, and ends when it can.
            State::Alive => return false,
            State::Alone | State::Orphaned => {}
        }
        while let Err(Errno::INTR) = waitpid(Some(self.keeper), WaitOptions::empty()) {}
        let clean = self.state == State::Alone || stray::end(&self.mark);
        self.state = State::Gone;
        clean
    }
}

/// How long a process may take to die of `SIGKILL`.
const PATIENCE: Duration = Duration::from_secs(5);

impl Drop for Family {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    pair.map_err(|error| system("socketpair", error))
}

fn text(what: &str, value: &OsStr) -> Result<CString, LaunchError> {
    CString::new(value.as_bytes()).map_err(|_| LaunchError::NulByte { what: what.into() })
}

pub(super) fn system(what: &'static str, error: Errno) -> LaunchError {
    LaunchError::System { what, source: error.into() }
}
