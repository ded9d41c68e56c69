//! How the library comes to life, what becomes of it in a child, and how it ends.

use crate::faults_unsafe;
use crate::state::{self, Active, Start};
use exeunt_abi::Errno;
use exeunt_interpose::plan::{PLAN_VARIABLE, Plan, RING_VARIABLE};
use exeunt_interpose::ring::Writer;
use std::env;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What the loader calls before the program begins.
// SAFETY: The loader calls what is in this section, each entry a function of this type.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

/// What the C library calls when the program ends by its own will.
// SAFETY: As for the other section.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_END: extern "C" fn() = at_end;

extern "C" fn at_start() {
    let (Some(plan), Some(ring)) = (env::var_os(PLAN_VARIABLE), env::var_os(RING_VARIABLE)) else { return };
    let plan = plan.to_str().map(Plan::parse);
    let start = match (plan, Writer::open(Path::new(&ring))) {
        (Some(Ok(plan)), Ok(ring)) => Start { plan, ring: Arc::new(ring) },
        (Some(Err(error)), _) => return eprintln!("exeunt: {error}"),
        (None, _) => return eprintln!("exeunt: {PLAN_VARIABLE} is not text"),
        (_, Err(errno)) => return eprintln!("exeunt: {}: {errno}", Path::new(&ring).display()),
    };
    state::start(start);
    faults_unsafe::catch();
    // SAFETY: The function may be called in any child, and it only stores to statics.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

extern "C" fn at_end() {
    // Without a system call: a filter may allow none but the last.
    if let Some(active) = state::active() {
        active.dispatcher.flush();
    }
}

extern "C" fn in_child() {
    state::forked();
}

/// What is behind the pointer to what a process has, which is made once and never freed.
#[inline]
pub(crate) fn borrowed(active: &AtomicPtr<Active>) -> Option<&'static Active> {
    // SAFETY: The pointer is null or came from a box that was leaked.
    unsafe { active.load(Ordering::Acquire).as_ref() }
}

/// Lets a function use a number as the descriptor that it is.
pub(crate) fn with_fd<T, E>(fd: i32, with: impl FnOnce(BorrowedFd<'_>) -> Result<T, E>) -> Result<T, Errno>
where
    E: Into<Failed>,
{
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: The number is not -1. If the process closes it meanwhile, the call on it fails.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    with(borrowed).map_err(|error| error.into().0)
}

/// An error of either kind.
pub(crate) struct Failed(Errno);

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

impl From<rustix::io::Errno> for Failed {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(Errno(errno.raw_os_error()))
    }
}
