//! `KVM_MEMORY_ENCRYPT_OP` and what belongs to it: the bytes go to the launch of SEV guests or to TDX, the registers of the
//! vCPUs go along.

use super::call::Call;
use super::table::File;
use super::vcpu::VcpuFile;
use super::vm::VmFile;
use crate::vm::Vm;
use exeunt_abi::Errno;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::device_attr::EnableCap;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::memory::EncRegion;
use exeunt_abi::kvm::sev::id;
use std::sync::{Arc, PoisonError, Weak};

impl VmFile {
    /// Remembers a vCPU: a launch encrypts the registers of all.
    pub(super) fn add_vcpu(&self, vcpu: &Arc<VcpuFile>) {
        self.vcpus.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(vcpu));
    }

    fn vcpus(&self) -> Vec<Arc<VcpuFile>> {
        let vcpus = self.vcpus.lock().unwrap_or_else(PoisonError::into_inner);
        vcpus.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Call<'_> {
    /// The ioctls of encrypted memory; `None` is another ioctl.
    pub(super) fn on_encryption(&self, file: &VmFile) -> Option<Result<u32, Errno>> {
        let is_amd = !self.device.host.is_intel();
        Some(match self.request {
            nr::KVM_MEMORY_ENCRYPT_OP if is_amd => self.sev_op(file),
            // A kernel that knows no TDs has no handler on Intel.
            nr::KVM_MEMORY_ENCRYPT_OP if !self.device.kernel.dialect.has_tdx() => Err(Errno::ENOTTY),
            nr::KVM_MEMORY_ENCRYPT_OP => file.vm.tdx_command(self.arg, self.user.as_ref()).map(|()| 0),
            nr::KVM_MEMORY_ENCRYPT_REG_REGION => self.enc_region(|region| {
                let EncRegion { addr, size } = region;
                if is_amd { file.vm.register_enc_region(addr, size) } else { Err(Errno::ENOTTY) }
            }),
            nr::KVM_MEMORY_ENCRYPT_UNREG_REGION => self.enc_region(|region| {
                let EncRegion { addr, size } = region;
                if is_amd { file.vm.unregister_enc_region(addr, size) } else { Err(Errno::ENOTTY) }
            }),
            nr::KVM_ENABLE_CAP => self.enable_vm_cap(&file.vm),
            _ => return None,
        })
    }

    fn enc_region(&self, act: impl FnOnce(EncRegion) -> Result<(), Errno>) -> Result<u32, Errno> {
        act(self.get()?).map(|()| 0)
    }

    /// Before registers are encrypted, KVM copies its own into the VMSAs.
    fn sev_op(&self, file: &VmFile) -> Result<u32, Errno> {
        let command: Option<u32> = if self.arg == 0 { None } else { self.get().ok() };
        if matches!(command, Some(id::LAUNCH_UPDATE_VMSA | id::SNP_LAUNCH_FINISH)) {
            for vcpu in file.vcpus() {
                vcpu.lock().publish_registers();
            }
        }
        file.vm.memory_encrypt_op(self.arg).map(|()| 0)
    }

    /// `KVM_ENABLE_CAP` on a VM. Two capabilities name another VM by its descriptor.
    fn enable_vm_cap(&self, vm: &Vm) -> Result<u32, Errno> {
        let enable: EnableCap = self.get()?;
        let [argument, ..] = enable.args;
        let cap = Cap(enable.cap);
        if !matches!(cap, Cap::VM_COPY_ENC_CONTEXT_FROM | Cap::VM_MOVE_ENC_CONTEXT_FROM) {
            return vm.enable_cap_args(&enable).map(|()| 0);
        }
        if enable.flags != 0 || vm.check_extension(cap) == 0 || self.device.host.is_intel() {
            return Err(Errno::EINVAL);
        }
        // The kernel takes the number as an `unsigned int`, whatever is above.
        let fd = u32::try_from(argument & 0xffff_ffff).ok().and_then(|fd| i32::try_from(fd).ok());
        let File::Vm(source) = self.device.table.get(fd.ok_or(Errno::EBADF)?)? else {
            return Err(Errno::EBADF);
        };
        if cap == Cap::VM_COPY_ENC_CONTEXT_FROM {
            vm.copy_enc_context_from(&source.vm).map(|()| 0)
        } else {
            vm.move_enc_context_from(&source.vm).map(|()| 0)
        }
    }
}
