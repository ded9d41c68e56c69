//! The descriptors of one process: those that the model hands out, and the real ones.
//!
//! What stands in for a file of KVM is a memfd that the supervisor holds, too. A number says little: a process can close
//! it and get it again for something else, copy it, and have a child that inherits it. So a number counts only while
//! the file behind it is the one that was handed out.

use super::foreign_unsafe;
use super::listener_unsafe::Listener;
use crate::dispatch::{self, Mapped};
use crate::pages_unsafe::{VCPU_BYTES, VcpuPages};
use exeunt_abi::Errno;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which process got a memfd, and under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pid: i32,
    pub(super) fd: i32,
}

/// The places of all memfds that were handed out, by device and inode.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<BTreeMap<(u64, u64), Place>>);

impl Places {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the file was handed out that is behind a number now.
    pub(super) fn find(&self, tid: i32, fd: i32) -> Option<Place> {
        if self.lock().is_empty() {
            return None;
        }
        let metadata = fs::metadata(format!("/proc/{tid}/fd/{fd}")).ok()?;
        self.lock().get(&(metadata.dev(), metadata.ino())).copied()
    }
}

/// The descriptors of a process.
#[derive(Debug)]
pub(super) struct Handed {
    pid: i32,
    listener: Arc<Listener>,
    places: Arc<Places>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    caller: Option<Caller>,
    files: BTreeMap<i32, File>,
}

/// The call that is being answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// The notification.
    pub(super) id: u64,
    /// What it makes closes at exec.
    pub(super) close_on_exec: bool,
    /// A number whose file has just been looked at.
    pub(super) checked: Option<i32>,
    /// A number that the process inherited, which it gets instead of a new one.
    pub(super) inherited: Option<i32>,
}

impl Caller {
    /// A call on a file.
    pub(super) const fn on(id: u64, fd: i32) -> Self {
        Self { id, close_on_exec: true, checked: Some(fd), inherited: None }
    }
}

#[derive(Debug)]
struct File {
    memfd: OwnedFd,
    key: (u64, u64),
}

impl Handed {
    pub(super) fn new(pid: i32, listener: Arc<Listener>, places: Arc<Places>) -> Self {
        Self { pid, listener, places, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on, what is asked for is for this call.
    pub(super) fn set_caller(&self, caller: Caller) {
        self.lock().caller = Some(caller);
    }

    /// Whether the file that was handed out under this number is still behind it.
    pub(super) fn holds(&self, fd: i32) -> bool {
        self.lock().files.get(&fd).is_some_and(|file| {
            // Where files cannot be compared, one look at the table of the process says the same.
            foreign_unsafe::is_same_file(file.memfd.as_fd(), self.pid, fd)
                .unwrap_or_else(|| self.places.find(self.pid, fd) == Some(Place { pid: self.pid, fd }))
        })
    }
}

impl dispatch::Process for Handed {
    fn take(&self) -> Result<i32, Errno> {
        let mut inner = self.lock();
        // Without a call that waits there is nobody to have it.
        let caller = inner.caller.ok_or(Errno::EMFILE)?;
        if let Some(fd) = caller.inherited {
            let file = inherit(self.pid, fd)?;
            inner.files.insert(fd, file);
            return Ok(fd);
        }
        let memfd = memfd_create("exeunt", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(errno)?;
        ftruncate(&memfd, VCPU_BYTES as u64).map_err(errno)?;
        // The process could make it shorter, and the supervisor, which has it mapped, would be killed by `SIGBUS`.
        fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).map_err(errno)?;
        let key = key(&memfd)?;
        let fd = self.listener.add_descriptor(caller.id, memfd.as_fd(), caller.close_on_exec)?;
        let mut places = self.places.lock();
        // The process closed the number where nobody saw it.
        if let Some(old) = inner.files.insert(fd, File { memfd, key }) {
            places.remove(&old.key);
        }
        places.insert(key, Place { pid: self.pid, fd });
        Ok(fd)
    }

    /// The number stays open in the process, because nobody else can close it there; it leads nowhere.
    fn give_back(&self, fd: i32) {
        if let Some(file) = self.lock().files.remove(&fd) {
            let mut places = self.places.lock();
            if places.get(&file.key) == Some(&Place { pid: self.pid, fd }) {
                places.remove(&file.key);
            }
        }
    }

    fn event_file(&self, fd: i32) -> Result<(), Errno> {
        let link = fs::read_link(format!("/proc/{}/fd/{fd}", self.pid)).map_err(|_| Errno::EBADF)?;
        let is_event = link.to_str() == Some("anon_inode:[eventfd]");
        if is_event { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn pages(&self, fd: i32) -> Result<VcpuPages, Errno> {
        if let Some(file) = self.lock().files.get(&fd) {
            return VcpuPages::map(file.memfd.as_fd());
        }
        VcpuPages::map(fetch(self.pid, fd)?.as_fd())
    }

    fn is_same(&self, fd: i32) -> bool {
        let is_checked = self.lock().caller.is_some_and(|caller| caller.checked == Some(fd));
        is_checked || self.holds(fd)
    }

    fn mapped(&self, fd: i32) -> Vec<Mapped> {
        let Ok(metadata) = fs::metadata(format!("/proc/{}/fd/{fd}", self.pid)) else { return Vec::new() };
        let Ok(maps) = fs::read_to_string(format!("/proc/{}/maps", self.pid)) else { return Vec::new() };
        maps.lines().filter_map(|line| shared_part(line, metadata.ino())).collect()
    }
}

/// A copy of a descriptor of another process.
pub(super) fn fetch(pid: i32, fd: i32) -> Result<OwnedFd, Errno> {
    let pid = Pid::from_raw(pid).ok_or(Errno::EBADF)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(errno)?;
    pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty()).map_err(errno)
}

fn inherit(pid: i32, fd: i32) -> Result<File, Errno> {
    let memfd = fetch(pid, fd)?;
    let key = key(&memfd)?;
    Ok(File { memfd, key })
}

fn key(memfd: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(memfd).map_err(errno)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// A line of `/proc/PID/maps`, if it is a shared mapping of the file with this inode.
fn shared_part(line: &str, inode: u64) -> Option<Mapped> {
    let mut fields = line.split_ascii_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    let is_shared = fields.next()?.ends_with('s');
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let offset_bytes = hex(fields.next()?)?;
    let found: u64 = fields.nth(1)?.parse().ok()?;
    let uaddr = hex(from)?;
    let bytes = hex(to)?.checked_sub(uaddr)?;
    (is_shared && found == inode).then_some(Mapped { uaddr, bytes, offset_bytes })
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_mappings_of_a_file_are_read_from_the_kernels_lines() {
        let line =
            "7f0000000000-7f0000002000 rw-s 00001000 00:01 1270                       /memfd:x (deleted)";
        let found = Mapped { uaddr: 0x7f00_0000_0000, bytes: 0x2000, offset_bytes: 0x1000 };
        assert_eq!(shared_part(line, 1270), Some(found));
        assert_eq!(shared_part(line, 1271), None);
        assert_eq!(shared_part(&line.replace("rw-s", "rw-p"), 1270), None);
        for line in ["", "x", "1-0 rw-s 0 00:01 1270", "0-1 rw-s", "zz-1 rw-s 0 00:01 1270"] {
            assert_eq!(shared_part(line, 1270), None, "{line}");
        }
    }
}
