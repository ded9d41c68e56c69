//! `/dev/kvm` of the model.

use crate::host::Host;
use crate::memory::{SparseMemory, UserMemory};
use crate::vm::Vm;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Errno, Kernel};
use std::sync::Arc;

/// A kernel that makes VMs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kvm {
    kernel: Kernel,
    host: Host,
}

impl Kvm {
    /// A kernel of this dialect and architecture; on x86, on an AMD host.
    #[must_use]
    pub const fn new(kernel: Kernel) -> Self {
        Self::on(Host::AMD, kernel)
    }

    /// A kernel on a host of one's choice.
    #[must_use]
    pub const fn on(host: Host, kernel: Kernel) -> Self {
        Self { kernel, host }
    }

    /// `KVM_CHECK_EXTENSION` on `/dev/kvm`: 0 if the capability is missing.
    #[must_use]
    pub fn check_extension(&self, cap: Cap) -> u64 {
        check_extension(self.kernel, self.host, cap)
    }

    /// `KVM_CREATE_VM` in a process of its own, whose memory is a [`SparseMemory`].
    ///
    /// # Errors
    ///
    /// `EINVAL` if the kernel does not offer the type.
    pub fn create_vm(&self, vm_type: VmType) -> Result<Vm, Errno> {
        self.create_vm_in(vm_type, Arc::new(SparseMemory::new()))
    }

    /// `KVM_CREATE_VM` in a process with this memory, in which the VM's slots lie.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the kernel does not offer the type.
    pub fn create_vm_in(&self, vm_type: VmType, user: Arc<dyn UserMemory>) -> Result<Vm, Errno> {
        if vm_types(self.kernel, self.host) & (1 << vm_type.number()) == 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Vm::new(self.kernel, self.host, vm_type, user))
    }
}

/// The mask of VM types, as `KVM_CAP_VM_TYPES` would give it. SEV-ES VMs of old kernels are made as type 0 with a
/// legacy init; the model makes them as type 3 in every dialect.
fn vm_types(kernel: Kernel, host: Host) -> u64 {
    let bit = |vm_type: VmType| 1u64 << vm_type.number();
    let mut types = bit(VmType::Default);
    if kernel.arch == Arch::X86 {
        if !host.is_intel() {
            types |= bit(VmType::SevEs);
        }
        if kernel.dialect.has_private_memory() {
            types |= bit(VmType::SwProtected);
        }
        if kernel.dialect.has_snp() && !host.is_intel() {
            types |= bit(VmType::Snp);
        }
        if kernel.dialect.has_tdx() && host.is_intel() {
            types |= bit(VmType::Tdx);
        }
    }
    types
}

/// What `KVM_CHECK_EXTENSION` answers in a dialect.
///
/// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vm_ioctl_check_extension`; the releases of each capability are in
/// [`exeunt_abi::Dialect`].
pub(crate) fn check_extension(kernel: Kernel, host: Host, cap: Cap) -> u64 {
    let dialect = kernel.dialect;
    let x86 = kernel.arch == Arch::X86;
    let private = dialect.has_private_memory();
    match cap {
        Cap::IMMEDIATE_EXIT => 1,
        Cap::EXCEPTION_PAYLOAD | Cap::X86_USER_SPACE_MSR | Cap::X86_MSR_FILTER => u64::from(x86),
        Cap::EXIT_HYPERCALL if x86 && dialect.has_exit_hypercall() => 1 << MAP_GPA_RANGE,
        Cap::SYSTEM_EVENT_DATA => u64::from(dialect.has_system_event_data()),
        Cap::ARM_SYSTEM_SUSPEND => u64::from(kernel.arch == Arch::Arm64 && dialect.has_arm_system_suspend()),
        Cap::X86_TRIPLE_FAULT_EVENT => u64::from(x86 && dialect.has_triple_fault_event()),
        Cap::X86_NOTIFY_VMEXIT => u64::from(x86 && host.is_intel() && dialect.has_notify_vmexit()),
        Cap::USER_MEMORY2 | Cap::MEMORY_FAULT_INFO => u64::from(private),
        Cap::MEMORY_ATTRIBUTES if x86 && private => MEMORY_ATTRIBUTE_PRIVATE,
        Cap::GUEST_MEMFD => u64::from(x86 && private),
        Cap::VM_TYPES if x86 && private => vm_types(kernel, host),
        _ => 0,
    }
}
