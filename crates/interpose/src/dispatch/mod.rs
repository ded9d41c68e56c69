//! What becomes of the calls that a VMM makes: one dispatcher for both ways in.
//!
//! A way in, the shim inside of the VMM's process or the supervisor beside it, catches the calls and brings them here.
//! Under [`Stage::Scripted`] the dispatcher answers them out of the model. Otherwise the way in has the real call made
//! and tells the dispatcher before and after. What crosses is recorded in either case.

mod argument;
mod files;
mod hole;
mod memory;
mod overlay;
mod possible;
mod real;
mod run;
mod scripted;

pub use overlay::{By, Call, Overlay, Turn};
pub use real::{Before, Pending};

use crate::pages_unsafe::VcpuPages;
use crate::plan::{Plan, Stage};
use crate::record::{File, Record, What};
use crate::ring::Writer;
use exeunt_abi::Errno;
use exeunt_model::UserMemory;
use files::Files;
use memory::Slots;
use run::Budget;
use scripted::Model;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use thiserror::Error;

/// Where records go.
pub trait Sink: fmt::Debug + Send + Sync {
    /// Takes a record. It waits for nobody.
    fn put(&self, record: Record);

    /// `KVM_RUN` was called, or waited for a moment.
    fn enter(&self) {}
}

impl Sink for Writer {
    fn put(&self, record: Record) {
        if record.what == What::Hung {
            self.set_hung();
        }
        Self::put(self, &record);
    }

    #[inline]
    fn enter(&self) {
        Self::enter(self);
    }
}

/// What a way in does in the VMM's process. A method may be called while a call of the VMM's is answered, on any thread.
pub trait Process: fmt::Debug + Send + Sync {
    /// A new descriptor of the VMM: a file that stands in for one of KVM's, as long as the pages of a vCPU.
    ///
    /// # Errors
    ///
    /// `EMFILE` if there is no number left; what else a new file fails with.
    fn take(&self) -> Result<i32, Errno>;

    /// The descriptor is not needed any more. Where the VMM's own call closes it, this is not called.
    fn give_back(&self, fd: i32);

    /// Whether an event file is behind a number that was not taken.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open, `EINVAL` for another file.
    fn event_file(&self, fd: i32) -> Result<(), Errno>;

    /// Maps the pages of a vCPU: of the file that stands in for it, or of a real one.
    ///
    /// # Errors
    ///
    /// What keeps the file from being mapped.
    fn pages(&self, fd: i32) -> Result<VcpuPages, Errno>;

    /// Whether the number still leads to the file that was taken for it. A number can be closed and given to another
    /// file where the way in does not see it.
    fn is_same(&self, fd: i32) -> bool;

    /// Makes a `KVM_RUN` on a real vCPU, and nothing else; `None` where only the VMM itself can make one. The vCPU is let
    /// out at once, because `immediate_exit` is set.
    fn enter(&self, fd: i32) -> Option<Result<u32, Errno>> {
        let _ = fd;
        None
    }

    /// Where the file behind a number that was not taken is mapped and shared.
    fn mapped(&self, fd: i32) -> Vec<Mapped>;
}

/// A part of a file, mapped in the VMM's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Where in the process.
    pub uaddr: u64,
    /// How long it is.
    pub bytes: u64,
    /// Where in the file.
    pub offset_bytes: u64,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is no business of the dispatcher: the way in has the kernel do it.
    NotOurs,
    /// It is done.
    Done(Result<u32, Errno>),
    /// The vCPU waits in the kernel, or ran for a while without an exit: the way in waits a moment, or less if a signal
    /// comes, and then makes the same call again or ends it with `EINTR`.
    Blocked,
}

/// Why there is no dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// The plan names a scene that does not exist.
    #[error("there is no scene '{name}'")]
    NoScene {
        /// The name.
        name: String,
    },
    /// The scene is of another architecture, whose ioctls a VMM on this one does not make.
    #[error("scene '{name}' is not for x86")]
    OtherArch {
        /// The name.
        name: String,
    },
}

/// The calls of one process.
#[derive(Debug)]
pub struct Dispatcher {
    pid: u32,
    stage: Stage,
    process: Arc<dyn Process>,
    sink: Arc<dyn Sink>,
    files: Files,
    slots: Mutex<Slots>,
    budget: Budget,
    /// What answers instead of the kernel.
    model: Option<Model>,
    /// What comes between the kernel's own exits.
    overlay: Option<Arc<dyn Overlay>>,
}

