//! The ioctls of `/dev/kvm`.

use super::call::Call;
use super::table::File;
use super::vm::VmFile;
use crate::caps::{Asked, vm_types};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Errno};
use std::sync::Arc;

/// `KVM_API_VERSION`.
const API_VERSION: u32 = 12;
/// Bytes of a vCPU's mapping on x86: the run page, the port page, the ring of gathered writes.
pub(super) const VCPU_MMAP_BYTES: u32 = 3 * 4096;

impl Call<'_> {
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_dev_ioctl`, and `arch/x86/kvm/x86.c`, `kvm_arch_dev_ioctl`.
    pub(super) fn on_system(&self) -> Result<u32, Errno> {
        match self.request {
            nr::KVM_GET_API_VERSION if self.arg == 0 => Ok(API_VERSION),
            nr::KVM_CREATE_VM => self.create_vm(),
            nr::KVM_CHECK_EXTENSION => Ok(self.check_extension(None)),
            nr::KVM_GET_VCPU_MMAP_SIZE if self.arg == 0 => Ok(VCPU_MMAP_BYTES),
            _ if self.device.kernel.arch == Arch::X86 => self.on_x86_system(),
            _ => Err(Errno::EINVAL),
        }
    }

    fn on_x86_system(&self) -> Result<u32, Errno> {
        let dialect = self.device.kernel.dialect;
        match self.request {
            nr::KVM_GET_MSR_INDEX_LIST => self.msr_index_list(false),
            nr::KVM_GET_MSR_FEATURE_INDEX_LIST => self.msr_index_list(true),
            nr::KVM_GET_MSRS => self.feature_msrs(),
            nr::KVM_GET_SUPPORTED_CPUID => self.get_host_cpuid(false),
            nr::KVM_GET_EMULATED_CPUID => self.get_host_cpuid(true),
            nr::KVM_GET_SUPPORTED_HV_CPUID if dialect.has_system_hyperv_cpuid() => self.get_hyperv_cpuid(),
            nr::KVM_X86_GET_MCE_CAP_SUPPORTED => self.mce_cap_supported(),
            nr::KVM_GET_DEVICE_ATTR | nr::KVM_HAS_DEVICE_ATTR if dialect.has_system_attributes() => {
                self.system_attr()
            }
            // Not `ENOTTY`: the file has a handler that knows no other number.
            _ => Err(Errno::EINVAL),
        }
    }

    /// The descriptor's number is taken before the type is looked at.
    fn create_vm(&self) -> Result<u32, Errno> {
        let fd = self.device.table.insert_with(|_| {
            // Without memory attributes there is one type, and the number has to be 0.
            let mask = vm_types(self.device.kernel, self.device.host);
            let is_supported = self.arg < 32 && mask >> self.arg & 1 == 1;
            let vm_type = VmType::from_number(self.arg).filter(|_| is_supported).ok_or(Errno::EINVAL)?;
            let vm = self.device.kvm.create_vm_in(vm_type, Arc::clone(self.user))?;
            vm.set_sev_host(self.device.sev.clone())?;
            Ok(File::Vm(Arc::new(VmFile::new(vm))))
        })?;
        Ok(fd.unsigned_abs())
    }

    /// `KVM_CHECK_EXTENSION`. A number above 32 bits is no capability.
    pub(super) fn check_extension(&self, vm_type: Option<VmType>) -> u32 {
        let (kernel, host) = (self.device.kernel, self.device.host);
        let Ok(cap) = u32::try_from(self.arg) else { return 0 };
        u32::try_from(Asked { kernel, host, vm_type }.check(Cap(cap))).unwrap_or(u32::MAX)
    }
}
