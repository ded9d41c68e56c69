//! What becomes of each call: on to the kernel, or to the dispatcher.
//!
//! `real` is the call as the VMM made it.

use crate::memory::is_string;
use crate::state::{self, Mark, marked};
use crate::{threads, wait};
use exeunt_abi::Errno;
use exeunt_interpose::dispatch::{Before, Outcome};
use exeunt_interpose::plan::Stage;

/// What a system call returns.
pub(crate) type Returned = Result<usize, Errno>;

/// The devices that can be opened.
const DEVICES: [&[u8]; 2] = [b"/dev/kvm", b"/dev/sev"];

/// The device that a path is, if the library has anything to do.
pub(crate) fn device(path: usize) -> Option<&'static [u8]> {
    state::plan()?;
    DEVICES.into_iter().find(|device| is_string(path as u64, device))
}

/// The same, if it is not the kernel's own.
pub(crate) fn stood_in_for(path: usize) -> Option<&'static [u8]> {
    let is_scripted = state::plan()?.stage == Stage::Scripted;
    device(path).filter(|_| is_scripted)
}

/// `open`.
pub(crate) fn open(path: usize, flags: i32, real: impl FnOnce() -> Returned) -> Returned {
    let Some(device) = device(path) else { return real() };
    let active = state::activate().ok_or(Errno::EIO)?;
    let is_writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
    if let Some(opened) = active.dispatcher.open(device, is_writable) {
        if let Ok(fd) = opened {
            state::mark_device(fd, device);
        }
        return opened.map(descriptor);
    }
    let result = real();
    let opened = result.map(number);
    if let Ok(fd) = opened {
        state::mark_device(fd, device);
    }
    active.dispatcher.opened(device, opened);
    result
}

/// `ioctl` on a descriptor that is marked.
pub(crate) fn ioctl(fd: i32, request: u32, arg: usize, real: impl FnOnce() -> Returned) -> Returned {
    match marked(fd) {
        // A VM is its maker's, and to the kernel this is another memory.
        Mark::Inherited => return Err(Errno::EIO),
        Mark::InheritedKvm => take_over(fd, b"/dev/kvm"),
        Mark::InheritedSev => take_over(fd, b"/dev/sev"),
        Mark::None | Mark::Ours => {}
    }
    let Some(active) = state::active() else { return real() };
    let (dispatcher, memory, arg) = (&active.dispatcher, &active.memory, arg as u64);
    if active.stage == Stage::Scripted {
        let inside = threads::enter(fd);
        let result = match dispatcher.ioctl(fd, request, arg, memory) {
            Outcome::Done(result) => result,
            Outcome::Blocked => wait::until_done(active, fd, || dispatcher.ioctl(fd, request, arg, memory)),
            Outcome::NotOurs => {
                state::mark(fd, Mark::None);
                return real();
            }
        };
        drop(inside);
        learn(request);
        return result.map(|value| value as usize);
    }
    match dispatcher.before(fd, request, arg, memory) {
        Before::NotOurs => real(),
        Before::Done(result) => result.map(|value| value as usize),
        Before::Call(pending) => {
            let result = real();
            let value = result.map(|value| u32::try_from(value).unwrap_or(u32::MAX));
            if let Some(made) = dispatcher.after(pending, value, memory) {
                state::mark(made, Mark::Ours);
            }
            learn(request);
            result
        }
    }
}

/// A device is as good for a child as for the parent that opened it.
fn take_over(fd: i32, device: &[u8]) {
    if let Some(active) = state::activate() {
        active.dispatcher.inherited(device, fd, true);
        state::mark_device(fd, device);
    }
}

/// `KVM_SET_USER_MEMORY_REGION` and its successor, without the size of their structs.
const SET_REGION: [u32; 2] = [0xae46, 0xae49];

fn learn(request: u32) {
    if SET_REGION.contains(&(request & 0xffff)) {
        state::note_slots();
    }
}

/// A descriptor that is marked is closed.
fn forget(fd: i32) {
    if !matches!(marked(fd), Mark::Ours) {
        state::mark(fd, Mark::None);
    } else if let Some(active) = state::own_active() {
        active.dispatcher.close(fd);
        state::mark(fd, Mark::None);
    }
}

/// `close`.
pub(crate) fn close(fd: i32, real: impl FnOnce() -> Returned) -> Returned {
    if marked(fd) != Mark::None {
        forget(fd);
    }
    real()
}

/// `close_range` of numbers that do not only get `FD_CLOEXEC`.
pub(crate) fn close_range(first: u32, last: u32, real: impl FnOnce() -> Returned) -> Returned {
    state::marked_between(first, last).for_each(forget);
    real()
}

/// `dup` and its kin: a copy of a descriptor, perhaps to a number that is in use.
pub(crate) fn duplicate(from: i32, to: Option<i32>, real: impl FnOnce() -> Returned) -> Returned {
    if marked(from) == Mark::None && to.is_none_or(|to| marked(to) == Mark::None) {
        return real();
    }
    let result = real();
    if let Ok(to) = result.map(number) {
        duplicated(from, to);
    }
    result
}

fn duplicated(from: i32, to: i32) {
    let mark = marked(from);
    if from == to {
        return;
    }
    match (mark, state::own_active()) {
        (Mark::Ours, Some(active)) => {
            active.dispatcher.duplicated(from, to);
            active.process.copied(from, to);
        }
        (_, Some(active)) if marked(to) == Mark::Ours => _ = active.dispatcher.close(to),
        (Mark::Ours, None) => return,
        _ => {}
    }
    state::copy_mark(from, to);
}

/// `fallocate`.
pub(crate) fn fallocate(
    fd: i32,
    mode: i32,
    offset: i64,
    bytes: i64,
    real: impl FnOnce() -> Returned,
) -> Returned {
    const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE;
    let is_ours = marked(fd) == Mark::Ours;
    if !is_ours && (mode & PUNCH_HOLE == 0 || !state::has_slots()) {
        return real();
    }
    let Some(active) = state::active() else { return real() };
    let mode = mode as u32;
    if is_ours {
        if let Outcome::Done(result) = active.dispatcher.fallocate(fd, mode, offset, bytes) {
            return result.map(|value| value as usize);
        }
    }
    let result = real();
    active.dispatcher.fallocated(fd, mode, offset, bytes, result.map(|_| ()));
    result
}

/// `madvise`.
pub(crate) fn madvise(uaddr: usize, bytes: usize, advice: i32, real: impl FnOnce() -> Returned) -> Returned {
    let result = real();
    if state::has_slots() {
        if let Some(active) = state::active() {
            active.dispatcher.madvised(uaddr as u64, bytes as u64, advice, result.map(|_| ()));
        }
    }
    result
}

fn number(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(-1)
}

fn descriptor(fd: i32) -> usize {
    usize::try_from(fd).unwrap_or(usize::MAX)
}
