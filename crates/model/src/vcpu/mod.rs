//! A vCPU: the page, the ioctls, and the order of checks of `KVM_RUN`.

mod blocking;
mod complete;
mod cpuid;
mod engine;
mod entry;
mod exception;
mod hypercall;
mod mmio;
mod mp_state;
mod msr;
pub(crate) mod msr_store;
pub(crate) mod peer;
mod pio;
mod program;
pub(crate) mod registers;
mod state;
pub(crate) mod xstate;

pub(crate) use complete::Completion;
pub(crate) use engine::Step;
pub use mp_state::MpState;
pub use msr::{MsrFilter, MsrFilterRange};
pub(crate) use msr_store::MsrRefusal;
pub use peer::Kick;

use crate::apic::ApicRegisters;
use crate::device::interrupts::VcpuBoard;
use crate::events::{EventCaps, EventState, MachineChecks, TripleFaults, request};
use crate::faults::{Fault, Point};
use crate::ghcb::{ApState, GhcbState, PscState};
use crate::guest::mailbox::{Op, Running};
use crate::guest::{Cpu, GuestFault, Note};
use crate::memory::RmpFaults;
use crate::nested::Nested;
use crate::system_event::{ArmFeatures, SbiState};
use crate::tdx::TdVcpu;
use crate::vm::Vm;
use cpuid::Cpuid;
pub(crate) use cpuid::low;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::{self, VcpuEvents};
use exeunt_abi::kvm::regs::SyncRegs;
use exeunt_abi::kvm::run::{PORT_DATA_BYTES, RunPage};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Errno, Kernel, TripleFaultForm};
use exeunt_proto::exit::Entered;
use exeunt_proto::host;
use mmio::Emulated;
use msr_store::MsrStore;
use peer::Peer;
use program::Programs;
use registers::Registers;
use std::sync::Arc;
use zerocopy::FromZeros;

/// Acts of a guest between two exits, after which `KVM_RUN` comes back as if a host timer had fired. So no guest
/// keeps a `KVM_RUN` for ever.
pub(crate) const TIME_SLICE: u32 = 1 << 20;

/// What the guest gets when it is entered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnEntry {
    /// The act is over and has no result.
    Nothing,
    /// The GHCB MSR.
    GhcbMsr,
    /// RAX, or x0.
    Rax,
    /// EDX:EAX.
    EdxEax,
    /// a0 and a1.
    SbiReturn,
    /// The registers of a `TDG.VP.VMCALL`.
    Tdvmcall,
    /// What the emulator read.
    Emulated,
}

/// A vCPU of the model. It meets a VMM half as [`host::Vcpu`] and [`host::Events`].
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Vcpu {
    pub(crate) vm: Vm,
    pub(crate) kernel: Kernel,
    pub(crate) vm_type: VmType,
    /// The guest is one of SEV-ES or SNP: it has a GHCB, and its registers can be encrypted. `KVM_SEV_ES_INIT` makes such
    /// guests of VMs of the default type.
    pub(crate) is_es: bool,
    /// The VM has been launched. It stays so, and is asked for only until then.
    pub(crate) launched: bool,
    id: u64,
    pub(crate) page: RunPage,
    pub(crate) port_data: Box<[u8; PORT_DATA_BYTES]>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) completion: Option<Completion>,
    /// RAX, RBX, RCX, RDX, RSI as KVM holds them; x0 to x3 in the first places on arm64, a0 and a1 on riscv64.
    pub(crate) regs: Regs,
    /// An exception that KVM itself raised, until the guest is entered.
    pub(crate) raised: Option<GuestFault>,
    pub(crate) cpuid: Cpuid,
    pub(crate) msrs: MsrStore,
    pub(crate) xcr0: u64,
    pub(crate) xss: u64,
    /// `KVM_RUN` has entered the run loop at least once.
    pub(crate) has_run: bool,
    pub(crate) events: EventState,
    pub(crate) apic: ApicRegisters,
    pub(crate) ap: ApState,
    pub(crate) programs: Programs,
    pub(crate) nested: Nested,
    pub(crate) machine_checks: Box<MachineChecks>,
    /// Of CR4, what machine checks ask for.
    pub(crate) cr4: u64,
    /// The processor shut an encrypted guest down: it does not run its VMSA again.
    pub(crate) shut_down: bool,
    pub(crate) arm_features: ArmFeatures,
    pub(crate) sbi: SbiState,
    pub(crate) ghcb: GhcbState,
    pub(crate) psc: PscState,
    pub(crate) td: TdVcpu,
    pub(crate) guest: Running,
    pub(crate) rmp_faults: RmpFaults,
    /// An access that the emulator is at.
    pub(crate) emulated: Option<Emulated>,
    /// An act that faulted and is to be tried again.
    pub(crate) retry: Option<Op>,
    /// The act that left the guest, waiting for its end.
    pub(crate) on_entry: Option<OnEntry>,
    /// Acts that are left of the turn.
    pub(crate) slice: u32,
    /// Acts of a turn.
    pub(crate) turn: u32,
    /// `KVM_SET_SIGNAL_MASK`.
    pub(crate) signal_mask: Option<u64>,
    pub(crate) warnings: u64,
    /// Completions that exits left behind, and those that were called.
    completions: (u64, u64),
    pub(crate) registers: Registers,
    pub(crate) board: VcpuBoard,
    /// The end of the run page.
    pub(crate) sync: Box<SyncRegs>,
}

