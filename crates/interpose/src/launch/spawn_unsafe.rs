//! Two forks and an exec: exeunt, its keeper, the VMM.
//!
//! Between fork and exec only system calls are made: no allocation, no lock, no panic. All that they need is made before.

use super::error::Step;
use super::keeper;
use crate::notify::Filter;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
use rustix::process::{
    Pid, Resource, Signal, set_child_subreaper, set_parent_process_death_signal, setpgid, setsid,
};
use std::ffi::CString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// What the new processes need, made before the first fork.
pub(super) struct Order<'a> {
    pub(super) path: CString,
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    /// The working directory, if it is not ours.
    pub(super) directory: Option<CString>,
    pub(super) input: BorrowedFd<'a>,
    pub(super) output: BorrowedFd<'a>,
    /// Where a failed step is told, and the listener sent. It closes by itself at exec.
    pub(super) status: BorrowedFd<'a>,
    /// The keeper's end of its socket.
    pub(super) socket: BorrowedFd<'a>,
    pub(super) filter: Option<&'a Filter>,
}

/// What is sent on the status socket before exec.
pub(super) const LISTENER: u8 = b'l';
/// What begins the message of a failed step, before the step's place in [`Step::ALL`] and the errno.
pub(super) const FAILED: u8 = b'f';

/// The order, as the kernel takes it.
struct Raw<'a> {
    order: &'a Order<'a>,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    filter: Option<libc::sock_fprog>,
    all_signals: libc::sigset_t,
}

/// Makes the keeper, which makes the VMM. Returns the keeper.
pub(super) fn spawn(order: &Order<'_>) -> io::Result<Pid> {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let filter = order.filter.map(|filter| libc::sock_fprog {
        len: u16::try_from(filter.program().len()).unwrap_or(u16::MAX),
        filter: filter.program().as_ptr().cast_mut(),
    });
    let mut all_signals = MaybeUninit::uninit();
    // SAFETY: The set is written whole.
    unsafe { libc::sigfillset(all_signals.as_mut_ptr()) };
    // SAFETY: It was just written.
    let all_signals = unsafe { all_signals.assume_init() };
    let raw = Raw { order, argv: pointers(&order.argv), env: pointers(&order.env), filter, all_signals };
    let mut before = all_signals;
    // The keeper is born with every signal blocked: a signal for the whole session does not stop it from its work.
    // SAFETY: Both sets are initialized.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all_signals, &raw mut before) };
    // SAFETY: The child makes system calls only and never returns from `be_keeper`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        be_keeper(&raw);
    }
    let error = io::Error::last_os_error();
    // SAFETY: The set is initialized.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    Pid::from_raw(pid).filter(|_| pid > 0).ok_or(error)
}

fn be_keeper(raw: &Raw<'_>) -> ! {
    let order = raw.order;
    // Without a session of its own, the VMM could write to the terminal and be stopped by it.
    let _ = setsid();
    let _ = set_child_subreaper(Some(rustix::process::getpid()));
    // SAFETY: The name is a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"exeunt-keeper".as_ptr()) };
    // Where it is ignored, as whoever started exeunt may have wanted, the kernel takes the status of children itself.
    // SAFETY: The default is no function of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let own = rustix::process::getpid();
    // SAFETY: As for the first fork.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        be_vmm(raw, own);
    }
    let Some(first) = Pid::from_raw(pid).filter(|_| pid > 0) else {
        fail(order.status, Step::Fork, last_errno())
    };
    close_all_but(order.socket.as_raw_fd());
    // SAFETY: The set is initialized, and -1 asks for a new descriptor.
    let children =
        unsafe { libc::signalfd(-1, &raw const raw.all_signals, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    if children < 0 {
        let _ = rustix::process::kill_process(first, Signal::KILL);
        exit(1);
    }
    // SAFETY: The descriptor is open until the process ends.
    let children = unsafe { BorrowedFd::borrow_raw(children) };
    keeper::keep(order.socket, children, first);
    exit(0)
}

fn be_vmm(raw: &Raw<'_>, keeper: Pid) -> ! {
    let order = raw.order;
    let failed = |step| -> ! { fail(order.status, step, last_errno()) };
    // If the keeper is killed, nobody adopts what it kept.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if rustix::process::getppid() != Some(keeper) {
        exit(1);
    }
    let _ = setpgid(None, None);
    if !set_descriptors(order) {
        failed(Step::Descriptors);
    }
    reset_signals();
    // A core file would be left behind.
    let limit = rustix::process::Rlimit { current: Some(0), ..rustix::process::getrlimit(Resource::Core) };
    let _ = rustix::process::setrlimit(Resource::Core, limit);
    if let (Some(program), Some(filter)) = (&raw.filter, order.filter) {
        match install(program, filter.flags()) {
            Some(listener) if hand_over(order.status, &listener) => {
                // It is closed by exec. A `close` would wait for an answer that nobody gives yet.
                std::mem::forget(listener);
            }
            _ => failed(Step::Filter),
        }
    }
    // SAFETY: All strings and both lists end with a null and outlive the call.
    unsafe { libc::execve(order.path.as_ptr(), raw.argv.as_ptr(), raw.env.as_ptr()) };
    failed(Step::Exec)
}

