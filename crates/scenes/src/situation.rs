//! Scenarios of the rules: what a VMM half is put into.

use exeunt_abi::kvm::run::RunPage;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Gpa, Kernel};
use exeunt_model::device::Program;
use exeunt_model::guest::Cpu;
use exeunt_model::{Vcpu, Vm};
use exeunt_proto::exit::Entered;
use std::borrow::Cow;
use std::fmt;

/// Changes what `KVM_RUN` brought, the `n`th time. It stands for a kernel that is newer than those that are imitated.
pub type Rewrite = fn(u32, &mut Entered, &mut RunPage);

/// A part of a guest's memory.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Where it starts.
    pub gpa: u64,
    /// How long it is.
    pub bytes: u64,
    /// A `guest_memfd` is behind it.
    pub has_private: bool,
}

/// What the one who started the VMM wants of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an order of its own")]
pub struct Orders {
    /// Enter again after a request for an end.
    pub ignore_events: bool,
    /// Make pages what an access wants them to be.
    pub convert_faults: bool,
    /// Give certificates.
    pub certificates: bool,
    /// Give quotes to TDs, and interrupts that announce them.
    pub quotes: bool,
    /// Be a 32-bit process.
    pub is_32_bit: bool,
    /// What to do with the guest.
    pub task: Task,
}

/// What to do with a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// Run it to its end.
    #[default]
    Run,
    /// Run it, save the vCPU after so many exits, and run on.
    SaveAfter(u32),
    /// Save before the first entry, restore in a second VM, run that one.
    Migrate,
    /// Save twice before the first entry, as after a transfer that failed, and run on.
    SaveTwice,
    /// Save, meet trouble, go back to what was saved, and run.
    GoBack,
}

/// One scenario.
#[derive(Clone)]
pub struct Situation {
    /// Its name, as in `rules.toml`.
    pub name: &'static str,
    /// The kernel that writes the bytes.
    pub kernel: Kernel,
    /// The kernel that the VMM takes it for, if another.
    pub told: Option<Kernel>,
    /// The kernel of the second VM, if another.
    pub target: Option<Kernel>,
    /// The type of the VM.
    pub vm_type: VmType,
    /// What of the guest's addresses is memory.
    pub memory: Cow<'static, [Part]>,
    /// How many vCPUs there are.
    pub vcpus: u32,
    /// What each vCPU runs.
    pub guest: fn(Cpu) -> Program,
    /// The local APICs are in the kernel, and so is a vCPU that waits.
    pub apic_in_kernel: bool,
    /// What is done to the VM before the VMM gets it.
    pub prepare: Option<fn(&Vm)>,
    /// A page that the process does not map.
    pub unmapped: Option<Gpa>,
    /// What is done to the first vCPU before the VMM gets it, and before what it saved is restored.
    pub prepare_vcpu: Option<fn(&mut Vcpu)>,
    /// What is wanted of the VMM.
    pub orders: Orders,
    /// What a newer kernel does otherwise.
    pub later: Option<Rewrite>,
    /// Bits that a newer kernel offers besides.
    pub later_hypercalls: u64,
    /// What another thread makes of the live page after the VMM has looked at it.
    pub raced: Option<fn(&mut RunPage)>,
    /// Run it twice, with other bytes where the kernel writes none.
    pub is_run_twice: bool,
    /// How often the lock of the certificate file is had by somebody else.
    pub busy_locks: u32,
}

/// 16 MiB from address 0, all of which can be private.
const PLAIN: &[Part] = &[Part { gpa: 0, bytes: 0x100_0000, has_private: true }];

impl Situation {
    /// On the newest kernel, one vCPU, nothing special.
    #[must_use]
    pub const fn new(name: &'static str, vm_type: VmType, guest: fn(Cpu) -> Program) -> Self {
        Self {
            name,
            kernel: Kernel { dialect: Dialect::Linux7_2, arch: Arch::X86 },
            told: None,
            target: None,
            vm_type,
            memory: Cow::Borrowed(PLAIN),
            vcpus: 1,
            guest,
            apic_in_kernel: matches!(vm_type, VmType::Tdx),
            prepare: None,
            unmapped: None,
            prepare_vcpu: None,
            orders: Orders {
                ignore_events: false,
                convert_faults: false,
                certificates: false,
                quotes: false,
                is_32_bit: false,
                task: Task::Run,
            },
            later: None,
            later_hypercalls: 0,
            raced: None,
            is_run_twice: false,
            busy_locks: 0,
        }
    }

    /// Whether the scenario is the same in a VM of another type: its guest asks for conversions by hypercall, which a
    /// guest with a GHCB makes through that.
    #[must_use]
    pub fn plays_in(&self, vm_type: VmType) -> bool {
        self.vm_type == vm_type || self.vm_type == VmType::SwProtected && vm_type == VmType::Snp
    }

    /// What only a judge in the process of the VMM half can do is not a part of it.
    #[must_use]
    pub fn plays_outside(&self) -> bool {
        let alone = self.told.is_none() && self.target.is_none() && self.raced.is_none();
        let plain =
            self.busy_locks == 0 && (self.prepare_vcpu.is_none() || self.orders.task == Task::SaveTwice);
        alone && plain && !self.orders.is_32_bit && self.kernel.arch == Arch::X86
    }

    /// On another kernel.
    #[must_use]
    pub const fn on(mut self, dialect: Dialect, arch: Arch) -> Self {
        self.kernel = Kernel { dialect, arch };
        self
    }
}

impl fmt::Debug for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kernel, vm_type, orders, .. } = self;
        let mut f = f.debug_struct("Situation");
        f.field("name", name).field("kernel", kernel).field("vm_type", vm_type).field("orders", orders);
        f.finish_non_exhaustive()
    }
}
