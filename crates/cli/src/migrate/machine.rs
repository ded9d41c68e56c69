//! A VM that can be saved and built again, on either kernel half.

use super::console::{Console, WithConsole};
use super::model;
use crate::Failure;
use exeunt::memory::{GuestMemory, MemorySlot, PageInfo};
use exeunt::run::step_observed;
use exeunt::snapshot::{
    DeviceState, Drained, Layout, Need, Origin, PrivatePages, SlotLayout, Snapshot, Target, check_head,
    restore_vcpu, save,
};
use exeunt::{Policy, Stop, Watch};
use exeunt_abi::Dialect;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_proto::conversion::PageState;
use exeunt_proto::host::{Host, Vcpu};
use exeunt_proto::state::State;
use serde::Serialize;
use std::path::Path;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use super::kvm;

/// Exits of one run, after which a guest that says nothing is given up.
const MAX_EXITS: u64 = 1 << 20;
/// The name of the device that says which guest runs, for whoever builds the VM again.
const GUEST: &str = "guest";

/// Which kernel half is below a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kernel {
    /// In software: no hardware, no privileges
    Model,
    /// The host's /dev/kvm
    Kvm,
}

/// What a target is, and what kernel the model imitates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) dialect: Dialect,
}

/// A VM with one vCPU, a guest that counts, and the console that it counts on.
pub(crate) struct Running<V, H> {
    pub(super) vcpu: V,
    pub(super) host: WithConsole<H>,
    pub(super) policy: Policy,
    pub(super) origin: Origin,
    pub(super) slots: Vec<SlotLayout>,
}

/// A VM.
pub(crate) enum Machine {
    Model(Box<Running<exeunt_model::Vcpu, exeunt_model::Effects>>),
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Kvm(Box<Running<exeunt_linux::Vcpu, exeunt_linux::Effects>>),
}

/// Does the same with whichever machine it is.
macro_rules! with {
    ($machine:expr, $running:ident => $what:expr) => {
        match $machine {
            Machine::Model($running) => $what,
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Machine::Kvm($running) => $what,
        }
    };
}

impl Machine {
    /// A new VM whose guest counts from 0.
    pub(crate) fn new(kernel: Kernel, vm_type: VmType, place: Place) -> Result<Self, Failure> {
        match kernel {
            Kernel::Model => model::build(vm_type, place.dialect, &[]).map(Box::new).map(Self::Model),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Kernel::Kvm if vm_type == VmType::Default => kvm::start().map(Box::new).map(Self::Kvm),
            Kernel::Kvm => Err("only VMs of type default are migrated on /dev/kvm".into()),
        }
    }

    /// Whether a VM with these two sections can be here. Nothing is left behind by the question.
    pub(crate) fn check(
        origin: &Origin,
        needs: &[Need],
        kernel: Kernel,
        place: Place,
    ) -> Result<(), Failure> {
        let asked = |target: &dyn Fn(Cap) -> u64| {
            let target = Asked { offers: target };
            check_head(origin, needs, &target).map_err(|refusal| refusal.to_string())
        };
        match kernel {
            Kernel::Model => {
                let offers = model::offers(origin, place.dialect);
                asked(&offers)
            }
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Kernel::Kvm => asked(&kvm::offers()?),
            #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
            Kernel::Kvm => Err("this system has no /dev/kvm".into()),
        }
    }

    /// The kernel half that a snapshot's guest is for.
    pub(crate) fn kernel_of(snapshot: &Snapshot) -> Result<Kernel, Failure> {
        match snapshot.device(GUEST) {
            Some(b"model:count") => Ok(Kernel::Model),
            Some(b"flat:count") => Ok(Kernel::Kvm),
            Some(other) => Err(format!("the guest {:?} is not known here", String::from_utf8_lossy(other))),
            None => Err("the snapshot does not say which guest it is of".into()),
        }
    }

    /// A VM that goes on where a snapshot ends. It has not run.
    pub(crate) fn of_snapshot(snapshot: &Snapshot, place: Place) -> Result<Self, Failure> {
        let kernel = Self::kernel_of(snapshot)?;
        Self::check(&snapshot.origin, &snapshot.needs, kernel, place)?;
        let target = Offering(&snapshot.origin, kernel, place);
        snapshot.check(&target).map_err(|refusal| refusal.to_string())?;
        let console = Console::of_snapshot(snapshot.device(Console::name()))?;
        let mut machine = match kernel {
            Kernel::Model => {
                let vm_type = VmType::from_number(snapshot.origin.vm_type).unwrap_or_default();
                let enabled = &snapshot.origin.enabled;
                Self::Model(Box::new(model::build(vm_type, place.dialect, enabled)?))
            }
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Kernel::Kvm => Self::Kvm(Box::new(kvm::build(&snapshot.origin.enabled)?)),
            #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
            Kernel::Kvm => return Err("this system has no /dev/kvm".into()),
        };
        with!(&mut machine, running => {
            running.host.console = console;
            running.restore(snapshot)?;
        });
        Ok(machine)
    }

