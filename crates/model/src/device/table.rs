//! Descriptors and what is behind them.

use super::attr::KvmDevice;
use super::gmem::GmemFile;
use super::vcpu::VcpuFile;
use super::vm::VmFile;
use crate::vm::Vm;
use exeunt_abi::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where descriptor numbers come from, and what is behind those that are not the model's.
pub trait Descriptors: fmt::Debug + Send + Sync {
    /// A number that is not in use.
    ///
    /// # Errors
    ///
    /// `EMFILE` if there is none.
    fn take(&self) -> Result<i32, Errno>;

    /// The number is not in use any more.
    fn give_back(&self, fd: i32);

    /// Whether an event file is behind a number that the model did not take.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open, `EINVAL` for another file.
    fn event_file(&self, fd: i32) -> Result<(), Errno>;
}

/// The lowest free number from 3 on, below 1024.
#[derive(Debug, Default)]
pub struct OwnNumbers {
    taken: Mutex<BTreeSet<i32>>,
}

/// After the standard streams.
const FIRST: i32 = 3;
/// `RLIMIT_NOFILE` as most systems have it.
const LIMIT: i32 = 1024;

impl Descriptors for OwnNumbers {
    fn take(&self) -> Result<i32, Errno> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (FIRST..LIMIT).find(|fd| !taken.contains(fd)).ok_or(Errno::EMFILE)?;
        taken.insert(free);
        Ok(free)
    }

    fn give_back(&self, fd: i32) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&fd);
    }

    fn event_file(&self, _: i32) -> Result<(), Errno> {
        Err(Errno::EBADF)
    }
}

/// What a descriptor leads to. A copy is another descriptor of the same file.
#[derive(Clone, Debug)]
pub(super) enum File {
    Kvm,
    Sev {
        /// It was opened for writing, which changes of the platform need.
        writable: bool,
    },
    Event,
    Vm(Arc<VmFile>),
    Vcpu(Arc<VcpuFile>),
    Gmem(Arc<GmemFile>),
    Device(Arc<KvmDevice>),
    /// Statistics of a VM or a vCPU.
    Stats(Vm),
}

/// A process's table.
#[derive(Debug)]
pub(super) struct Table {
    descriptors: Arc<dyn Descriptors>,
    files: Mutex<BTreeMap<i32, File>>,
}

impl Table {
    pub(super) fn new(descriptors: Arc<dyn Descriptors>) -> Self {
        Self { descriptors, files: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, fd: i32) -> Result<File, Errno> {
        self.lock().get(&fd).cloned().ok_or(Errno::EBADF)
    }

    pub(super) fn insert(&self, file: File) -> Result<i32, Errno> {
        self.insert_with(|_| Ok(file))
    }

    /// Takes a number, as the kernel does before it makes the file, and gives it back if the file is not made.
    pub(super) fn insert_with(&self, make: impl FnOnce(i32) -> Result<File, Errno>) -> Result<i32, Errno> {
        let fd = self.descriptors.take()?;
        match make(fd) {
            Ok(file) => {
                self.lock().insert(fd, file);
                Ok(fd)
            }
            Err(errno) => {
                self.descriptors.give_back(fd);
                Err(errno)
            }
        }
    }

    pub(super) fn remove(&self, fd: i32) -> Result<(), Errno> {
        // What the file owns is dropped after the lock.
        let file = self.lock().remove(&fd).ok_or(Errno::EBADF)?;
        self.descriptors.give_back(fd);
        drop(file);
        Ok(())
    }

    /// Whether an event file is behind the number.
    pub(super) fn event_file(&self, fd: i32) -> Result<(), Errno> {
        match self.get(fd) {
            Ok(File::Event) => Ok(()),
            Ok(_) => Err(Errno::EINVAL),
            Err(_) => self.descriptors.event_file(fd),
        }
    }
}
