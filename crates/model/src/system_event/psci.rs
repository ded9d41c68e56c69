//! PSCI calls of arm64 guests: those that end in a system event, and those that KVM answers itself.

use crate::guest::GuestFault;
use crate::guest::mailbox::Outcome;
use crate::vcpu::peer::{Peer, Reset};
use crate::vcpu::{MpState, OnEntry, Step, Vcpu};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::psci::{
    OFF2_HIBERNATE, SMCCC_VERSION, TOS_MP, affinity_level, function, function_v0_1, return_code, version,
};
use exeunt_abi::{Arch, Dialect, Errno};
use exeunt_proto::exit::{EventType, Exit, SystemEvent};
use exeunt_proto::psci::PsciCall;
use std::sync::Arc;

/// Bit 30 of a function: its arguments have 64 bits.
const PSCI_64BIT: u32 = 1 << 30;
/// `MPIDR_HWID_BITMASK`: the affinity fields of an `MPIDR`.
const MPIDR_HWID: u64 = 0xff_00ff_ffff;
/// `KVM_ARM_VCPU_POWER_OFF`, `KVM_ARM_VCPU_EL1_32BIT` and `KVM_ARM_VCPU_PSCI_0_2`.
const FEATURE_POWER_OFF: u32 = 1 << 0;
const FEATURE_EL1_32BIT: u32 = 1 << 1;
const FEATURE_PSCI_0_2: u32 = 1 << 2;

/// What `KVM_ARM_VCPU_INIT` chose for a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArmFeatures {
    is_32_bit: bool,
    psci_0_2: bool,
}

impl Default for ArmFeatures {
    fn default() -> Self {
        Self { is_32_bit: false, psci_0_2: true }
    }
}

/// What the guest finds in `x0`: a code of [`return_code`], as the register holds it.
const fn register(code: i64) -> u64 {
    u64::from_ne_bytes(code.to_ne_bytes())
}

/// `kvm_vcpu_get_mpidr_aff`: how a guest names a vCPU. Sixteen vCPUs share a first level.
///
/// Source: Linux v7.2 `arch/arm64/kvm/sys_regs.c`, `reset_mpidr`.
const fn mpidr(id: u64) -> u64 {
    id & 0xf | (id >> 4 & 0xff) << 8 | (id >> 12 & 0xff) << 16
}

/// The versions that a kernel lets a VMM choose.
fn knows(dialect: Dialect, wanted: u32) -> bool {
    match wanted {
        version::V0_1 | version::V0_2 | version::V1_0 => true,
        version::V1_1 => dialect.has_psci_reset2(),
        version::V1_2 | version::V1_3 => dialect.has_psci_off2(),
        _ => false,
    }
}

impl Vcpu {
    /// `KVM_ARM_VCPU_INIT`, as far as PSCI asks for it: bit 0 starts the vCPU stopped, bit 1 makes its guest a 32-bit
    /// one, bit 2 gives it PSCI of version 0.2 or newer instead of KVM's own 0.1. A vCPU of the model that was not
    /// initialised so has bit 2.
    ///
    /// Source: Linux v7.2 `arch/arm64/kvm/arm.c`, `kvm_arch_vcpu_ioctl_vcpu_init`.
    ///
    /// # Errors
    ///
    /// `EINVAL` on another architecture, `ENOENT` for a feature that the model does not have.
    pub fn arm_init(&mut self, features: u32) -> Result<(), Errno> {
        if self.kernel.arch != Arch::Arm64 {
            return Err(Errno::EINVAL);
        }
        if features & !(FEATURE_POWER_OFF | FEATURE_EL1_32BIT | FEATURE_PSCI_0_2) != 0 {
            return Err(Errno::ENOENT);
        }
        self.arm_features = ArmFeatures {
            is_32_bit: features & FEATURE_EL1_32BIT != 0,
            psci_0_2: features & FEATURE_PSCI_0_2 != 0,
        };
        let off = features & FEATURE_POWER_OFF != 0;
        self.peer.set_mp_state(if off { MpState::Stopped } else { MpState::Runnable });
        Ok(())
    }

    /// `KVM_SET_ONE_REG` of the firmware register `KVM_REG_ARM_PSCI_VERSION`. It counts for the whole VM.
    ///
    /// Source: Linux v7.2 `arch/arm64/kvm/hypercalls.c`, `kvm_arm_set_fw_reg`.
    ///
    /// # Errors
    ///
    /// `ENOENT` on another architecture; `EINVAL` for a version that this kernel does not speak, or that the vCPU was
    /// not initialised for.
    pub fn set_psci_version(&mut self, wanted: u32) -> Result<(), Errno> {
        if self.kernel.arch != Arch::Arm64 {
            return Err(Errno::ENOENT);
        }
        let is_0_1 = wanted == version::V0_1;
        if !knows(self.kernel.dialect, wanted) || is_0_1 == self.arm_features.psci_0_2 {
            return Err(Errno::EINVAL);
        }
        self.vm.lock().psci_version = wanted;
        Ok(())
    }

