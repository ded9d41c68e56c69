//! `/dev/kvm` itself.

use std::sync::Arc;

use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Kernel};

use crate::dialect;
use crate::error::KvmError;
use crate::ioctl_unsafe;
use crate::vm::{Machine, Vm};
use std::io::Write;

/// `KVM_API_VERSION`, frozen since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// `ENXIO`: the device node is there, its driver is not.
const ENXIO: Errno = Errno(6);

/// The open device `/dev/kvm`.
#[derive(Debug)]
pub struct Kvm {
    fd: kvm_ioctls::Kvm,
}

/// Opens the device and creates a VM to see that it works. For tests and demonstrations that go without it.
///
/// # Errors
///
/// The reason in one line, to be printed by who skips.
pub fn probe() -> Result<Kvm, String> {
    let kvm = Kvm::open().map_err(|error| error.to_string())?;
    kvm.create_vm(VmType::Default).map_err(|error| error.to_string())?;
    Ok(kvm)
}

/// Says that something was skipped, and why, on a line that starts with `skipped: `.
///
/// It goes past the capture of the test harness, because a skip that nobody sees is a test that asserts nothing.
pub fn print_skip(what: &str, reason: impl std::fmt::Display) {
    // There is nobody to tell if this fails.
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {reason}");
}

impl Kvm {
    /// Opens `/dev/kvm` and checks that it speaks API version 12.
    ///
    /// # Errors
    ///
    /// The device is missing, belongs to others, or is something else.
    pub fn open() -> Result<Self, KvmError> {
        let fd = kvm_ioctls::Kvm::new().map_err(|error| refused(Errno(error.errno())))?;
        match fd.get_api_version() {
            API_VERSION => Ok(Self { fd }),
            found => Err(KvmError::ApiVersion { found }),
        }
    }

    /// `KVM_CHECK_EXTENSION` on the device: what the capability says, 0 where it is absent.
    #[must_use]
    pub fn check_extension(&self, cap: Cap) -> u32 {
        u32::try_from(self.fd.check_extension_raw(cap.0.into())).unwrap_or(0)
    }

    /// Which kernel the exits are to be read as: the newest dialect that this host shows all marks of.
    ///
    /// A capability that the host lacks never leads to a dialect that has it; the release string is not looked at.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        dialect::newest(|cap| self.check_extension(cap) != 0, ioctl_unsafe::has_snp_req_certs(&self.fd))
    }

    /// `KVM_GET_DEVICE_ATTR` on the device, in the group of SEV.
    ///
    /// # Errors
    ///
    /// The error of the ioctl: `ENXIO` for an attribute that this kernel does not know.
    pub fn sev_attribute(&self, attribute: u64) -> Result<u64, Errno> {
        ioctl_unsafe::sev_attribute(&self.fd, attribute)
    }

    /// `KVM_CREATE_VM`.
    ///
    /// # Errors
    ///
    /// The host does not offer the type, or the ioctl failed.
    pub fn create_vm(&self, vm_type: VmType) -> Result<Vm, KvmError> {
        // The capability is younger than the default type.
        let offered = self.check_extension(Cap::VM_TYPES) | 1 << VmType::Default.number();
        if u64::from(offered) & 1 << vm_type.number() == 0 {
            return Err(KvmError::VmTypeNotOffered { vm_type, cap: Cap::VM_TYPES, offered });
        }
        let fd = self.fd.create_vm_with_type(vm_type.number()).map_err(KvmError::ioctl("KVM_CREATE_VM"))?;
        let kernel = Kernel { dialect: self.dialect(), arch: Arch::X86 };
        Ok(Vm::new(Arc::new(Machine::new(fd, kernel))))
    }
}

impl Kvm {
    /// `KVM_CREATE_VM` with any number as the type.
    pub(crate) fn raw_vm(&self, vm_type: u64) -> Result<kvm_ioctls::VmFd, Errno> {
        self.fd.create_vm_with_type(vm_type).map_err(|error| Errno(error.errno()))
    }
}

fn refused(errno: Errno) -> KvmError {
    match errno {
        Errno::ENOENT | Errno::ENODEV | ENXIO => KvmError::DeviceMissing,
        Errno::EACCES | Errno::EPERM => KvmError::NoPermission,
        errno => KvmError::Open { errno },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_be_refused_has_its_own_error() {
        for errno in [Errno::ENOENT, Errno::ENODEV, ENXIO] {
            assert_eq!(refused(errno), KvmError::DeviceMissing);
        }
        assert_eq!(refused(Errno::EACCES), KvmError::NoPermission);
        assert_eq!(refused(Errno::EBUSY), KvmError::Open { errno: Errno::EBUSY });
    }
}
