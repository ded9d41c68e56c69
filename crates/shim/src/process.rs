//! What the dispatcher needs of the process that it is in.

use crate::state;
use crate::syscall_unsafe;
use exeunt_abi::Errno;
use exeunt_interpose::dispatch::{Mapped, Process};
use exeunt_interpose::{VCPU_BYTES, VcpuPages};
use rustix::fs::{MemfdFlags, Stat, fstat, ftruncate, memfd_create};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::IntoRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// This process.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// The files that stand in, by number: device and inode.
    taken: Mutex<BTreeMap<i32, (u64, u64)>>,
}

impl Own {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<i32, (u64, u64)>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number leads to the file of another one, too.
    pub(crate) fn copied(&self, from: i32, to: i32) {
        let mut taken = self.taken();
        if let Some(identity) = taken.get(&from).copied() {
            taken.insert(to, identity);
        }
    }
}

impl Process for Own {
    fn take(&self) -> Result<i32, Errno> {
        let file = memfd_create("exeunt-kvm", MemfdFlags::CLOEXEC).map_err(errno)?;
        ftruncate(&file, VCPU_BYTES as u64).map_err(errno)?;
        let identity = identity(&fstat(&file).map_err(errno)?);
        let fd = file.into_raw_fd();
        self.taken().insert(fd, identity);
        state::mark(fd, state::Mark::Ours);
        Ok(fd)
    }

    fn give_back(&self, fd: i32) {
        self.taken().remove(&fd);
        state::mark(fd, state::Mark::None);
        // A number that the process closed unseen is closed already.
        let _ = syscall_unsafe::close(fd);
    }

    fn event_file(&self, fd: i32) -> Result<(), Errno> {
        let Ok(link) = fs::read_link(format!("/proc/self/fd/{fd}")) else { return Err(Errno::EBADF) };
        if link.as_os_str() == "anon_inode:[eventfd]" { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn pages(&self, fd: i32) -> Result<VcpuPages, Errno> {
        state::with_fd(fd, VcpuPages::map)
    }

    fn is_same(&self, fd: i32) -> bool {
        let Some(expected) = self.taken().get(&fd).copied() else { return true };
        state::with_fd(fd, |file| fstat(file)).is_ok_and(|stat| identity(&stat) == expected)
    }

    fn enter(&self, fd: i32) -> Option<Result<u32, Errno>> {
        let result = syscall_unsafe::kvm_run(fd);
        Some(result.map(|value| u32::try_from(value).unwrap_or(0)))
    }

    fn mapped(&self, fd: i32) -> Vec<Mapped> {
        let Ok(stat) = state::with_fd(fd, |file| fstat(file)) else { return Vec::new() };
        let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return Vec::new() };
        maps.lines().filter_map(|line| mapping(line, identity(&stat))).collect()
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// A line of `/proc/self/maps`, if it is of this file: `start-end perms offset major:minor inode path`.
fn mapping(line: &str, (device, inode): (u64, u64)) -> Option<Mapped> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?;
    let offset_bytes = hex(words.next()?)?;
    let (major, minor) = words.next()?.split_once(':')?;
    let (major, minor) = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let is_it = words.next()?.parse() == Ok(inode) && rustix::fs::makedev(major, minor) == device;
    let (start, end) = (hex(start)?, hex(end)?);
    let is_shared = permissions.ends_with('s');
    (is_it && is_shared).then(|| Mapped { uaddr: start, bytes: end.saturating_sub(start), offset_bytes })
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word, 16).ok()
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}
