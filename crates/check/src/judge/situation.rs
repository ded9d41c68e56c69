//! Scenarios of the rules: what a VMM half is put into.

use super::machine::Machine;
use exeunt_abi::kvm::run::RunPage;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use exeunt_model::{Vcpu, Vm};
use exeunt_proto::exit::Entered;

/// Changes what `KVM_RUN` brought, the `n`th time. It stands for a kernel that is newer than those that are imitated.
pub(super) type Rewrite = fn(u32, &mut Entered, &mut RunPage);

/// A part of a guest's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) gpa: u64,
    pub(super) bytes: u64,
    /// A `guest_memfd` is behind it.
    pub(super) has_private: bool,
}

/// What the one who started the VMM wants of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an order of its own")]
pub(super) struct Orders {
    /// Enter again after a request for an end.
    pub(super) ignore_events: bool,
    /// Make pages what an access wants them to be.
    pub(super) convert_faults: bool,
    /// Give certificates.
    pub(super) certificates: bool,
    /// Give quotes to TDs, and interrupts that announce them.
    pub(super) quotes: bool,
    /// Be a 32-bit process.
    pub(super) is_32_bit: bool,
    /// What to do with the guest.
    pub(super) task: Task,
}

/// What to do with a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Task {
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
pub(super) struct Situation {
    /// Its name, as in `rules.toml`.
    pub(super) name: &'static str,
    /// The kernel that writes the bytes.
    pub(super) kernel: Kernel,
    /// The kernel that the VMM takes it for, if another.
    pub(super) told: Option<Kernel>,
    /// The kernel of the second VM, if another.
    pub(super) target: Option<Kernel>,
    pub(super) vm_type: VmType,
    pub(super) memory: &'static [Part],
    pub(super) vcpus: u32,
    pub(super) guest: fn(&Vm, u64) -> Result<Vcpu, Errno>,
    /// The local APICs are in the kernel, and so is a vCPU that waits.
    pub(super) apic_in_kernel: bool,
    /// What is done to the VM before the VMM gets it.
    pub(super) prepare: Option<fn(&Machine)>,
    /// What is done to the first vCPU before the VMM gets it, and before what it saved is restored.
    pub(super) prepare_vcpu: Option<fn(&mut Vcpu)>,
    pub(super) orders: Orders,
    pub(super) later: Option<Rewrite>,
    /// Bits that a newer kernel offers besides.
    pub(super) later_hypercalls: u64,
    pub(super) raced: Option<fn(&mut RunPage)>,
    /// Run it twice, with other bytes where the kernel writes none.
    pub(super) is_run_twice: bool,
    /// How often the lock of the certificate file is had by somebody else.
    pub(super) busy_locks: u32,
}

/// 16 MiB from address 0, all of which can be private.
const PLAIN: &[Part] = &[Part { gpa: 0, bytes: 0x100_0000, has_private: true }];

impl Situation {
    /// On the newest kernel, one vCPU, nothing special.
    pub(super) const fn new(
        name: &'static str,
        vm_type: VmType,
        guest: fn(&Vm, u64) -> Result<Vcpu, Errno>,
    ) -> Self {
        Self {
            name,
            kernel: Kernel { dialect: Dialect::Linux7_2, arch: Arch::X86 },
            told: None,
            target: None,
            vm_type,
            memory: PLAIN,
            vcpus: 1,
            guest,
            apic_in_kernel: matches!(vm_type, VmType::Tdx),
            prepare: None,
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

    pub(super) const fn on(mut self, dialect: Dialect, arch: Arch) -> Self {
        self.kernel = Kernel { dialect, arch };
        self
    }
}
