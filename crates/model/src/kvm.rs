//! `/dev/kvm` of the model.

use crate::caps::{Asked, vm_types};
use crate::host::Host;
use crate::memory::{SparseMemory, UserMemory};
use crate::vm::Vm;
use exeunt_abi::kvm::caps::Cap;
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
        Asked { kernel: self.kernel, host: self.host, vm_type: None }.check(cap)
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
        if !makes(self.kernel, self.host, vm_type) {
            return Err(Errno::EINVAL);
        }
        Ok(Vm::new(self.kernel, self.host, vm_type, user))
    }
}

/// The types that the typed entry makes. SEV-ES VMs of old kernels are made as type 0 with a legacy init; the model
/// makes them as type 3 in every dialect too.
fn makes(kernel: Kernel, host: Host, vm_type: VmType) -> bool {
    let is_legacy = vm_type == VmType::SevEs && kernel.arch == Arch::X86 && !host.is_intel();
    is_legacy || vm_types(kernel, host) & (1 << vm_type.number()) != 0
}