/// KVM's copies of the registers that cross the boundary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Regs {
    pub(crate) rax: u64,
    pub(crate) rbx: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
    pub(crate) rsi: u64,
    /// Where the vCPU started last, or where a reset left it. The programs of the model have no addresses.
    pub(crate) rip: u64,
    pub(crate) cpl: u8,
}

impl Vcpu {
    pub(crate) fn new<P, F>(vm: Vm, peer: Arc<Peer>, id: u64, seed: u64, program: P) -> Self
    where
        P: FnOnce(Cpu) -> F,
        F: Future<Output = Result<(), GuestFault>> + Send + 'static,
    {
        let (kernel, host, vm_type, is_es, platform, ghcb) = {
            let state = vm.lock();
            let (vm_type, is_es, ghcb) = (state.vm_type, state.is_es(), GhcbState::after_reset(&state));
            (state.kernel, state.host, vm_type, is_es, state.platform, ghcb)
        };
        let mut events = EventState::new(host);
        events.apic.in_kernel = platform.irqchip.has_lapic();
        events.apic.takes_no_init = vm_type == VmType::Tdx;
        let is_bsp = id == platform.bsp_vcpu_id;
        if platform.irqchip.has_lapic() && !is_bsp {
            peer.set_mp_state(MpState::Uninitialized);
        }
        Self {
            vm,
            kernel,
            vm_type,
            is_es,
            launched: false,
            id,
            page: RunPage::zeroed(),
            port_data: Box::new([0; PORT_DATA_BYTES]),
            peer,
            completion: None,
            regs: if kernel.arch == Arch::X86 { Regs::AFTER_RESET } else { Regs::default() },
            raised: None,
            cpuid: Cpuid::default(),
            msrs: MsrStore::default(),
            xcr0: xstate::FP,
            xss: 0,
            has_run: false,
            events,
            apic: Self::new_apic(is_bsp),
            ap: ApState::default(),
            programs: Programs::default(),
            nested: Nested::default(),
            machine_checks: Box::default(),
            cr4: 0,
            shut_down: false,
            arm_features: ArmFeatures::default(),
            sbi: SbiState::default(),
            ghcb,
            psc: PscState::default(),
            td: TdVcpu::default(),
            guest: Running::start(id, seed, program),
            rmp_faults: RmpFaults::default(),
            emulated: None,
            retry: None,
            on_entry: None,
            slice: 0,
            turn: TIME_SLICE,
            signal_mask: None,
            warnings: 0,
            completions: (0, 0),
            registers: Registers::after_reset(is_bsp),
            board: VcpuBoard::new(id, is_bsp, platform.irqchip.has_pic()),
            sync: Box::new(SyncRegs::new_zeroed()),
        }
    }

