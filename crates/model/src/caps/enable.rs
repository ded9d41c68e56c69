//! `KVM_ENABLE_CAP` on a VM.

use super::Asked;
use crate::state::VmState;
use crate::vm::Vm;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::device_attr::EnableCap;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::{Arch, Errno};

/// `KVM_X2APIC_API_VALID_FLAGS`, and `KVM_X2APIC_*_SUPPRESS_EOI_BROADCAST` is not among them.
const X2APIC_API_FLAGS: u64 = 3;
/// `KVM_X86_DISABLE_VALID_EXITS`.
const DISABLE_EXITS: u64 = 0xf;
/// `KVM_MSR_EXIT_REASON_VALID_MASK`.
const MSR_EXIT_REASONS: u64 = 7;
/// `KVM_BUS_LOCK_DETECTION_OFF` and `KVM_BUS_LOCK_DETECTION_EXIT`.
const BUS_LOCK_MODES: u64 = 3;
/// `KVM_X86_NOTIFY_VMEXIT_ENABLED` and `KVM_X86_NOTIFY_VMEXIT_USER`.
const NOTIFY_FLAGS: u64 = 3;
const NOTIFY_ENABLED: u64 = 1;
/// Ticks of the APIC's timer at its slowest: the longest count, divided by 128.
const SLOWEST_APIC_COUNT: u64 = 0xffff_ffff * 128;

impl Vm {
    /// `KVM_ENABLE_CAP` with one argument and no flags.
    ///
    /// # Errors
    ///
    /// As [`Vm::enable_cap_args`].
    pub fn enable_cap(&self, cap: Cap, argument: u64) -> Result<(), Errno> {
        self.enable_cap_args(&EnableCap { cap: cap.0, flags: 0, args: [argument, 0, 0, 0], pad: [0; 64] })
    }

    /// `KVM_ENABLE_CAP`.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vm_ioctl_enable_cap_generic`, and `arch/x86/kvm/x86.c`,
    /// `kvm_vm_ioctl_enable_cap`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for flags, for a capability that this kernel lacks or does not let a VMM enable, and for an argument
    /// with an unknown bit; where it comes too late, what the capability's own check says.
    pub fn enable_cap_args(&self, enable: &EnableCap) -> Result<(), Errno> {
        let mut state = self.lock();
        let cap = Cap(enable.cap);
        let [argument, ..] = enable.args;
        if enable.flags != 0 || cap.0 > state.kernel.dialect.newest_capability() {
            return Err(Errno::EINVAL);
        }
        if cap == Cap::EXIT_HYPERCALL && state.kernel.arch == Arch::X86 {
            if argument & !(1 << MAP_GPA_RANGE) != 0 || !state.kernel.dialect.has_exit_hypercall() {
                return Err(Errno::EINVAL);
            }
            self.set_exit_hypercalls(argument);
            return Ok(());
        }
        state.enable(cap, argument)?;
        // This one has no argument, and cannot be taken back.
        let kept = if cap == Cap::ARM_SYSTEM_SUSPEND { 1 } else { argument };
        state.set_cap(cap, kept);
        Ok(())
    }
}

fn fits(argument: u64, mask: u64) -> Result<(), Errno> {
    if argument & !mask == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

impl VmState {
    /// The checks of a capability, and what it changes beside its argument being kept.
    fn enable(&mut self, cap: Cap, argument: u64) -> Result<(), Errno> {
        match cap {
            // The option of initially set bits needs the other.
            Cap::MANUAL_DIRTY_LOG_PROTECT2 => {
                fits(argument, if argument & 1 == 0 { 1 } else { 3 })?;
                let log = &mut self.memory.dirty_log;
                (log.manual_protect, log.initially_set) = (argument & 1 != 0, argument & 2 != 0);
                Ok(())
            }
            Cap::HALT_POLL => fits(argument, u64::from(u32::MAX)),
            Cap::ARM_SYSTEM_SUSPEND if self.kernel.arch == Arch::Arm64 => Ok(()),
            _ if self.kernel.arch != Arch::X86 => Err(Errno::EINVAL),
            Cap::EXCEPTION_PAYLOAD | Cap::MSR_PLATFORM_INFO => Ok(()),
            Cap::X86_TRIPLE_FAULT_EVENT if self.kernel.dialect.has_triple_fault_event() => Ok(()),
            Cap::DISABLE_QUIRKS => {
                self.platform.disabled_quirks |= argument & self.kernel.dialect.x86_quirks();
                Ok(())
            }
            Cap::DISABLE_QUIRKS2 => {
                fits(argument, self.kernel.dialect.x86_quirks())?;
                self.platform.disabled_quirks |= argument;
                Ok(())
            }
            Cap::SPLIT_IRQCHIP => self.split_irqchip(argument),
            Cap::X2APIC_API => fits(argument, X2APIC_API_FLAGS),
            Cap::X86_DISABLE_EXITS => fits(argument, DISABLE_EXITS),
            Cap::X86_USER_SPACE_MSR => fits(argument, MSR_EXIT_REASONS),
            Cap::X86_BUS_LOCK_EXIT if argument == BUS_LOCK_MODES => Err(Errno::EINVAL),
            Cap::X86_BUS_LOCK_EXIT => fits(argument, BUS_LOCK_MODES),
            Cap::EXIT_ON_EMULATION_FAILURE => fits(argument, 1),
            Cap::PMU_CAPABILITY => {
                fits(argument, 1)?;
                self.before_vcpus(Errno::EINVAL)
            }
            Cap::MAX_VCPU_ID => self.set_max_vcpu_id(argument),
            Cap::X86_NOTIFY_VMEXIT => {
                fits(argument & u64::from(u32::MAX), NOTIFY_FLAGS)?;
                if !self.host.is_intel() || argument & NOTIFY_ENABLED == 0 {
                    return Err(Errno::EINVAL);
                }
                self.before_vcpus(Errno::EINVAL)
            }
            // The process of the model may reboot its host.
            Cap::VM_DISABLE_NX_HUGE_PAGES if argument == 0 => self.before_vcpus(Errno::EINVAL),
            Cap::X86_APIC_BUS_CYCLES_NS => self.set_apic_bus_cycle(argument),
            _ => Err(Errno::EINVAL),
        }
    }

    fn before_vcpus(&self, otherwise: Errno) -> Result<(), Errno> {
        if self.vcpus == 0 { Ok(()) } else { Err(otherwise) }
    }

    fn set_max_vcpu_id(&mut self, ids: u64) -> Result<(), Errno> {
        let platform = &mut self.platform;
        if ids > self.kernel.dialect.max_vcpus().1 || platform.bsp_vcpu_id > ids {
            return Err(Errno::EINVAL);
        }
        if platform.max_vcpu_ids != 0 && platform.max_vcpu_ids != ids {
            return Err(Errno::EINVAL);
        }
        platform.max_vcpu_ids = ids;
        Ok(())
    }

    fn set_apic_bus_cycle(&mut self, nanoseconds: u64) -> Result<(), Errno> {
        let has_it = Asked { kernel: self.kernel, host: self.host, vm_type: None }
            .check(Cap::X86_APIC_BUS_CYCLES_NS)
            != 0;
        if !has_it || nanoseconds == 0 || SLOWEST_APIC_COUNT.checked_mul(nanoseconds).is_none() {
            return Err(Errno::EINVAL);
        }
        if !self.platform.irqchip.has_lapic() {
            return Err(Errno::ENXIO);
        }
        self.before_vcpus(Errno::EINVAL)?;
        self.platform.apic_bus_cycle_ns = nanoseconds;
        Ok(())
    }
}
