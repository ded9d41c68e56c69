//! The thread that answers.

use super::descriptors::{Caller, Handed, Places};
use super::filter::{ARCH_X86_64, number};
use super::listener_unsafe::{Answer, Listener, Notification, Waited};
use super::numbers::{bits, int, unsigned_int};
use super::process::{Process, Processes, has_signal};
use super::real::Entries;
use super::scripted::Kept;
use crate::dispatch::{self, DispatchError, Dispatcher, Outcome, Overlay, Sink};
use crate::plan::{Plan, Stage};
use crate::record::{Record, What};
use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl::KVM_RUN;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Answers the system calls of a tree of processes, on one thread.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) listener: Arc<Listener>,
    pub(super) plan: Plan,
    sink: Arc<dyn Sink>,
    overlay: Option<Arc<dyn Overlay>>,
    processes: Processes,
    pub(super) places: Arc<Places>,
    pub(super) members: BTreeMap<i32, Member>,
    waiting: Vec<Sleeper>,
    looked: Instant,
    /// A process that cannot be looked into was told of.
    pub(super) is_closed: Cell<bool>,
}

/// How a supervisor's work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// No process is left.
    Over,
    /// It was told to stop.
    Stopped,
}

/// A process that has to do with KVM.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) handed: Arc<Handed>,
    pub(super) dispatcher: Dispatcher,
    /// Exits that nobody took, by vCPU.
    pub(super) kept: BTreeMap<i32, Kept>,
    /// Entries of real vCPUs.
    pub(super) entries: Entries,
    /// A thread, and the number of a vCPU that it has entered since a number was closed.
    pub(super) trusted: Option<(i32, i32)>,
}

/// A `KVM_RUN` whose vCPU has nothing to do.
#[derive(Clone, Copy, Debug)]
struct Sleeper {
    call: Notification,
    /// The process whose vCPU it is.
    pid: i32,
    fd: i32,
}

/// How long a call that sleeps waits for the next look at it.
const NAP: Duration = Duration::from_millis(1);
/// How long it takes until an order to stop is seen.
const IDLE: Duration = Duration::from_millis(20);

impl Supervisor {
    /// A supervisor behind the listener of a [`super::Filter`] for the plan's stage.
    ///
    /// # Errors
    ///
    /// The plan is not one that can be followed.
    pub fn new(
        listener: OwnedFd,
        plan: &Plan,
        sink: Arc<dyn Sink>,
        overlay: Option<Arc<dyn Overlay>>,
    ) -> Result<Self, DispatchError> {
        let supervisor = Self {
            listener: Arc::new(Listener::new(listener)),
            plan: plan.clone(),
            sink,
            overlay,
            processes: Processes::default(),
            places: Arc::default(),
            members: BTreeMap::new(),
            waiting: Vec::new(),
            looked: Instant::now(),
            is_closed: Cell::new(false),
        };
        // Whether the plan can be followed is known before the first process needs it.
        supervisor.new_member(0)?;
        Ok(supervisor)
    }

