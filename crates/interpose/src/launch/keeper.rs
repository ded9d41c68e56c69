//! The process between exeunt and the VMM, which sees to it that nothing of a run survives.
//!
//! It is a fork of exeunt, adopts every process that the VMM leaves behind (it is their subreaper, so exeunt need not be
//! one), and ends all of them when it is told to, or when the other end of its socket is gone, however exeunt died.
//! Everything here runs after a fork without exec: nothing allocates, locks or panics.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::io::{Errno, read};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Ends everything politely: `SIGTERM`.
pub(super) const TERMINATE: u8 = b't';
/// Ends everything.
pub(super) const KILL: u8 = b'k';

/// What the keeper says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The number of the process that becomes the VMM.
    First { pid: i32 },
    /// A process ended, with this status of `wait`.
    Ended { pid: i32, status: i32 },
    /// No process is left. The keeper ends.
    Alone,
}

/// A word as it travels.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
pub(super) struct Wire {
    kind: u32,
    pid: i32,
    status: i32,
}

const FIRST: u32 = 1;
const ENDED: u32 = 2;
const ALONE: u32 = 3;

impl Word {
    const fn encode(self) -> Wire {
        match self {
            Self::First { pid } => Wire { kind: FIRST, pid, status: 0 },
            Self::Ended { pid, status } => Wire { kind: ENDED, pid, status },
            Self::Alone => Wire { kind: ALONE, pid: 0, status: 0 },
        }
    }

    pub(super) const fn decode(wire: Wire) -> Option<Self> {
        let Wire { kind, pid, status } = wire;
        match kind {
            FIRST => Some(Self::First { pid }),
            ENDED => Some(Self::Ended { pid, status }),
            ALONE => Some(Self::Alone),
            _ => None,
        }
    }
}

/// What the keeper does at the moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    Watch,
    Terminate,
    Kill,
}

/// Watches until no process is left. `children` becomes readable when a child has ended, `first` is the VMM.
pub(super) fn keep(socket: BorrowedFd<'_>, children: BorrowedFd<'_>, first: Pid) {
    say(socket, Word::First { pid: first.as_raw_nonzero().get() });
    let mut task = Task::Watch;
    loop {
        let mut waits = [PollFd::new(&children, PollFlags::IN), PollFd::new(&socket, PollFlags::IN)];
        let pause_ns = match task {
            Task::Watch => None,
            // A process that is handed to us when its parent dies comes with no signal.
            Task::Terminate => Some(20_000_000),
            Task::Kill => Some(1_000_000),
        };
        let pause = pause_ns.map(|tv_nsec| Timespec { tv_sec: 0, tv_nsec });
        // Nothing that can be said would stop the end, and a socket whose other end is gone would keep us awake.
        let (listening, _) = waits.split_at_mut(if task == Task::Kill { 1 } else { 2 });
        let _ = poll(listening, pause.as_ref());
        let [ended, told] = waits.map(|wait| !wait.revents().is_empty());
        if told {
            task = listen(socket, task);
        }
        if ended {
            // Only says that there is something to wait for. Several signals may have become one.
            let mut signals = [0_u8; 512];
            let _ = read(children, &mut signals);
        }
        if !reap(socket) {
            say(socket, Word::Alone);
            return;
        }
        match task {
            Task::Watch => {}
            Task::Terminate => signal_children(Signal::TERM, first),
            Task::Kill => signal_children(Signal::KILL, first),
        }
    }
}

/// Whoever is not there any more wants everything to end.
fn listen(socket: BorrowedFd<'_>, task: Task) -> Task {
    let mut word = [0_u8; 1];
    match recv(socket, &mut word, RecvFlags::DONTWAIT).map(|(bytes, _)| bytes) {
        Ok(1) if word == [TERMINATE] && task == Task::Watch => Task::Terminate,
        Ok(1) if word == [TERMINATE] => task,
        Err(Errno::AGAIN | Errno::INTR) => task,
        _ => Task::Kill,
    }
}

/// Takes the status of every child that has ended. False when there is no child.
fn reap(socket: BorrowedFd<'_>) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                say(socket, Word::Ended { pid: pid.as_raw_nonzero().get(), status: status.as_raw() });
            }
            Ok(None) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// A word that nobody takes is lost: the keeper waits for nobody.
fn say(socket: BorrowedFd<'_>, word: Word) {
    let _ = send(socket, word.encode().as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// Signals the processes whose parent we are. Only we can take their status, so none of their numbers can be given to
/// another process meanwhile. What they leave behind becomes our child and has its turn in the next round.
fn signal_children(signal: Signal, first: Pid) {
    let own = getpid();
    let mut found = false;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(directory) = openat(CWD, c"/proc", flags, Mode::empty()) {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(directory.as_fd(), &mut buffer);
        while let Some(Ok(entry)) = entries.next() {
            let Some(pid) = number(entry.file_name().to_bytes()).and_then(Pid::from_raw) else { continue };
            if parent(directory.as_fd(), entry.file_name()) == Some(own.as_raw_nonzero().get()) {
                found = true;
                let _ = kill_process(pid, signal);
            }
        }
    }
    if !found && matches!(wait_for(first), Ok(None)) {
        // There is no /proc, and at least the VMM is known.
        let _ = kill_process(first, signal);
    }
}

/// `Ok(None)` while it is our child and has not ended. Takes no status.
fn wait_for(pid: Pid) -> Result<Option<()>, Errno> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), options).map(|status| status.map(|_| ()))
}

/// The parent of a process: the fourth field of its `stat`, the second after the name, which may hold anything.
fn parent(proc: BorrowedFd<'_>, pid: &CStr) -> Option<i32> {
    let mut name = [0_u8; 32];
    let digits = pid.to_bytes();
    let end = digits.len().checked_add(6)?;
    name.get_mut(..digits.len())?.copy_from_slice(digits);
    name.get_mut(digits.len()..end)?.copy_from_slice(b"/stat\0");
    let path = CStr::from_bytes_until_nul(&name).ok()?;
    let file = openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut stat = [0_u8; 512];
    let bytes = read(&file, &mut stat).ok()?;
    parse_parent(stat.get(..bytes)?)
}

fn parse_parent(stat: &[u8]) -> Option<i32> {
    let after = stat.iter().rposition(|byte| *byte == b')')?.checked_add(1)?;
    number(stat.get(after..)?.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).nth(1)?)
}

fn number(digits: &[u8]) -> Option<i32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_comes_back_from_its_bytes() {
        let first = Word::First { pid: 77 };
        for word in [
            Word::Alone,
            first,
            Word::Ended { pid: 1234, status: 0x8b },
            Word::Ended { pid: i32::MAX, status: -1 },
        ] {
            assert_eq!(Word::decode(word.encode()), Some(word));
        }
        assert_eq!(Word::decode(Wire::default()), None);
    }

    #[test]
    fn the_parent_is_found_behind_a_name_that_holds_anything() {
        assert_eq!(parse_parent(b"42 (sh) S 17 42 42 0"), Some(17));
        assert_eq!(parse_parent(b"42 (a) S 1 (b) R 17 42 42 0"), Some(17));
        for stat in ["", "42", "42 (", "42 (sh)", "42 (sh) S", "42 (sh) S x 1"] {
            assert_eq!(parse_parent(stat.as_bytes()), None, "{stat}");
        }
    }

    #[test]
    fn our_own_parent_is_found() {
        let proc = openat(CWD, c"/proc", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let own = std::ffi::CString::new(std::process::id().to_string()).unwrap();
        let expected = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(parent(proc.as_fd(), &own), expected);
    }
}