    /// `kvm_psci_version`: `KVM_GET_ONE_REG` of the same register.
    #[must_use]
    pub fn psci_version(&self) -> u32 {
        match (self.arm_features.psci_0_2, self.vm.lock().psci_version) {
            (false, _) => version::V0_1,
            (true, 0) => self.kernel.dialect.psci_latest(),
            (true, chosen) => chosen,
        }
    }

    /// `x0` to `x3` of an arm64 vCPU, as `KVM_GET_ONE_REG` gives them.
    #[must_use]
    pub const fn argument_registers(&self) -> [u64; 4] {
        [self.regs.rax, self.regs.rbx, self.regs.rcx, self.regs.rdx]
    }

    /// `KVM_SET_ONE_REG` of `x0`: how a VMM answers a `SYSTEM_SUSPEND` that it denies.
    pub const fn set_first_argument_register(&mut self, value: u64) {
        self.regs.rax = value;
    }

    /// Source: Linux v7.2 `arch/arm64/kvm/psci.c`, `kvm_psci_call`; DEN0022F "Arm Power State Coordination Interface".
    pub(crate) fn psci(&mut self, number: u32, args: [u64; 3]) -> Step {
        if self.kernel.arch != Arch::Arm64 {
            return Step::Guest(Outcome::Fault(GuestFault::InvalidOpcode));
        }
        self.did(|| format!("HVC with PSCI function {number:#x}, arguments {args:x?}"));
        let [x1, x2, x3] = args;
        [self.regs.rax, self.regs.rbx, self.regs.rcx, self.regs.rdx] = [u64::from(number), x1, x2, x3];
        if !self.may_call(number) {
            return self.answer_psci(return_code::NOT_SUPPORTED);
        }
        let version = self.psci_version();
        if version == version::V0_1 {
            return self.psci_0_1(number);
        }
        let call = PsciCall::decode(self.argument_registers());
        self.narrow(number, call);
        match call {
            PsciCall::Version => self.answer_psci(i64::from(version)),
            PsciCall::CpuSuspend => self.cpu_suspend(),
            PsciCall::CpuOff => self.cpu_off(),
            PsciCall::CpuOn { target, entry, context } => {
                self.cpu_on(target, Reset { entry: entry.0, arguments: [context, 0] })
            }
            PsciCall::AffinityInfo { target, lowest_level } => {
                let info = self.affinity_info(target, lowest_level);
                self.answer_psci(info)
            }
            PsciCall::MigrateInfoType => self.answer_psci(i64::from(TOS_MP)),
            PsciCall::Features { function } if version >= version::V1_0 => {
                let answer = self.psci_features(function, version);
                self.answer_psci(answer)
            }
            call => self.psci_system(call, version),
        }
    }

    /// Calls that end in a system event, if this version has them and their arguments are right.
    fn psci_system(&mut self, call: PsciCall, version: u32) -> Step {
        let since = match call {
            PsciCall::SystemOff | PsciCall::SystemReset => version::V0_2,
            PsciCall::SystemSuspend { .. } if self.suspends() => version::V1_0,
            PsciCall::SystemReset2 { .. } => version::V1_1,
            PsciCall::SystemOff2 { .. } => version::V1_3,
            _ => u32::MAX,
        };
        if version < since {
            return self.answer_psci(return_code::NOT_SUPPORTED);
        }
        match call.event() {
            None => self.answer_psci(return_code::INVALID_PARAMETERS),
            Some(event) if event.event == EventType::Suspend => {
                // The registers are left alone: x1 and x2 are for the VMM, which sets x0 itself.
                self.on_entry = Some(OnEntry::Rax);
                Step::Exit(self.exit(&Exit::SystemEvent(event)))
            }
            Some(event) => self.psci_stop(event, matches!(call, PsciCall::SystemReset2 { .. })),
        }
    }

    /// Should the VMM start the vCPU again, the call has failed. `SYSTEM_RESET2` leaves its kind and its cookie where
    /// they are, for the VMM.
    fn psci_stop(&mut self, event: SystemEvent, keeps_arguments: bool) -> Step {
        let entered = self.stop_all(event);
        self.regs.rax = register(return_code::INTERNAL_FAILURE);
        if !keeps_arguments {
            [self.regs.rbx, self.regs.rcx, self.regs.rdx] = [0; 3];
        }
        self.on_entry = Some(OnEntry::Rax);
        Step::Exit(entered)
    }

    /// `smccc_set_retval`: the other three registers are cleared.
    fn answer_psci(&mut self, code: i64) -> Step {
        self.regs.rax = register(code);
        [self.regs.rbx, self.regs.rcx, self.regs.rdx] = [0; 3];
        Step::Guest(Outcome::Value(self.regs.rax))
    }

    /// `kvm_psci_narrow_to_32bit`: the registers lose their high halves, too. Not for the calls whose arguments KVM
    /// does not look at.
    const fn narrow(&mut self, number: u32, call: PsciCall) {
        let takes_arguments = matches!(
            call,
            PsciCall::CpuOn { .. }
                | PsciCall::AffinityInfo { .. }
                | PsciCall::SystemSuspend { .. }
                | PsciCall::SystemReset2 { .. }
                | PsciCall::SystemOff2 { .. }
        );
        if number & PSCI_64BIT == 0 && takes_arguments {
            self.regs.rbx &= 0xffff_ffff;
            self.regs.rcx &= 0xffff_ffff;
            self.regs.rdx &= 0xffff_ffff;
        }
    }

