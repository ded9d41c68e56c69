//! `KVM_RUN`.

use super::memory::Watch;
use super::{Dispatcher, Model, Outcome};
use crate::pages_unsafe::VcpuPages;
use crate::record::{Run, What};
use exeunt_abi::kvm::run::{ExitReason, RunPage};
use exeunt_abi::{Errno, PAGE_SIZE};
use exeunt_model::device::Runner;
use exeunt_model::{Kick, UserMemory};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A vCPU, as the calls on it need it.
#[derive(Debug)]
pub(super) struct Vcpu {
    pub(super) vm: u32,
    pub(super) id: u32,
    pub(super) pages: VcpuPages,
    /// The model's, if the model is the kernel.
    pub(super) runner: Option<Runner>,
    /// Runs that brought port I/O or MMIO. The thread that runs the vCPU counts.
    pub(super) plain: AtomicU64,
    /// As many of them have been told of. Whoever tells counts, under a lock.
    pub(super) plain_told: AtomicU64,
    /// How many runs there were.
    runs: AtomicU32,
    /// The exit before asked for nothing that anyone judges the answer to.
    was_plain: AtomicBool,
    /// A `KVM_RUN` has not come back, which was told.
    is_inside: AtomicBool,
    /// The scene has been set for this vCPU.
    is_prepared: OnceLock<()>,
    /// Something is in `watch`.
    pub(super) is_watched: AtomicBool,
    pub(super) watch: Mutex<Option<Watch>>,
}

impl Vcpu {
    pub(super) fn new(vm: u32, id: u32, pages: VcpuPages, runner: Option<Runner>) -> Self {
        Self {
            vm,
            id,
            pages,
            runner,
            plain: AtomicU64::new(0),
            plain_told: AtomicU64::new(0),
            runs: AtomicU32::new(0),
            was_plain: AtomicBool::new(false),
            is_inside: AtomicBool::new(false),
            is_prepared: OnceLock::new(),
            is_watched: AtomicBool::new(false),
            watch: Mutex::default(),
        }
    }

    pub(super) fn kick(&self) -> Option<Kick> {
        self.runner.as_ref().map(Runner::kick)
    }
}

/// Exits that a VMM gets before it counts as hung.
#[derive(Debug)]
pub(super) struct Budget {
    most: u32,
    used: AtomicU32,
    is_hung: AtomicBool,
}

impl Budget {
    pub(super) const fn new(most: u32) -> Self {
        Self { most, used: AtomicU32::new(0), is_hung: AtomicBool::new(false) }
    }
}

/// Whether nobody judges an exit.
#[inline]
fn is_plain(result: Result<(), Errno>, after: &RunPage) -> bool {
    result.is_ok() && matches!(after.reason(), ExitReason::IO | ExitReason::MMIO)
}

/// Whether nobody judges the answer to an exit.
fn wants_plain_answer(result: Result<(), Errno>, after: &RunPage) -> bool {
    let asks_for_nothing = matches!(after.reason(), ExitReason::HLT | ExitReason::IRQ_WINDOW_OPEN);
    is_plain(result, after) || result.is_ok() && asks_for_nothing
}

impl Dispatcher {
    /// `KVM_RUN` under the model.
    pub(super) fn scripted_run(&self, vcpu: &Vcpu, runner: &Runner, memory: &Arc<dyn UserMemory>) -> Outcome {
        let Some(model) = &self.model else { return Outcome::NotOurs };
        self.sink.enter();
        let memory = model.memory(memory);
        vcpu.is_prepared.get_or_init(|| self.prepare(model, vcpu, runner));
        self.tell_what_was_written(vcpu, memory);
        if self.is_used_up() {
            let before = vcpu.pages.run();
            let [_, immediate_exit, ..] = before.user;
            if immediate_exit != 0 {
                return Outcome::Done(Err(Errno::EINTR));
            }
            self.tell_of_stay(vcpu, before);
            return Outcome::Blocked;
        }
        let before = vcpu.pages.run();
        let ran = runner.run(memory, &before, &vcpu.pages);
        if ran.is_blocked {
            // The VMM is still inside of the call, and its page is as it was. With the local APIC in the kernel this is
            // how a guest that has ended looks.
            self.tell_of_stay(vcpu, before);
            if model.is_newly_over() {
                self.put(What::SceneOver);
            }
            return Outcome::Blocked;
        }
        let (mut result, mut after) = (ran.result, ran.after);
        // One thread at a time runs a vCPU.
        let nth = vcpu.runs.load(Ordering::Relaxed);
        vcpu.runs.store(nth.wrapping_add(1), Ordering::Relaxed);
        if let Some(rewrite) = model.later() {
            rewrite(nth, &mut result, &mut after);
        }
        vcpu.is_inside.store(false, Ordering::Relaxed);
        if result == Err(Errno::EINTR) {
            // A kick is for one call.
            runner.kick().set(false);
        }
        vcpu.pages.set_run(&after);
        self.ran(vcpu, &before, result, &after, memory);
        if model.is_newly_over() {
            self.put(What::SceneOver);
        }
        Outcome::Done(result.map(|()| 0))
    }