impl Dispatcher {
    /// A dispatcher for a process.
    ///
    /// # Errors
    ///
    /// The plan is not one that can be followed.
    pub fn new(
        plan: &Plan,
        pid: u32,
        process: Arc<dyn Process>,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, DispatchError> {
        let model = if plan.stage == Stage::Scripted { Some(Model::new(plan, &process)?) } else { None };
        Ok(Self {
            pid,
            stage: plan.stage,
            process,
            sink,
            files: Files::default(),
            slots: Mutex::default(),
            budget: Budget::new(plan.max_exits),
            model,
            overlay: overlay::Player::of(plan)?,
        })
    }

    /// Puts something else between the kernel's own exits than the plan's scene.
    #[must_use]
    pub fn with_overlay(mut self, overlay: Arc<dyn Overlay>) -> Self {
        self.overlay = Some(overlay);
        self
    }

    /// What is behind the calls.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// `open`. `None`: not a file of ours, or one that the kernel opens, of which [`Dispatcher::opened`] is to be told.
    pub fn open(&self, path: &[u8], is_writable: bool) -> Option<Result<i32, Errno>> {
        let file = device(path)?;
        let result = self.model.as_ref()?.open(file, is_writable);
        if let Ok(fd) = result {
            self.files.insert(fd, file, None);
        }
        self.put(What::Opened { file, result: result.map(i32::unsigned_abs) });
        Some(result)
    }

    /// The process has a descriptor of a device that its parent opened. A VM is its maker's, a device is anyone's.
    pub fn inherited(&self, path: &[u8], fd: i32, is_writable: bool) {
        let Some(file) = device(path) else { return };
        let is_open = self.model.as_ref().is_none_or(|model| model.open_as(fd, file, is_writable).is_ok());
        if is_open {
            self.files.insert(fd, file, None);
        }
    }

    /// The kernel opened a file. Only `/dev/kvm` and `/dev/sev` are looked at.
    pub fn opened(&self, path: &[u8], result: Result<i32, Errno>) {
        let Some(file) = device(path) else { return };
        if let Ok(fd) = result {
            self.files.insert(fd, file, None);
        }
        self.put(What::Opened { file, result: result.map(i32::unsigned_abs) });
    }

    /// Whether a descriptor is known. The way in need not bring calls on others.
    #[must_use]
    pub fn knows(&self, fd: i32) -> bool {
        self.files.file(fd).is_some()
    }

    /// What is behind a descriptor.
    #[must_use]
    pub fn file(&self, fd: i32) -> Option<File> {
        self.files.file(fd)
    }

    /// `ioctl` under [`Stage::Scripted`].
    pub fn ioctl(&self, fd: i32, request: u32, arg: u64, memory: &Arc<dyn UserMemory>) -> Outcome {
        let Some(model) = &self.model else { return Outcome::NotOurs };
        self.scripted_ioctl(model, fd, request, arg, memory)
    }

    /// The VMM closes a descriptor: it is forgotten here before the kernel closes it. Returns whether it was known.
    pub fn close(&self, fd: i32) -> bool {
        if !self.files.remove(fd) {
            return false;
        }
        if let Some(model) = &self.model {
            model.forget(fd);
        }
        true
    }

    /// The VMM has a copy of a descriptor, by `dup` and the like. What was behind the number before is forgotten.
    pub fn duplicated(&self, from: i32, to: i32) {
        if from == to {
            return;
        }
        self.close(to);
        if self.files.copy(from, to) {
            if let Some(model) = &self.model {
                model.duplicate(from, to);
            }
        }
    }

    /// The signals that a vCPU's `KVM_RUN` waits with, as `KVM_SET_SIGNAL_MASK` chose them.
    #[must_use]
    pub fn signal_mask(&self, fd: i32) -> Option<u64> {
        self.files.vcpu(fd)?.runner.as_ref()?.signal_mask()
    }

    /// Makes the `KVM_RUN` under way on a descriptor, or the next one, return with `EINTR`, as a signal does.
    pub fn kick(&self, fd: i32) {
        if let Some(kick) = self.files.vcpu(fd).and_then(|vcpu| vcpu.kick()) {
            kick.set(true);
        }
    }

    /// The way in ends a [`Outcome::Blocked`] call with `EINTR`, because a signal came.
    pub fn interrupted(&self, fd: i32) {
        if let Some(vcpu) = self.files.vcpu(fd) {
            self.end_by_signal(&vcpu);
        }
    }

    /// Tells of the runs that were only counted. To be called when the process ends.
    pub fn flush(&self) {
        self.files.flush(|on, count| self.put_now(What::PlainRuns { on, count }));
    }

    /// The way in cannot go on, or not as it should.
    pub fn trouble(&self, why: &str) {
        self.put(What::Trouble { why: why.into() });
    }

    /// Puts a record behind the runs that are still to be told of.
    fn put(&self, what: What) {
        self.flush();
        self.put_now(what);
    }

    fn put_now(&self, what: What) {
        self.sink.put(Record { pid: self.pid, what });
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The file that stands for a path.
fn device(path: &[u8]) -> Option<File> {
    match path {
        b"/dev/kvm" => Some(File::System),
        b"/dev/sev" => Some(File::Sev),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