    /// `kvm_psci_check_allowed_function`: a 32-bit guest has no 64-bit calls.
    const fn may_call(&self, number: u32) -> bool {
        number & PSCI_64BIT == 0 || !self.arm_features.is_32_bit
    }

    fn suspends(&self) -> bool {
        self.vm.lock().cap(Cap::ARM_SYSTEM_SUSPEND) != 0
    }

    fn psci_0_1(&mut self, number: u32) -> Step {
        match number {
            function_v0_1::CPU_OFF => self.cpu_off(),
            function_v0_1::CPU_ON => {
                let [_, target, entry, context] = self.argument_registers();
                self.cpu_on(target, Reset { entry, arguments: [context, 0] })
            }
            _ => self.answer_psci(return_code::NOT_SUPPORTED),
        }
    }

    /// The vCPU is stopped; it finds a success should its VMM start it again.
    fn cpu_off(&mut self) -> Step {
        self.peer.set_mp_state(MpState::Stopped);
        self.answer_psci(return_code::SUCCESS);
        self.on_entry = Some(OnEntry::Rax);
        Step::Resume
    }

    /// The core waits for an interrupt, whatever state the guest asked for.
    fn cpu_suspend(&mut self) -> Step {
        let step = self.wait_for_interrupt();
        self.answer_psci(return_code::SUCCESS);
        self.on_entry = Some(OnEntry::Rax);
        step
    }

    /// Source: Linux v7.2 `arch/arm64/kvm/psci.c`, `kvm_psci_vcpu_on`.
    fn cpu_on(&mut self, target: u64, reset: Reset) -> Step {
        let found = if target & !MPIDR_HWID == 0 { self.peer_of(target) } else { None };
        let code = match found {
            None => return_code::INVALID_PARAMETERS,
            Some(peer) => peer.change(|waiting| {
                if waiting.mp_state == MpState::Stopped {
                    waiting.reset = Some(reset);
                    waiting.mp_state = MpState::Runnable;
                    return_code::SUCCESS
                } else if self.psci_version() == version::V0_1 {
                    return_code::INVALID_PARAMETERS
                } else {
                    return_code::ALREADY_ON
                }
            }),
        };
        self.answer_psci(code)
    }

    fn peer_of(&self, target: u64) -> Option<Arc<Peer>> {
        let state = self.vm.lock();
        state.peers.iter().find(|(id, _)| mpidr(**id) == target).map(|(_, peer)| Arc::clone(peer))
    }

    /// Source: Linux v7.2 `arch/arm64/kvm/psci.c`, `kvm_psci_vcpu_affinity_info`.
    fn affinity_info(&self, target: u64, lowest_level: u64) -> i64 {
        let mask = match lowest_level {
            0..=3 => MPIDR_HWID & (u64::MAX << lowest_level.saturating_mul(8)),
            _ => 0,
        };
        if target & !MPIDR_HWID != 0 || mask == 0 {
            return return_code::INVALID_PARAMETERS;
        }
        let state = self.vm.lock();
        let matching = state.peers.iter().filter(|(id, _)| mpidr(**id) & mask == target & mask);
        let mut answer = return_code::INVALID_PARAMETERS;
        for (_, peer) in matching {
            if peer.mp_state() != MpState::Stopped {
                return i64::from(affinity_level::ON);
            }
            answer = i64::from(affinity_level::OFF);
        }
        answer
    }

    /// Source: Linux v7.2 `arch/arm64/kvm/psci.c`, `kvm_psci_1_x_call`.
    fn psci_features(&self, asked: u32, version: u32) -> i64 {
        let is_there = match asked {
            SMCCC_VERSION
            | function::VERSION
            | function::CPU_SUSPEND
            | function::CPU_SUSPEND_64
            | function::CPU_OFF
            | function::CPU_ON
            | function::CPU_ON_64
            | function::AFFINITY_INFO
            | function::AFFINITY_INFO_64
            | function::MIGRATE_INFO_TYPE
            | function::SYSTEM_OFF
            | function::SYSTEM_RESET
            | function::FEATURES => true,
            function::SYSTEM_SUSPEND | function::SYSTEM_SUSPEND_64 => self.suspends(),
            function::SYSTEM_RESET2 | function::SYSTEM_RESET2_64 => version >= version::V1_1,
            function::SYSTEM_OFF2 | function::SYSTEM_OFF2_64 => version >= version::V1_3,
            _ => false,
        };
        match asked {
            _ if !is_there || !self.may_call(asked) => return_code::NOT_SUPPORTED,
            // The answer is a mask of the kinds of shutdown.
            function::SYSTEM_OFF2 | function::SYSTEM_OFF2_64 => i64::from(OFF2_HIBERNATE),
            _ => return_code::SUCCESS,
        }
    }
}
