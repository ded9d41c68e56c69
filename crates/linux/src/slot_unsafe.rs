//! Memory slots: host memory that a guest sees.

use std::os::fd::AsRawFd;

use exeunt_abi::Gpa;
use exeunt_abi::kvm::memory::MEM_GUEST_MEMFD;
use kvm_bindings::{kvm_userspace_memory_region, kvm_userspace_memory_region2};
use kvm_ioctls::VmFd;

use crate::error::{KvmError, MemoryFlaw};
use crate::host_memory::Half;
use crate::mapping_unsafe::Mapping;

/// A range of guest memory. One that KVM knows is never taken out of its VM, and dies after it.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The start.
    pub(crate) gpa: Gpa,
    /// The length in bytes, a multiple of 4096.
    pub(crate) bytes: u64,
    /// The memory for shared pages.
    pub(crate) shared: Half,
    /// The memory for private pages.
    pub(crate) private: Option<Half>,
    /// Where the memory for shared pages is mapped, if it is a file that is mapped for this slot.
    mapped: Option<Mapping>,
}

impl Slot {
    /// A slot that is not mapped, unless its memory is.
    ///
    /// # Errors
    ///
    /// The memory does not fit it.
    pub(crate) fn new(gpa: Gpa, bytes: u64, shared: Half, private: Option<Half>) -> Result<Self, KvmError> {
        for half in std::iter::once(&shared).chain(&private) {
            half.check(bytes).map_err(|flaw| KvmError::BadMemory { gpa, bytes, flaw })?;
        }
        Ok(Self { gpa, bytes, shared, private, mapped: None })
    }

    /// `KVM_SET_USER_MEMORY_REGION`, or its successor if there is memory for private pages. A file is mapped before.
    ///
    /// # Errors
    ///
    /// The memory cannot be mapped, or the ioctl failed.
    pub(crate) fn register(mut self, vm: &VmFd, number: u32) -> Result<Self, KvmError> {
        let bytes = self.bytes;
        if let Some(fd) = self.shared.memory.fd() {
            let failed = |errno| KvmError::Map { bytes, errno };
            let length = usize::try_from(bytes).map_err(|_| failed(exeunt_abi::Errno::ENOMEM))?;
            self.mapped = Some(Mapping::of_file(fd, self.shared.offset, length).map_err(failed)?);
        }
        let userspace_addr =
            self.view().map_or(0, |(mapping, start)| mapping.address().saturating_add(start));
        let region = kvm_userspace_memory_region2 {
            slot: number,
            flags: 0,
            guest_phys_addr: self.gpa.0,
            memory_size: bytes,
            userspace_addr,
            ..Default::default()
        };
        match &self.private {
            None => register_shared(vm, region),
            Some(private) => register_private(vm, region, private),
        }?;
        Ok(self)
    }

    /// Where the memory for shared pages is mapped: a mapping, and where the slot starts in it.
    pub(crate) fn view(&self) -> Option<(&Mapping, u64)> {
        match &self.mapped {
            Some(mapping) => Some((mapping, 0)),
            None => self.shared.memory.mapping().map(|mapping| (mapping, self.shared.offset)),
        }
    }
}

impl Half {
    fn check(&self, bytes: u64) -> Result<(), MemoryFlaw> {
        let end = self.offset.checked_add(bytes).filter(|end| *end <= self.memory.bytes());
        let end = end.ok_or(MemoryFlaw::PastEnd)?;
        let page_bytes = self.memory.page_bytes();
        if self.offset % page_bytes != 0 || end % page_bytes != 0 {
            return Err(MemoryFlaw::PartialPage { page_bytes });
        }
        Ok(())
    }
}

fn register_shared(vm: &VmFd, region: kvm_userspace_memory_region2) -> Result<(), KvmError> {
    let region = kvm_userspace_memory_region {
        slot: region.slot,
        flags: region.flags,
        guest_phys_addr: region.guest_phys_addr,
        memory_size: region.memory_size,
        userspace_addr: region.userspace_addr,
    };
    // SAFETY: The memory is mapped, nobody borrows it, and it stays mapped until after the VM is gone, because the
    // VM's `Machine` keeps every slot for longer than its descriptor, and every vCPU keeps the `Machine`.
    let result = unsafe { vm.set_user_memory_region(region) };
    result.map_err(KvmError::ioctl("KVM_SET_USER_MEMORY_REGION"))
}

fn register_private(vm: &VmFd, region: kvm_userspace_memory_region2, private: &Half) -> Result<(), KvmError> {
    let fd = private.memory.fd().and_then(|fd| u32::try_from(fd.as_raw_fd()).ok());
    let region = kvm_userspace_memory_region2 {
        flags: MEM_GUEST_MEMFD,
        guest_memfd_offset: private.offset,
        guest_memfd: fd.unwrap_or(u32::MAX),
        ..region
    };
    // SAFETY: As for `register_shared`. The `guest_memfd` is not mapped here, and KVM keeps its own reference to it.
    let result = unsafe { vm.set_user_memory_region2(region) };
    result.map_err(KvmError::ioctl("KVM_SET_USER_MEMORY_REGION2"))
}