    /// A `KVM_RUN` does not come back for now. What it was entered with is told once.
    fn tell_of_stay(&self, vcpu: &Vcpu, before: RunPage) {
        if !vcpu.is_inside.swap(true, Ordering::Relaxed) {
            let [_, immediate_exit, ..] = before.user;
            let (vm, vcpu, before) = (vcpu.vm, vcpu.id, Box::new(before));
            self.put(What::Inside { vm, vcpu, immediate: immediate_exit != 0, before });
        }
    }

    /// A signal ended a `KVM_RUN` that waited.
    pub(super) fn end_by_signal(&self, vcpu: &Vcpu) {
        let before = vcpu.pages.run();
        let mut after = before.clone();
        after.exit_reason = ExitReason::INTR.0;
        vcpu.pages.set_run(&after);
        vcpu.is_inside.store(false, Ordering::Relaxed);
        if let Some(kick) = vcpu.kick() {
            kick.set(false);
        }
        self.record_run(vcpu, &before, Err(Errno::EINTR), &after);
    }

    fn prepare(&self, model: &Model, vcpu: &Vcpu, runner: &Runner) {
        model.prepare(runner, |gpa| {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.find(vcpu.vm, gpa.0, PAGE_SIZE).into_iter().next()
        });
    }

    /// A `KVM_RUN` came back, with the page as it is now.
    #[inline]
    pub(super) fn ran(
        &self,
        vcpu: &Vcpu,
        before: &RunPage,
        result: Result<(), Errno>,
        after: &RunPage,
        memory: &Arc<dyn UserMemory>,
    ) {
        // What a VMM answered to any other exit is in the page that it enters with next.
        if is_plain(result, after) && vcpu.was_plain.load(Ordering::Relaxed) {
            self.files.plain(vcpu);
        } else {
            self.tell_of_run(vcpu, before, result, after, memory);
        }
    }

    fn tell_of_run(
        &self,
        vcpu: &Vcpu,
        before: &RunPage,
        result: Result<(), Errno>,
        after: &RunPage,
        memory: &Arc<dyn UserMemory>,
    ) {
        vcpu.was_plain.store(wants_plain_answer(result, after), Ordering::Relaxed);
        if !is_plain(result, after) && !matches!(result, Err(Errno::EINTR | Errno::EAGAIN)) {
            self.budget.used.fetch_add(1, Ordering::Relaxed);
        }
        self.watch(vcpu, result, after, memory);
        self.record_run(vcpu, before, result, after);
    }

    fn record_run(&self, vcpu: &Vcpu, before: &RunPage, result: Result<(), Errno>, after: &RunPage) {
        let [_, immediate_exit, ..] = before.user;
        let (before, after) = (before.clone(), after.clone());
        self.put(What::Run(Box::new(Run {
            vm: vcpu.vm,
            vcpu: vcpu.id,
            immediate: immediate_exit != 0,
            injected: false,
            before,
            result,
            after,
        })));
    }

    /// Whether the VMM entered too often. Said once.
    fn is_used_up(&self) -> bool {
        if self.budget.used.load(Ordering::Relaxed) < self.budget.most {
            return false;
        }
        // What comes after the end of the scene is no sign of anything.
        let is_over = self.model.as_ref().is_some_and(Model::is_over);
        if !is_over && !self.budget.is_hung.swap(true, Ordering::Relaxed) {
            self.put(What::Hung);
        }
        true
    }
}
