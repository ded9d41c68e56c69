//! The listener of a filter: receives notifications, answers them, and puts descriptors into the process that waits.
//!
//! Source: Linux v7.2 `include/uapi/linux/seccomp.h` and `Documentation/userspace-api/seccomp_filter.rst`.

use super::numbers::{bits, signed};
use exeunt_abi::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The supervisor's end of a filter.
#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
}

/// A system call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Notification {
    /// What its answer is told apart by.
    pub(super) id: u64,
    /// The thread that made it, as this process sees it.
    pub(super) tid: i32,
    /// `AUDIT_ARCH_*`.
    pub(super) arch: u32,
    /// The number of the system call.
    pub(super) nr: u32,
    pub(super) args: [u64; 6],
}

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The kernel does it after all.
    Continue,
    /// It returns this.
    Return(Result<i64, Errno>),
}

/// What waiting brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// A notification can be received.
    Notified,
    /// Nothing, in the time.
    Nothing,
    /// No process is left that has the filter.
    Over,
}

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, since Linux 6.6.
const SYNC_WAKE_UP: libc::c_ulong = 1;

impl Listener {
    /// Takes over the descriptor that installing a filter gave.
    pub(super) fn new(fd: OwnedFd) -> Self {
        // The two sides take turns, so that each is best woken on the processor of the other. An older kernel refuses
        // and is slower.
        // SAFETY: The request takes a number and no pointer.
        let _ = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
        Self { fd }
    }

    /// Waits for a notification.
    pub(super) fn wait(&self, timeout: Duration) -> Result<Waited, Errno> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).map_err(|_| Errno::EINVAL)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Waited::Nothing),
            Ok(_) => {}
            Err(errno) => return Err(Errno(errno.raw_os_error())),
        }
        let [fd] = &fds;
        // A kernel before 5.8 does not tell that all are gone; receiving then fails.
        Ok(if fd.revents().contains(PollFlags::IN) { Waited::Notified } else { Waited::Over })
    }

    /// Receives a notification. `None` if the call that it was about is gone, by a signal or with its process.
    pub(super) fn receive(&self) -> Result<Option<Notification>, Errno> {
        // The kernel refuses a struct that is not zero.
        let mut raw = libc::seccomp_notif {
            id: 0,
            pid: 0,
            flags: 0,
            data: libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] },
        };
        // SAFETY: The kernel writes as many bytes as the request number says, which are those of the struct, and any
        // bytes are a value of it.
        let result =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut raw) };
        match checked(result) {
            Ok(_) => Ok(Some(Notification {
                id: raw.id,
                tid: signed(raw.pid),
                arch: raw.data.arch,
                nr: bits(raw.data.nr),
                args: raw.data.args,
            })),
            Err(Errno::ENOENT | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Answers. `ENOENT` if the call is gone, so that nobody gets the answer.
    pub(super) fn send(&self, id: u64, answer: Answer) -> Result<(), Errno> {
        let mut raw = libc::seccomp_notif_resp { id, val: 0, error: 0, flags: 0 };
        match answer {
            Answer::Continue => raw.flags = CONTINUE,
            Answer::Return(Ok(value)) => raw.val = value,
            Answer::Return(Err(errno)) => raw.error = errno.0.wrapping_neg(),
        }
        // SAFETY: The kernel reads as many bytes as the request number says, which are those of the struct.
        let result =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut raw) };
        checked(result).map(|_| ())
    }

    /// Whether the call still waits. What was read of its process before this is of that process.
    pub(super) fn is_valid(&self, id: u64) -> bool {
        // SAFETY: The kernel reads the 8 bytes that the request number says.
        let result =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) };
        result == 0
    }

    /// Puts a descriptor into the process that waits, under the lowest free number, and says which.
    pub(super) fn add_descriptor(
        &self,
        id: u64,
        file: BorrowedFd<'_>,
        close_on_exec: bool,
    ) -> Result<i32, Errno> {
        let raw = libc::seccomp_notif_addfd {
            id,
            flags: 0,
            srcfd: bits(file.as_raw_fd()),
            newfd: 0,
            newfd_flags: if close_on_exec { bits(libc::O_CLOEXEC) } else { 0 },
        };
        // SAFETY: The kernel reads as many bytes as the request number says, which are those of the struct. The
        // descriptor is open for as long as `file` is borrowed.
        let result =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const raw) };
        checked(result)
    }
}

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;

fn checked(result: libc::c_int) -> Result<i32, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    Err(Errno(io::Error::last_os_error().raw_os_error().unwrap_or_default()))
}
