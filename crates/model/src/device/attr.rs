//! Attributes of `/dev/kvm` and of vCPUs, and the devices of `KVM_CREATE_DEVICE`, of which x86 has one: VFIO's.

use super::call::Call;
use super::table::File;
use super::vm::VmFile;
use crate::vcpu::Vcpu;
use crate::vcpu::xstate::HOST_XCR0;
use crate::vm::Vm;
use exeunt_abi::Errno;
use exeunt_abi::kvm::device_attr::{DeviceAttr, X86_GRP_SEV, X86_GRP_SYSTEM};
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::irq::{CREATE_DEVICE_TEST, CreateDevice, DEV_TYPE_VFIO};
use std::sync::Arc;

/// `KVM_X86_XCOMP_GUEST_SUPP`: the extended state that guests can have.
const XCOMP_GUEST_SUPP: u64 = 0;
/// `KVM_VCPU_TSC_CTRL` and its `KVM_VCPU_TSC_OFFSET`.
const VCPU_TSC_CTRL: u32 = 0;
const VCPU_TSC_OFFSET: u64 = 0;
/// `KVM_DEV_VFIO_FILE` with its `KVM_DEV_VFIO_FILE_ADD` and `KVM_DEV_VFIO_FILE_DEL`.
const VFIO_FILE: u32 = 1;
const VFIO_FILE_ADD: u64 = 1;
const VFIO_FILE_DEL: u64 = 2;
/// A device of a VM.
#[derive(Debug)]
pub(super) struct KvmDevice {
    pub(super) vm: Vm,
}

impl Call<'_> {
    /// `KVM_GET_DEVICE_ATTR` and `KVM_HAS_DEVICE_ATTR` on `/dev/kvm`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `__kvm_x86_dev_get_attr`, and `svm/sev.c`, `sev_dev_get_attr`.
    pub(super) fn system_attr(&self) -> Result<u32, Errno> {
        let attr: DeviceAttr = self.get()?;
        let value = self.system_attr_value(attr.group, attr.attr)?;
        if self.request == nr::KVM_GET_DEVICE_ATTR {
            self.put_at(attr.addr, &value)?;
        }
        Ok(0)
    }

    fn system_attr_value(&self, group: u32, attr: u64) -> Result<u64, Errno> {
        match (group, attr) {
            (X86_GRP_SYSTEM, XCOMP_GUEST_SUPP) => Ok(HOST_XCR0),
            (X86_GRP_SEV, attr) if !self.device.host.is_intel() => {
                self.device.sev.device_attr(self.device.kernel, attr)
            }
            _ => Err(Errno::ENXIO),
        }
    }

    /// The one ioctl of `/dev/sev`. The driver has a handler, so another number is `EINVAL` and not `ENOTTY`.
    ///
    /// Source: Linux v7.2 `drivers/crypto/ccp/sev-dev.c`, `sev_ioctl`.
    pub(super) fn on_sev(&self) -> Result<u32, Errno> {
        if self.request != nr::SEV_ISSUE_CMD {
            return Err(Errno::EINVAL);
        }
        self.device.sev.issue_cmd(self.fd.unsigned_abs(), self.arg, self.user.as_ref()).map(|()| 0)
    }

    /// The attributes of a vCPU: the offset of its time stamp counter.
    pub(super) fn vcpu_attr(&self, vcpu: &mut Vcpu) -> Result<u32, Errno> {
        let attr: DeviceAttr = self.get()?;
        if attr.group != VCPU_TSC_CTRL || attr.attr != VCPU_TSC_OFFSET {
            return Err(Errno::ENXIO);
        }
        match self.request {
            nr::KVM_GET_DEVICE_ATTR => self.put_at(attr.addr, &vcpu.board.tsc_offset)?,
            nr::KVM_SET_DEVICE_ATTR => vcpu.board.tsc_offset = self.get_at(attr.addr)?,
            _ => {}
        }
        Ok(0)
    }

    /// `KVM_CREATE_DEVICE`.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_ioctl_create_device`, and `vfio.c`, `kvm_vfio_create`.
    pub(super) fn create_device(&self, file: &VmFile) -> Result<u32, Errno> {
        let args: CreateDevice = self.get()?;
        if args.device_type != DEV_TYPE_VFIO {
            return Err(Errno::ENODEV);
        }
        let args = if args.flags & CREATE_DEVICE_TEST != 0 {
            args
        } else {
            // One for each VM.
            if std::mem::replace(&mut file.board().has_vfio, true) {
                return Err(Errno::EBUSY);
            }
            let device = File::Device(Arc::new(KvmDevice { vm: file.vm.clone() }));
            CreateDevice { fd: self.device.table.insert(device)?.unsigned_abs(), ..args }
        };
        // The device stays, also if its descriptor cannot be told.
        self.put(&args).map(|()| 0)
    }

    /// The ioctls of a device.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_device_ioctl`, and `vfio.c`, `kvm_vfio_set_attr`.
    pub(super) fn on_device(&self, device: &KvmDevice) -> Result<u32, Errno> {
        self.check_owner(&device.vm)?;
        match self.request {
            // VFIO's device has nothing to get.
            nr::KVM_GET_DEVICE_ATTR => Err(Errno::EPERM),
            nr::KVM_HAS_DEVICE_ATTR => {
                let attr: DeviceAttr = self.get()?;
                let is_there = attr.group == VFIO_FILE && matches!(attr.attr, VFIO_FILE_ADD | VFIO_FILE_DEL);
                if is_there { Ok(0) } else { Err(Errno::ENXIO) }
            }
            nr::KVM_SET_DEVICE_ATTR => {
                let attr: DeviceAttr = self.get()?;
                if attr.group != VFIO_FILE || !matches!(attr.attr, VFIO_FILE_ADD | VFIO_FILE_DEL) {
                    return Err(Errno::ENXIO);
                }
                let fd: i32 = self.get_at(attr.addr)?;
                // The model has no VFIO files: none can be added, and none is there to be removed.
                self.device.table.get(fd)?;
                Err(if attr.attr == VFIO_FILE_ADD { Errno::EINVAL } else { Errno::ENOENT })
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}
