//! Memory slots: host memory that a guest sees.

use std::os::fd::{FromRawFd, OwnedFd};

use exeunt_abi::kvm::memory::MEM_GUEST_MEMFD;
use exeunt_abi::{Errno, Gpa};
use kvm_bindings::{kvm_create_guest_memfd, kvm_userspace_memory_region, kvm_userspace_memory_region2};
use kvm_ioctls::VmFd;

use crate::error::KvmError;
use crate::mapping_unsafe::Mapping;

/// A range of guest memory. It is made with its VM, is never taken out of it, and dies after it.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The start.
    pub(crate) gpa: Gpa,
    /// The length in bytes, a multiple of 4096.
    pub(crate) bytes: u64,
    /// The memory for shared pages.
    pub(crate) shared: Mapping,
    /// The `guest_memfd` for private pages. Its offset 0 is the slot's start.
    pub(crate) private: Option<OwnedFd>,
}

impl Slot {
    /// `KVM_SET_USER_MEMORY_REGION` with fresh anonymous memory.
    ///
    /// # Errors
    ///
    /// No memory could be mapped, or the ioctl failed.
    pub(crate) fn shared(vm: &VmFd, number: u32, gpa: Gpa, bytes: u64) -> Result<Self, KvmError> {
        let shared = mapped(bytes)?;
        let region = kvm_userspace_memory_region {
            slot: number,
            flags: 0,
            guest_phys_addr: gpa.0,
            memory_size: bytes,
            userspace_addr: shared.address(),
        };
        // SAFETY: The memory is mapped, nobody borrows it, and it stays mapped until after the VM is gone, because
        // the VM's `Machine` keeps every slot for longer than its descriptor, and every vCPU keeps the `Machine`.
        let result = unsafe { vm.set_user_memory_region(region) };
        result.map_err(KvmError::ioctl("KVM_SET_USER_MEMORY_REGION"))?;
        Ok(Self { gpa, bytes, shared, private: None })
    }

    /// `KVM_SET_USER_MEMORY_REGION2` with fresh anonymous memory and a fresh `guest_memfd`.
    ///
    /// # Errors
    ///
    /// No memory could be mapped, or an ioctl failed.
    pub(crate) fn private(vm: &VmFd, number: u32, gpa: Gpa, bytes: u64) -> Result<Self, KvmError> {
        let shared = mapped(bytes)?;
        let memfd = kvm_create_guest_memfd { size: bytes, ..Default::default() };
        let memfd = vm.create_guest_memfd(memfd).map_err(KvmError::ioctl("KVM_CREATE_GUEST_MEMFD"))?;
        // SAFETY: The ioctl has just made this descriptor, and nobody else knows it.
        let private = unsafe { OwnedFd::from_raw_fd(memfd) };
        let region = kvm_userspace_memory_region2 {
            slot: number,
            flags: MEM_GUEST_MEMFD,
            guest_phys_addr: gpa.0,
            memory_size: bytes,
            userspace_addr: shared.address(),
            guest_memfd_offset: 0,
            guest_memfd: u32::try_from(memfd).unwrap_or(u32::MAX),
            ..Default::default()
        };
        // SAFETY: As for `shared`. The `guest_memfd` is not mapped here, and KVM keeps its own reference to it.
        let result = unsafe { vm.set_user_memory_region2(region) };
        result.map_err(KvmError::ioctl("KVM_SET_USER_MEMORY_REGION2"))?;
        Ok(Self { gpa, bytes, shared, private: Some(private) })
    }
}

fn mapped(bytes: u64) -> Result<Mapping, KvmError> {
    let failed = |errno| KvmError::Map { bytes, errno };
    let length = usize::try_from(bytes).map_err(|_| failed(Errno::ENOMEM))?;
    Mapping::anonymous(length).map_err(failed)
}
