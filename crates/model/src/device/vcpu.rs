//! The ioctls of a vCPU.

use super::call::Call;
use crate::vcpu::{Kick, Vcpu};
use crate::vm::Vm;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::device_attr::EnableCap;
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::ioctl::KVMIO;
use exeunt_abi::kvm::mp_state::MpState;
use exeunt_abi::{Arch, Errno};
use exeunt_proto::host::Events;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A vCPU behind its mutex, which `KVM_RUN` holds.
#[derive(Debug)]
pub(super) struct VcpuFile {
    pub(super) vm: Vm,
    kick: Kick,
    vcpu: Mutex<Vcpu>,
}

impl VcpuFile {
    pub(super) fn new(vcpu: Vcpu) -> Self {
        Self { vm: vcpu.vm.clone(), kick: vcpu.kick(), vcpu: Mutex::new(vcpu) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vcpu> {
        self.vcpu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn kick(&self) -> Kick {
        self.kick.clone()
    }
}

impl Call<'_> {
    /// What every vCPU has, then what an x86 vCPU has.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vcpu_ioctl`.
    pub(super) fn on_vcpu(&self, file: &VcpuFile) -> Result<u32, Errno> {
        self.check_owner(&file.vm)?;
        if self.request.parts().kind != KVMIO {
            return Err(Errno::EINVAL);
        }
        let vcpu = &mut *file.lock();
        match self.request {
            nr::KVM_RUN if self.arg != 0 => Err(Errno::EINVAL),
            nr::KVM_RUN => vcpu.kvm_run().map(|()| 0),
            nr::KVM_GET_MP_STATE => self.put(&MpState { mp_state: vcpu.mp_state().number() }).map(|()| 0),
            nr::KVM_SET_MP_STATE => {
                let state: MpState = self.get()?;
                vcpu.set_mp_state(state.mp_state).map(|()| 0)
            }
            _ if vcpu.kernel.arch != Arch::X86 => Err(Errno::EINVAL),
            _ => self.on_x86_vcpu(vcpu),
        }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_arch_vcpu_ioctl`.
    fn on_x86_vcpu(&self, vcpu: &mut Vcpu) -> Result<u32, Errno> {
        let found = self
            .on_registers(vcpu)
            .or_else(|| self.on_interrupts(vcpu))
            .or_else(|| self.on_state(vcpu))
            .or_else(|| self.on_one_reg(vcpu));
        if let Some(result) = found {
            return result;
        }
        match self.request {
            nr::KVM_GET_VCPU_EVENTS => {
                let events = vcpu.events()?;
                self.put(&events).map(|()| 0)
            }
            nr::KVM_SET_VCPU_EVENTS => {
                let events: VcpuEvents = self.get()?;
                vcpu.set_events(&events).map(|()| 0)
            }
            nr::KVM_GET_NESTED_STATE => self.get_nested_state(vcpu),
            nr::KVM_SET_NESTED_STATE => self.set_nested_state(vcpu),
            nr::KVM_SET_CPUID2 => self.set_cpuid2(vcpu),
            nr::KVM_GET_CPUID2 => self.get_cpuid2(vcpu),
            nr::KVM_GET_SUPPORTED_HV_CPUID => self.get_hyperv_cpuid(),
            nr::KVM_GET_MSRS => self.get_msrs(vcpu),
            nr::KVM_SET_MSRS => self.set_msrs(vcpu),
            nr::KVM_ENABLE_CAP => self.enable_vcpu_cap(vcpu),
            nr::KVM_GET_DEVICE_ATTR | nr::KVM_SET_DEVICE_ATTR | nr::KVM_HAS_DEVICE_ATTR
                if vcpu.vm.check_extension(Cap::VCPU_ATTRIBUTES) != 0 =>
            {
                self.vcpu_attr(vcpu)
            }
            nr::KVM_GET_STATS_FD if vcpu.vm.check_extension(Cap::BINARY_STATS_FD) != 0 => {
                self.stats_fd(&vcpu.vm)
            }
            // Only TDs have commands for a vCPU.
            nr::KVM_MEMORY_ENCRYPT_OP if !self.device.kernel.dialect.has_vcpu_mem_enc() => Err(Errno::EINVAL),
            nr::KVM_MEMORY_ENCRYPT_OP if !self.device.host.is_intel() => Err(Errno::ENOTTY),
            nr::KVM_MEMORY_ENCRYPT_OP => vcpu.tdx_command(self.arg, self.user.as_ref()).map(|()| 0),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_enable_cap`.
    fn enable_vcpu_cap(&self, vcpu: &Vcpu) -> Result<u32, Errno> {
        let enable: EnableCap = self.get()?;
        let cap = Cap(enable.cap);
        let [argument, ..] = enable.args;
        if enable.flags != 0 || vcpu.vm.check_extension(cap) == 0 {
            return Err(Errno::EINVAL);
        }
        match cap {
            Cap::HYPERV_SYNIC2 if argument != 0 => Err(Errno::EINVAL),
            Cap::HYPERV_SYNIC | Cap::HYPERV_SYNIC2 if !vcpu.events.apic.in_kernel => Err(Errno::EINVAL),
            Cap::HYPERV_SYNIC
            | Cap::HYPERV_SYNIC2
            | Cap::HYPERV_ENFORCE_CPUID
            | Cap::ENFORCE_PV_FEATURE_CPUID => Ok(0),
            _ => Err(Errno::EINVAL),
        }
    }
}
