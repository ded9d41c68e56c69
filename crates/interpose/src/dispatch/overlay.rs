//! What comes between the exits of a real kernel.
//!
//! A `KVM_RUN` that brings an exit of a scene is not made. The kernel takes in what the VMM answered to its own exit
//! before, by a `KVM_RUN` with `immediate_exit`, where the way in can make one; its bytes are put aside; the exit is
//! written, and the VMM has it. At the next `KVM_RUN` the page holds the VMM's answer, the kernel's bytes are put back,
//! and the kernel goes on as if nothing had been.

use super::possible::{Facts, possible};
use super::{DispatchError, Stage};
use crate::pages_unsafe::VcpuPages;
use crate::plan::Plan;
use crate::record::{File, What};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::cpuid::{Cpuid2, CpuidEntry2, MAX_ENTRIES};
use exeunt_abi::kvm::device_attr::EnableCap;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::run::{MAP_GPA_RANGE, RunPage};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno};
use exeunt_model::UserMemory;
use exeunt_scenes::overlay::{self, Injected, Injection};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zerocopy::{FromZeros, IntoBytes};

/// Something that answers some calls in the place of the kernel.
pub trait Overlay: fmt::Debug + Send + Sync {
    /// `KVM_RUN` is about to be made. `enter` makes one, with `immediate_exit` as it is in the page; `None`: it cannot.
    fn run(&self, on: File, pages: &VcpuPages, enter: &dyn Fn() -> Option<Result<u32, Errno>>) -> Turn;

    /// Another ioctl is about to be made. `Some` is its result; it is recorded as if the kernel had made it.
    fn ioctl(&self, call: &Call<'_>) -> Option<Result<u32, Errno>>;

    /// Another ioctl was made, or answered.
    fn made(&self, call: &Call<'_>, result: Result<u32, Errno>, made: Option<File>);
}

/// An ioctl.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// On what.
    pub on: File,
    /// The whole request.
    pub request: u32,
    /// The argument.
    pub arg: u64,
    /// The memory of who makes it.
    pub memory: &'a dyn UserMemory,
}

/// What becomes of a `KVM_RUN`.
#[derive(Debug)]
pub struct Turn {
    /// Who brings the exit.
    pub by: By,
    /// The page that it was entered with is the answer to an exit that was put in.
    pub is_answer: bool,
    /// What else is to be recorded, behind the run.
    pub notes: Vec<What>,
}

/// Who brings an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The kernel is to run the vCPU.
    Kernel,
    /// It was put in: the page holds it, and this is what the call returns.
    Us(Result<(), Errno>),
    /// The kernel brought one when it was only to take the answer: the page holds it.
    KernelAlready(Result<u32, Errno>),
}

/// A scene that is played.
#[derive(Debug)]
pub(super) struct Player {
    injections: Vec<Injection>,
    kernel: Dialect,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    vms: BTreeMap<u32, Facts>,
    /// The first vCPU of each VM.
    vcpus: BTreeMap<u32, Course>,
    is_over: bool,
    is_given_up: bool,
}

/// How far a vCPU is.
#[derive(Debug, Default)]
struct Course {
    /// How many exits were put in.
    done: usize,
    /// How often the kernel ran it since.
    kernels: u32,
    /// The VMM has not answered the exit that was put in last.
    is_open: bool,
    /// The kernel's bytes.
    aside: Option<RunPage>,
}