    /// Runs the guest until it has said so many values more, or was shut down.
    pub(crate) fn run(&mut self, values: u64) -> Result<(), Failure> {
        with!(self, running => running.run(values))
    }

    /// Pauses the VM, drains it and takes a snapshot.
    pub(crate) fn save(&mut self) -> Result<Snapshot, Failure> {
        let guest = match self {
            Self::Model(_) => "model:count",
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Self::Kvm(_) => "flat:count",
        };
        with!(self, running => running.save(guest))
    }

    /// Lets the guest's output out, up to the last snapshot.
    pub(crate) fn release(&mut self, log: &Path, middle: &dyn Fn()) -> Result<(), Failure> {
        with!(self, running => running.host.console.release(log, middle))
    }

    /// What the guest said since the last release.
    pub(crate) fn held(&self) -> Vec<String> {
        with!(self, running => running.host.console.held().collect())
    }

    /// How many values the guest said in its life, and whether it was shut down.
    pub(crate) fn said(&self) -> (u64, bool) {
        with!(self, running => (running.host.console.taken(), running.host.console.has_ended))
    }

    /// Makes KVM request a triple fault that it has not delivered.
    pub(crate) fn raise_triple_fault(&mut self) -> Result<(), Failure> {
        match self {
            Self::Model(running) => {
                running.vcpu.raise_triple_fault();
                Ok(())
            }
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Self::Kvm(running) => running.vcpu.raise_triple_fault().map_err(|error| error.to_string()),
        }
    }
}

impl<V: Vcpu + State, H: Host> Running<V, H> {
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Failure> {
        // The layout is this program's; a snapshot of another one is not built as it says.
        if snapshot.slots != self.slots {
            return Err("the snapshot has other memory slots than this guest".into());
        }
        let [vcpu] = snapshot.vcpus.as_slice() else { return Err("the guest has one vCPU".into()) };
        snapshot.restore_memory(&mut self.host).map_err(|error| error.to_string())?;
        for run in snapshot.attributes.iter().filter(|run| run.is_private()) {
            self.policy.memory().assume(run.range, PageInfo::fresh(PageState::Private));
        }
        restore_vcpu(vcpu, &mut self.vcpu).map_err(|error| error.to_string())
    }

    fn run(&mut self, values: u64) -> Result<(), Failure> {
        let goal = self.host.console.taken().saturating_add(values);
        let mut watch = Watch::default();
        for _ in 0..MAX_EXITS {
            if self.host.console.has_ended || self.host.console.taken() >= goal {
                return Ok(());
            }
            match step_observed(&mut self.vcpu, &mut self.host, &self.policy, &mut watch, &mut ()) {
                Ok(()) => {}
                Err(Stop::Shutdown) => self.host.console.shut_down(),
                Err(stop) => return Err(format!("the guest ended: {stop}")),
            }
        }
        Err(format!("the guest says nothing after {MAX_EXITS} exits"))
    }

    fn save(&mut self, guest: &str) -> Result<Snapshot, Failure> {
        let vcpu = Drained::drain(&mut self.vcpu, &mut self.host, &self.policy)
            .map_err(|stop| format!("the vCPU cannot be drained: {stop}"))?;
        let layout = Layout::of(self.slots.clone(), self.policy.memory());
        // The console is asked when nothing pending can add to it.
        let guest = DeviceState { name: GUEST.into(), bytes: guest.into() };
        let devices = vec![self.host.console.save(), guest];
        // The guest keeps nothing that it needs in private pages.
        let private = PrivatePages::LeaveBehind;
        save(self.origin.clone(), layout, private, &mut self.host, &mut [vcpu], devices)
            .map_err(|error| error.to_string())
    }
}

/// The memory of a VM for its policy.
pub(super) fn guest_memory(slots: &[SlotLayout]) -> Result<GuestMemory, Failure> {
    let slots = slots.iter().map(|slot| MemorySlot { range: slot.range, has_private: slot.has_private });
    GuestMemory::new(slots).map_err(|error| error.to_string())
}

struct Asked<'a> {
    offers: &'a dyn Fn(Cap) -> u64,
}

impl Target for Asked<'_> {
    fn arch(&self) -> exeunt_abi::Arch {
        exeunt_abi::Arch::X86
    }

    fn offers(&self, cap: Cap) -> u64 {
        (self.offers)(cap)
    }
}

/// A target that has been asked about the head of a snapshot already.
struct Offering<'a>(&'a Origin, Kernel, Place);

impl Target for Offering<'_> {
    fn arch(&self) -> exeunt_abi::Arch {
        exeunt_abi::Arch::X86
    }

    fn offers(&self, cap: Cap) -> u64 {
        let Self(origin, kernel, place) = self;
        match kernel {
            Kernel::Model => model::offers(origin, place.dialect)(cap),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Kernel::Kvm => kvm::offers().map_or(0, |offers| offers(cap)),
            #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
            Kernel::Kvm => 0,
        }
    }
}