    /// Answers until no process is left, or until it is told to stop. Calls that wait then fail with `ENOSYS` when the
    /// supervisor is dropped, so the processes should be ended first.
    ///
    /// # Errors
    ///
    /// What keeps the listener from being asked.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<Ended, Errno> {
        loop {
            if stop.load(Ordering::Relaxed) {
                self.finish();
                return Ok(Ended::Stopped);
            }
            let timeout = if self.waiting.is_empty() { IDLE } else { NAP };
            match self.listener.wait(timeout)? {
                Waited::Notified => self.serve_next()?,
                Waited::Nothing => {}
                Waited::Over => {
                    self.finish();
                    return Ok(Ended::Over);
                }
            }
            if !self.waiting.is_empty() && self.looked.elapsed() >= NAP {
                self.look_at_sleepers();
            }
        }
    }

    fn serve_next(&mut self) -> Result<(), Errno> {
        let Some(call) = self.listener.receive()? else { return Ok(()) };
        let answer = match self.enter_again(&call) {
            Some(answer) => answer,
            None => self.serve(&call),
        };
        if let Some(answer) = answer {
            // Who was interrupted gets no answer, and makes the call again if it matters.
            let _ = self.listener.send(call.id, answer);
        }
        Ok(())
    }

    /// What becomes of a call. `None`: it has its answer, or gets it later.
    fn serve(&mut self, call: &Notification) -> Option<Answer> {
        // If the thread is gone, nobody waits.
        let Some(process) = self.processes.of_thread(call.tid) else { return Some(Answer::Continue) };
        match self.plan.stage {
            Stage::Scripted => self.scripted(call, &process),
            Stage::Observe | Stage::Overlay => self.real(call, &process),
        }
    }

    /// The short way of a `KVM_RUN` by a thread that has entered the vCPU before. `None`: it is not one.
    #[expect(clippy::option_option, reason = "whether it is one, and whether it has an answer yet")]
    fn enter_again(&mut self, call: &Notification) -> Option<Option<Answer>> {
        let [fd, request, ..] = call.args;
        let is_ioctl = call.arch == ARCH_X86_64 && call.nr == number(libc::SYS_ioctl);
        if !is_ioctl || unsigned_int(request) != KVM_RUN.0 {
            return None;
        }
        let process = self.processes.remembered(call.tid)?;
        let member = self.members.get_mut(&process.pid)?;
        if self.plan.stage != Stage::Scripted {
            return member.enter_again(call, process, int(fd)).map(Some);
        }
        if member.trusted != Some((call.tid, int(fd))) {
            return None;
        }
        let process = process.clone();
        Some(self.scripted_run(call, &process, process.pid, int(fd)))
    }

    fn finish(&mut self) {
        for member in self.members.values_mut() {
            member.finish();
            member.dispatcher.flush();
        }
    }

    /// The member for a process.
    pub(super) fn member(&mut self, pid: i32) -> Option<&mut Member> {
        if !self.members.contains_key(&pid) {
            // The plan has been followed before, in `new`.
            let member = self.new_member(pid).ok()?;
            self.members.insert(pid, member);
        }
        self.members.get_mut(&pid)
    }

    /// Records that something is not as it should be.
    pub(super) fn trouble(&self, pid: i32, why: &str) {
        self.sink.put(Record { pid: bits(pid), what: What::Trouble { why: why.into() } });
    }

    fn new_member(&self, pid: i32) -> Result<Member, DispatchError> {
        let handed = Arc::new(Handed::new(pid, Arc::clone(&self.listener), Arc::clone(&self.places)));
        let process: Arc<dyn dispatch::Process> = Arc::<Handed>::clone(&handed);
        let pid = pid.unsigned_abs();
        let mut dispatcher = Dispatcher::new(&self.plan, pid, process, Arc::clone(&self.sink))?;
        if let Some(overlay) = &self.overlay {
            dispatcher = dispatcher.with_overlay(Arc::clone(overlay));
        }
        Ok(Member { handed, dispatcher, kept: BTreeMap::new(), entries: Entries::default(), trusted: None })
    }

    /// `KVM_RUN` under the model, on a vCPU that is a process's under this number.
    pub(super) fn scripted_run(
        &mut self,
        call: &Notification,
        caller: &Process,
        pid: i32,
        fd: i32,
    ) -> Option<Answer> {
        let member = self.members.get_mut(&pid)?;
        let [_, _, arg, ..] = call.args;
        if let Some(result) = member.take_kept(fd) {
            return Some(Answer::Return(result));
        }
        match member.dispatcher.ioctl(fd, KVM_RUN.0, arg, &caller.memory) {
            Outcome::NotOurs => Some(Answer::Continue),
            Outcome::Done(result) => {
                self.bring(call.id, pid, fd, result);
                None
            }
            Outcome::Blocked => {
                self.waiting.push(Sleeper { call: *call, pid, fd });
                None
            }
        }
    }

    /// Brings an exit to the vCPU's thread. If a signal came in between, it is kept.
    fn bring(&mut self, id: u64, pid: i32, fd: i32, result: Result<u32, Errno>) {
        let answer = Answer::Return(result.map(i64::from));
        let sent = self.listener.send(id, answer);
        if let (Err(_), Some(member)) = (sent, self.members.get_mut(&pid)) {
            member.keep(fd, result);
        }
    }

    /// Looks whether those who sleep have something to do now, or a signal.
    fn look_at_sleepers(&mut self) {
        for sleeper in std::mem::take(&mut self.waiting) {
            let Sleeper { call, pid, fd } = sleeper;
            if !self.listener.is_valid(call.id) {
                // A signal interrupted the call, or the thread is gone.
                continue;
            }
            let Some(process) = self.processes.of_thread(call.tid) else { continue };
            let Some(member) = self.members.get(&pid) else { continue };
            member.handed.set_caller(Caller::on(call.id, fd));
            if has_signal(call.tid, member.dispatcher.signal_mask(fd)) {
                // As KVM: the page says so, and the call is not made again by the kernel.
                member.dispatcher.interrupted(fd);
                let _ = self.listener.send(call.id, Answer::Return(Err(Errno::EINTR)));
                continue;
            }
            let [_, _, arg, ..] = call.args;
            match member.dispatcher.ioctl(fd, KVM_RUN.0, arg, &process.memory) {
                Outcome::Done(result) => self.bring(call.id, pid, fd, result),
                Outcome::Blocked => self.waiting.push(sleeper),
                Outcome::NotOurs => {
                    let _ = self.listener.send(call.id, Answer::Continue);
                }
            }
        }
        self.looked = Instant::now();
    }
}