impl Player {
    /// The scene of a plan, if it has one and is of this stage.
    ///
    /// # Errors
    ///
    /// There is no such scene.
    pub(super) fn of(plan: &Plan) -> Result<Option<Arc<dyn Overlay>>, DispatchError> {
        let Some(name) = plan.scene.as_ref().filter(|_| plan.stage == Stage::Overlay) else {
            return Ok(None);
        };
        let scene = overlay::find(name).ok_or_else(|| DispatchError::NoScene { name: name.clone() })?;
        // Another seed is another place.
        let shift = u32::try_from(plan.seed % 4).unwrap_or_default();
        let injections = scene.injections.iter().enumerate().map(|(nth, injection)| {
            let after = if nth == 0 { injection.after.saturating_add(shift) } else { injection.after };
            Injection { after, ..*injection }
        });
        Ok(Some(Arc::new(Self {
            injections: injections.collect(),
            kernel: plan.dialect.unwrap_or_default(),
            state: Mutex::default(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scene needs a capability, and its kernel has it, so that the VMM is told of it whatever the host has.
    fn offers_hypercalls(&self) -> bool {
        let needs = self.injections.iter().any(|step| matches!(step.exit, Injected::MapGpaRange { .. }));
        needs && self.kernel.has_exit_hypercall()
    }

    /// The exit that comes now, if one does.
    fn due(&self, state: &mut State, vm: u32, notes: &mut Vec<What>) -> Option<Injected> {
        let course = state.vcpus.entry(vm).or_default();
        if state.is_given_up {
            return None;
        }
        let Some(step) = self.injections.get(course.done) else {
            if !std::mem::replace(&mut state.is_over, true) {
                notes.push(What::SceneOver);
            }
            return None;
        };
        if course.kernels < step.after {
            return None;
        }
        let facts = state.vms.get(&vm).copied().unwrap_or_default();
        match possible(step.exit, facts, self.kernel) {
            Ok(()) => Some(step.exit),
            Err(why) => {
                state.is_given_up = true;
                let why = format!("the scene was not played to its end, because {why}");
                // The guest may halt for ever, and nobody waits for more.
                notes.extend([What::Trouble { why }, What::SceneOver]);
                None
            }
        }
    }
}

impl Overlay for Player {
    fn run(&self, on: File, pages: &VcpuPages, enter: &dyn Fn() -> Option<Result<u32, Errno>>) -> Turn {
        let File::Vcpu(vm, 0) = on else {
            return Turn { by: By::Kernel, is_answer: false, notes: Vec::new() };
        };
        let mut state = self.lock();
        let mut notes = Vec::new();
        let is_answer = std::mem::take(&mut state.vcpus.entry(vm).or_default().is_open);
        // Who asks to be let out at once gets what the kernel says to that.
        let due = if pages.immediate_exit() { None } else { self.due(&mut state, vm, &mut notes) };
        let course = state.vcpus.entry(vm).or_default();
        let by = match due {
            Some(exit) => put_in(exit, course, pages, enter),
            None => By::Kernel,
        };
        match by {
            By::Us(_) => {
                (course.kernels, course.is_open) = (0, true);
                course.done = course.done.saturating_add(1);
            }
            By::Kernel => {
                course.kernels = course.kernels.saturating_add(1);
                if let Some(aside) = course.aside.take() {
                    put_back(&aside, pages);
                }
            }
            By::KernelAlready(_) => course.kernels = course.kernels.saturating_add(1),
        }
        Turn { by, is_answer, notes }
    }

    fn ioctl(&self, call: &Call<'_>) -> Option<Result<u32, Errno>> {
        if !self.offers_hypercalls() {
            return None;
        }
        let offered = 1 << MAP_GPA_RANGE;
        match nr::Ioctl(call.request) {
            nr::KVM_CHECK_EXTENSION if call.arg == u64::from(Cap::EXIT_HYPERCALL.0) => Some(Ok(offered)),
            nr::KVM_ENABLE_CAP => {
                let (cap, [mask, ..]) = enabled(call)?;
                // Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vm_ioctl_enable_cap`.
                let result = if mask & !u64::from(offered) == 0 { Ok(0) } else { Err(Errno::EINVAL) };
                (cap == Cap::EXIT_HYPERCALL).then_some(result)
            }
            _ => None,
        }
    }

    fn made(&self, call: &Call<'_>, result: Result<u32, Errno>, made: Option<File>) {
        if result.is_err() {
            return;
        }
        let mut state = self.lock();
        if let (nr::KVM_CREATE_VM, Some(File::Vm(vm))) = (nr::Ioctl(call.request), made) {
            state.vms.insert(vm, Facts { vm_type: VmType::from_number(call.arg), ..Facts::default() });
            return;
        }
        let (File::Vm(vm) | File::Vcpu(vm, _)) = call.on else { return };
        let facts = state.vms.entry(vm).or_default();
        match nr::Ioctl(call.request) {
            nr::KVM_CREATE_IRQCHIP => facts.has_kernel_apic = true,
            nr::KVM_SET_CPUID2 => facts.has_hyperv |= shows_hyperv(call),
            nr::KVM_ENABLE_CAP => match enabled(call) {
                Some((Cap::SPLIT_IRQCHIP, _)) => facts.has_kernel_apic = true,
                Some((Cap::EXIT_HYPERCALL, [mask, ..])) => facts.hypercalls = mask,
                _ => {}
            },
            _ => {}
        }
    }
}

/// Writes an exit into the page, after the kernel has taken the answer to its own.
fn put_in(
    exit: Injected,
    course: &mut Course,
    pages: &VcpuPages,
    enter: &dyn Fn() -> Option<Result<u32, Errno>>,
) -> By {
    if course.aside.is_none() {
        if !pages.hold() {
            return By::Kernel;
        }
        let entered = enter();
        pages.release();
        match entered {
            // The way in cannot: the kernel takes the answer when it is entered for good.
            None | Some(Err(Errno::EINTR)) => {}
            Some(other) => return By::KernelAlready(other),
        }
    }
    let mut page = pages.run();
    course.aside.get_or_insert_with(|| page.clone());
    let result = exit.write(&mut page);
    pages.set_run(&page);
    By::Us(result)
}

/// Puts the kernel's bytes back, without those that are the VMM's to write.
fn put_back(aside: &RunPage, pages: &VcpuPages) {
    let page = pages.run();
    pages.set_run(&RunPage { exit_reason: aside.exit_reason, exit: aside.exit, ..page });
}

fn enabled(call: &Call<'_>) -> Option<(Cap, [u64; 4])> {
    let mut enable = EnableCap::new_zeroed();
    call.memory.read(call.arg, enable.as_mut_bytes()).ok()?;
    Some((Cap(enable.cap), enable.args))
}

/// Source: Linux v7.2 `arch/x86/kvm/hyperv.c`, `kvm_hv_set_cpuid`.
fn shows_hyperv(call: &Call<'_>) -> bool {
    /// `HYPERV_CPUID_INTERFACE` and `HYPERV_CPUID_SIGNATURE_EAX`, "Hv#1".
    const INTERFACE: (u32, u32) = (0x4000_0001, 0x3123_7648);
    let mut head = Cpuid2::default();
    let Ok(()) = call.memory.read(call.arg, head.as_mut_bytes()) else { return false };
    (0..u64::from(head.nent.min(MAX_ENTRIES))).any(|nth| {
        let mut entry = CpuidEntry2::default();
        let offset = nth.saturating_mul(size_of::<CpuidEntry2>() as u64).saturating_add(8);
        let read = call.memory.read(call.arg.saturating_add(offset), entry.as_mut_bytes());
        read.is_ok() && (entry.function, entry.eax) == INTERFACE
    })
}

#[cfg(test)]
#[path = "overlay/tests.rs"]
mod tests;