/// Standard input is empty, standard output and standard error are one pipe, and everything else closes at exec.
fn set_descriptors(order: &Order<'_>) -> bool {
    // Each lies above 2: the standard library of exeunt has seen to it that 0, 1 and 2 are open.
    for (from, to) in [(order.input, 0), (order.output, 1), (order.output, 2)] {
        // SAFETY: The call takes numbers only.
        if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 {
            return false;
        }
    }
    if let Some(directory) = &order.directory {
        // SAFETY: The path is a C string.
        if unsafe { libc::chdir(directory.as_ptr()) } < 0 {
            return false;
        }
    }
    let from: libc::c_uint = 3;
    // Before Linux 5.11 the flag is unknown. Our own descriptors have it anyway.
    // SAFETY: The flag only marks descriptors; nothing is closed that somebody uses.
    unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    true
}

/// Nothing blocked, nothing ignored that Rust or we ignore and a program started from a shell does not.
fn reset_signals() {
    for signal in [libc::SIGPIPE, libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGCHLD] {
        // SAFETY: The default is no function of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = MaybeUninit::uninit();
    // SAFETY: The set is written whole.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: The set is initialized.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) };
}

/// Installs the filter and returns its listener.
fn install(program: &libc::sock_fprog, flags: u64) -> Option<OwnedFd> {
    let (on, off): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: The call takes numbers only. Without it only root may install a filter.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, off, off, off) };
    for flags in [flags, 0] {
        let flags = flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        // SAFETY: The program and its instructions outlive the call.
        let fd = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, ptr::from_ref(program))
        };
        if let Some(fd) = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0) {
            // SAFETY: The call has just made it, and nobody else has it.
            return Some(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    None
}

fn hand_over(status: BorrowedFd<'_>, listener: &OwnedFd) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [listener.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds))
        && sendmsg(status, &[IoSlice::new(&[LISTENER])], &mut control, SendFlags::NOSIGNAL).is_ok()
}

/// Tells why there is no VMM and ends the process.
fn fail(status: BorrowedFd<'_>, step: Step, errno: Errno) -> ! {
    let place = Step::ALL.iter().position(|other| *other == step).and_then(|place| u8::try_from(place).ok());
    let [a, b, c, d] = errno.raw_os_error().to_le_bytes();
    let _ = send(status, &[FAILED, place.unwrap_or_default(), a, b, c, d], SendFlags::NOSIGNAL);
    exit(127)
}

/// What the C library's last call left behind.
fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

fn close_all_but(kept: RawFd) {
    let close = |first: libc::c_uint, last: libc::c_uint| {
        // SAFETY: Nothing that this process does from here on uses another descriptor.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
    };
    let kept = kept.unsigned_abs();
    let done = (kept == 0 || close(0, kept - 1)) && close(kept.saturating_add(1), libc::c_uint::MAX);
    if !done {
        // Before Linux 5.9 they are closed one by one, as far as a usual limit reaches.
        for fd in (0_i32..4096).filter(|fd| fd.unsigned_abs() != kept) {
            // SAFETY: As above.
            unsafe { libc::close(fd) };
        }
    }
}

fn exit(status: libc::c_int) -> ! {
    // SAFETY: Nothing of exeunt's is run at the exit, which the parent would do a second time.
    unsafe { libc::_exit(status) }
}
