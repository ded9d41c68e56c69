//! The model as `/dev/kvm` and `/dev/sev`.

use super::hole::Hole;
use super::run::Vcpu;
use super::{DispatchError, Dispatcher, Outcome, Process, argument};
use crate::plan::Plan;
use crate::record::{File, What};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::device_attr::EnableCap;
use exeunt_abi::kvm::ioctl::{self as nr, Ioctl, KVMIO, SEV_IOC_TYPE};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Errno, Gpa, Kernel};
use exeunt_model::device::{Descriptors, Device, Path, Program, Runner};
use exeunt_model::{Firmware, Host, UserMemory};
use exeunt_scenes::{Rewrite, Situation, situations};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use zerocopy::{FromZeros, IntoBytes};

/// The model, with a scene in it.
pub(super) struct Model {
    device: Device,
    numbers: Arc<Numbers>,
    situation: Option<Situation>,
    actors: Arc<Actors>,
    /// The scene was set, in the VM that ran first. A VMM may have made others before, to see what the kernel can do.
    is_prepared: AtomicBool,
    /// The process's memory, if a page of the guest's is missing from it.
    hole: Hole,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("device", &self.device).finish_non_exhaustive()
    }
}

/// The programs of the scene.
#[derive(Debug, Default)]
struct Actors {
    begun: AtomicU32,
    ended: AtomicU32,
    is_told: AtomicBool,
}

/// Descriptor numbers that are the VMM's.
#[derive(Debug)]
struct Numbers {
    process: Arc<dyn Process>,
    /// What the VMM's own calls do to numbers, of which the process is not to be asked.
    by_vmm: Mutex<ByVmm>,
}

#[derive(Debug, Default)]
struct ByVmm {
    /// It made this one.
    made: Option<i32>,
    /// It closes this one.
    closes: Option<i32>,
}