    /// The vCPU's number, from 0 in the order of creation.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The handle for other threads.
    #[must_use]
    pub fn kick(&self) -> Kick {
        Kick(Arc::clone(&self.peer))
    }

    /// What the guest did and saw since the last call. Notes are kept from the first call on.
    pub fn take_notes(&mut self) -> Vec<Note> {
        self.guest.take_notes()
    }

    /// How often this vCPU met a condition that the kernel has a `WARN` for. The kernel prints the first only.
    #[must_use]
    pub const fn warnings(&self) -> u64 {
        self.warnings
    }

    /// How many exits left a completion behind, and how many completions were called. No exit is completed twice, so
    /// the difference is 1 while an answer is wanted and 0 otherwise.
    #[must_use]
    pub const fn completions(&self) -> (u64, u64) {
        self.completions
    }

    /// What `KVM_X86_SET_MCE` ends in with an uncorrected error while `CR4.MCE` is clear: KVM requests a triple fault.
    /// [`Vcpu::set_mce`] is the ioctl.
    pub fn raise_triple_fault(&mut self) {
        self.events.request(request::TRIPLE_FAULT);
    }

    /// A signal is pending: a kick, the end of the time slice, or one that was planned.
    pub(crate) fn is_interrupted(&mut self) -> bool {
        self.slice = self.slice.saturating_sub(1);
        let is_kicked = self.peer.immediate_exit() && self.takes_kicks();
        self.slice == 0 || self.vm.faults.at(Point::Act) == Some(Fault::Signal) || is_kicked
    }
}

impl host::Vcpu for Vcpu {
    fn enter(&mut self) -> Entered {
        self.kvm_run()
    }

    fn enter_immediately(&mut self) -> Entered {
        let before = self.peer.set_immediate_exit(true);
        let entered = self.kvm_run();
        self.peer.set_immediate_exit(before);
        entered
    }

    fn kernel(&self) -> Kernel {
        self.kernel
    }

    fn page(&self) -> &RunPage {
        &self.page
    }

    fn page_mut(&mut self) -> &mut RunPage {
        &mut self.page
    }

    fn port_data(&mut self) -> &mut [u8; PORT_DATA_BYTES] {
        &mut self.port_data
    }
}

impl host::Events for Vcpu {
    fn events(&mut self) -> Result<VcpuEvents, Errno> {
        let caps = self.event_caps();
        Ok(self.events.get(caps))
    }

    fn set_events(&mut self, events: &VcpuEvents) -> Result<(), Errno> {
        let caps = self.event_caps();
        let mut left_nested = false;
        let result = self.events.set(events, caps, || left_nested = true);
        if left_nested {
            self.leave_nested();
        }
        result
    }

    fn event_flags(&self) -> u32 {
        let EventCaps { payload, triple_fault, .. } = self.event_caps();
        let mut flags = events::VALID_ALL;
        if !payload {
            flags &= !events::VALID_PAYLOAD;
        }
        if matches!(triple_fault, TripleFaults::Unknown | TripleFaults::Off) {
            flags &= !events::VALID_TRIPLE_FAULT;
        }
        flags
    }
}

impl Vcpu {
    pub(crate) fn event_caps(&self) -> EventCaps {
        let state = self.vm.lock();
        let refuses = self.kernel.dialect.refuses_blocked_sipi_at_set();
        EventCaps {
            waits_for_sipi: refuses && self.peer.mp_state() == MpState::InitReceived,
            payload: state.cap(Cap::EXCEPTION_PAYLOAD) != 0,
            triple_fault: match self.kernel.dialect.triple_fault_form() {
                TripleFaultForm::None => TripleFaults::Unknown,
                TripleFaultForm::OneWay => TripleFaults::OneWay,
                TripleFaultForm::TwoWay if state.cap(Cap::X86_TRIPLE_FAULT_EVENT) == 0 => TripleFaults::Off,
                TripleFaultForm::TwoWay => TripleFaults::On,
            },
            counts_nmis: self.kernel.dialect.counts_pending_nmis(),
        }
    }
}