impl Numbers {
    fn by_vmm<T>(&self, change: impl FnOnce(&mut ByVmm) -> T) -> T {
        change(&mut self.by_vmm.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Descriptors for Numbers {
    fn take(&self) -> Result<i32, Errno> {
        match self.by_vmm(|by_vmm| by_vmm.made.take()) {
            Some(fd) => Ok(fd),
            None => self.process.take(),
        }
    }

    fn give_back(&self, fd: i32) {
        if self.by_vmm(|by_vmm| by_vmm.closes.take_if(|closes| *closes == fd)).is_none() {
            self.process.give_back(fd);
        }
    }

    fn event_file(&self, fd: i32) -> Result<(), Errno> {
        self.process.event_file(fd)
    }
}

impl Model {
    pub(super) fn new(plan: &Plan, process: &Arc<dyn Process>) -> Result<Self, DispatchError> {
        let situation = match &plan.scene {
            Some(name) => {
                Some(situations::find(name).ok_or_else(|| DispatchError::NoScene { name: name.clone() })?)
            }
            None => None,
        };
        let mut kernel = situation.as_ref().map_or_else(Kernel::default, |situation| situation.kernel);
        if kernel.arch != Arch::X86 {
            return Err(DispatchError::OtherArch { name: plan.scene.clone().unwrap_or_default() });
        }
        kernel.dialect = plan.dialect.unwrap_or(kernel.dialect);
        let is_td = situation.as_ref().is_some_and(|situation| situation.vm_type == VmType::Tdx);
        let host = if is_td { Host::INTEL } else { Host::AMD };
        let numbers = Arc::new(Numbers { process: Arc::clone(process), by_vmm: Mutex::default() });
        let device = Device::with_descriptors(kernel, host, Arc::<Numbers>::clone(&numbers));
        device.set_seed(plan.seed);
        let actors = Arc::new(Actors::default());
        if let Some(Situation { guest, vcpus, .. }) = situation {
            let actors = Arc::clone(&actors);
            device.set_guest(move |id, cpu| {
                if id < u64::from(vcpus) {
                    Actors::play(&actors, guest(cpu))
                } else {
                    Box::pin(async { Ok(()) })
                }
            });
        }
        Ok(Self {
            device,
            numbers,
            situation,
            actors,
            is_prepared: AtomicBool::new(false),
            hole: Hole::default(),
        })
    }

    pub(super) fn open(&self, file: File, is_writable: bool) -> Result<i32, Errno> {
        if file == File::Sev { self.device.open_sev(is_writable) } else { self.device.open(Path::Kvm) }
    }

    /// The same for a number that the process has already.
    pub(super) fn open_as(&self, fd: i32, file: File, is_writable: bool) -> Result<i32, Errno> {
        self.numbers.by_vmm(|by_vmm| by_vmm.made = Some(fd));
        let result = self.open(file, is_writable);
        self.numbers.by_vmm(|by_vmm| by_vmm.made = None);
        result
    }

    /// The VMM closes a number.
    pub(super) fn forget(&self, fd: i32) {
        self.numbers.by_vmm(|by_vmm| by_vmm.closes = Some(fd));
        // A number that the model does not know was never open.
        let _ = self.device.close(fd);
        self.numbers.by_vmm(|by_vmm| by_vmm.closes = None);
    }

    /// The VMM made a number that leads where another one leads.
    pub(super) fn duplicate(&self, from: i32, to: i32) {
        self.numbers.by_vmm(|by_vmm| by_vmm.made = Some(to));
        // What is not open has no copy.
        let _ = self.device.dup(from);
        self.numbers.by_vmm(|by_vmm| by_vmm.made = None);
    }

    pub(super) fn fallocate(&self, fd: i32, mode: u32, offset: i64, bytes: i64) -> Result<(), Errno> {
        self.device.fallocate(fd, mode, offset, bytes)
    }

    /// The guest is about to begin: what the scene does to its VM and its first vCPU is done now.
    pub(super) fn prepare(&self, runner: &Runner, find: impl FnOnce(Gpa) -> Option<Range<u64>>) {
        let Some(situation) = &self.situation else { return };
        if self.is_prepared.swap(true, Ordering::Relaxed) {
            return;
        }
        if situation.vm_type.has_ghcb() {
            // The programs of most scenes send the firmware nothing that it could read.
            runner.vm().set_firmware(Firmware::Completes { status: 0 });
        }
        // Where there is no slot there is no hole either.
        if let Some(addresses) = situation.unmapped.and_then(find) {
            self.hole.set(addresses);
        }
        if let Some(prepare) = situation.prepare {
            prepare(&runner.vm());
        }
        if let Some(prepare) = situation.prepare_vcpu {
            runner.change(prepare);
        }
    }

    pub(super) fn later(&self) -> Option<Rewrite> {
        self.situation.as_ref()?.later
    }

    /// Every program that began has ended.
    pub(super) fn is_over(&self) -> bool {
        let ended = self.actors.ended.load(Ordering::Relaxed);
        ended != 0 && ended >= self.actors.begun.load(Ordering::Relaxed)
    }

    /// The same, once.
    #[inline]
    pub(super) fn is_newly_over(&self) -> bool {
        self.is_over() && !self.actors.is_told.swap(true, Ordering::Relaxed)
    }

    /// The process's memory as the model meets it.
    pub(super) fn memory<'a>(&'a self, memory: &'a Arc<dyn UserMemory>) -> &'a Arc<dyn UserMemory> {
        if self.situation.as_ref().is_none_or(|situation| situation.unmapped.is_none()) {
            return memory;
        }
        self.hole.of(memory)
    }

    fn call(&self, fd: i32, request: Ioctl, arg: u64, memory: &Arc<dyn UserMemory>) -> Result<u32, Errno> {
        let memory = self.memory(memory);
        let later = self.situation.as_ref().map_or(0, |situation| situation.later_hypercalls);
        if request == nr::KVM_ENABLE_CAP && later != 0 {
            let mut enable = EnableCap::new_zeroed();
            let is_read = memory.read(arg, enable.as_mut_bytes()).is_ok();
            if is_read && enable.cap == Cap::EXIT_HYPERCALL.0 {
                // A newer kernel takes what it offers.
                let [argument, ..] = &mut enable.args;
                *argument &= !later;
                return self.device.vm(fd)?.enable_cap_args(&enable).map(|()| 0);
            }
        }
        let result = self.device.ioctl(fd, request.0, arg, memory)?;
        let asks = request == nr::KVM_CHECK_EXTENSION && arg == u64::from(Cap::EXIT_HYPERCALL.0);
        Ok(if asks { result | u32::try_from(later).unwrap_or(0) } else { result })
    }
}

impl Actors {
    fn play(actors: &Arc<Self>, program: Program) -> Program {
        let actor = Actor { actors: Arc::clone(actors), has_ended: false };
        actors.begun.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            // The whole of it lives as long as the program.
            let mut actor = actor;
            let result = program.await;
            actor.has_ended = true;
            result
        })
    }
}

/// One program. If its VM is gone before its end, nobody waits for it.
struct Actor {
    actors: Arc<Actors>,
    has_ended: bool,
}

impl Drop for Actor {
    fn drop(&mut self) {
        if self.has_ended {
            self.actors.ended.fetch_add(1, Ordering::Relaxed);
        } else {
            self.actors.begun.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Dispatcher {
    pub(super) fn scripted_ioctl(
        &self,
        model: &Model,
        fd: i32,
        request: u32,
        arg: u64,
        memory: &Arc<dyn UserMemory>,
    ) -> Outcome {
        if request == nr::KVM_RUN.0 && arg == 0 {
            let run = |vcpu: &Vcpu| Some(self.scripted_run(vcpu, vcpu.runner.as_ref()?, memory));
            if let Some(outcome) = self.files.with_vcpu(fd, run).flatten() {
                return outcome;
            }
        }
        let Some(on) = self.files.file(fd) else { return Outcome::NotOurs };
        // No VMM asks KVM for what is not KVM's, so the number may have been given to another file unseen.
        let is_kvms = matches!(Ioctl(request).parts().kind, KVMIO | SEV_IOC_TYPE);
        if !is_kvms && !self.process.is_same(fd) {
            self.close(fd);
            return Outcome::NotOurs;
        }
        let before = argument::bytes(memory.as_ref(), request, arg);
        let result = model.call(fd, Ioctl(request), arg, memory);
        let (after, made) = self.behind(on, request, arg, result, memory);
        let made = made.map(|(_, file)| file);
        self.put(What::Ioctl { on, request, arg, before, after, result, made });
        Outcome::Done(result)
    }

    /// Remembers the file that a call made.
    pub(super) fn adopt(
        &self,
        on: File,
        request: Ioctl,
        arg: u64,
        value: u32,
        after: &[u8],
    ) -> Option<(i32, File)> {
        let in_struct = || argument::half_at(after, 4).and_then(|fd| i32::try_from(fd).ok());
        let fd = i32::try_from(value).ok();
        let (fd, file) = match (on, request) {
            (File::System, nr::KVM_CREATE_VM) => (fd?, self.files.new_vm()),
            (File::Vm(vm), nr::KVM_CREATE_VCPU) => {
                let (fd, id) = (fd?, u32::try_from(arg).ok()?);
                return Some((fd, self.adopt_vcpu(vm, id, fd)));
            }
            (File::Vm(vm), nr::KVM_CREATE_GUEST_MEMFD) => (fd?, self.files.new_gmem(vm)),
            // Asked with a flag, whether there are such devices.
            (File::Vm(_), nr::KVM_CREATE_DEVICE) if argument::half_at(after, 8)? & 1 != 0 => return None,
            (File::Vm(vm), nr::KVM_CREATE_DEVICE) => (in_struct()?, File::Device(vm)),
            (File::Vm(vm) | File::Vcpu(vm, _), nr::KVM_GET_STATS_FD) => (fd?, File::Device(vm)),
            _ => return None,
        };
        self.files.insert(fd, file, None);
        Some((fd, file))
    }

    fn adopt_vcpu(&self, vm: u32, id: u32, fd: i32) -> File {
        let file = File::Vcpu(vm, id);
        let vcpu = match self.process.pages(fd) {
            Ok(pages) => {
                let runner = self.model.as_ref().and_then(|model| model.device.runner(fd).ok());
                Some(Arc::new(Vcpu::new(vm, id, pages, runner)))
            }
            Err(errno) => {
                self.trouble(&format!("the pages of vCPU {id} cannot be mapped: {errno}"));
                None
            }
        };
        self.files.insert(fd, file, vcpu);
        file
    }
}
