//! A VM whose ioctls are given whatever the caller says, to see what the kernel makes of it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use exeunt_abi::kvm::device_attr::EnableCap;
use exeunt_abi::kvm::ioctl;
use exeunt_abi::kvm::memory::{CreateGuestMemfd, MemoryAttributes, UserspaceMemoryRegion2};
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use rustix::fs::FallocateFlags;
use zerocopy::IntoBytes;

use crate::error::KvmError;
use crate::ioctl_unsafe;
use crate::kvm::Kvm;
use crate::mapping_unsafe::Mapping;
use crate::vcpu::Vcpu;
use crate::vm::Machine;

/// A VM for those who ask the kernel rather than use it: nothing is checked before the kernel checks it.
///
/// [`crate::Vm`] refuses what cannot work and keeps track of its slots; this refuses only what would let a guest reach
/// memory of this process that is not for it. The memory behind all slots is one arena, and addresses of the process
/// are distances from its start.
#[derive(Debug)]
pub struct Unchecked {
    machine: Arc<Machine>,
    files: Vec<Option<OwnedFd>>,
}

impl Unchecked {
    /// `KVM_CREATE_VM` with any number as the type. The arena has `arena_bytes`, and nobody may touch the last
    /// `hole_bytes` of it: a guest that does finds a fault.
    ///
    /// # Errors
    ///
    /// The error of the ioctl, or of the arena's mapping.
    pub fn create(
        kvm: &Kvm,
        vm_type: u64,
        dialect: Dialect,
        arena_bytes: usize,
        hole_bytes: usize,
    ) -> Result<Self, Errno> {
        let arena = Mapping::with_hole(arena_bytes, hole_bytes)?;
        let fd = kvm.raw_vm(vm_type)?;
        let mut machine = Machine::new(fd, Kernel { dialect, arch: Arch::X86 });
        machine.arena = Some(arena);
        Ok(Self { machine: Arc::new(machine), files: Vec::new() })
    }

    /// `KVM_CHECK_EXTENSION` on the VM.
    ///
    /// # Errors
    ///
    /// The error of the ioctl.
    pub fn check_extension(&self, cap: u32) -> Result<u64, Errno> {
        let value = self.machine.fd.check_extension_raw(cap.into());
        // The wrapper leaves the error of a negative answer in `errno`.
        u64::try_from(value).map_err(|_| Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)))
    }

    /// `KVM_ENABLE_CAP`.
    ///
    /// # Errors
    ///
    /// The error of the ioctl.
    pub fn enable_cap(&self, argument: EnableCap) -> Result<u64, Errno> {
        let mut argument = argument;
        let vm = ioctl_unsafe::borrowed(&self.machine.fd);
        ioctl_unsafe::plain(vm, ioctl::KVM_ENABLE_CAP, argument.as_mut_bytes())
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES`.
    ///
    /// # Errors
    ///
    /// The error of the ioctl.
    pub fn set_memory_attributes(&self, argument: MemoryAttributes) -> Result<u64, Errno> {
        let mut argument = argument;
        let vm = ioctl_unsafe::borrowed(&self.machine.fd);
        ioctl_unsafe::plain(vm, ioctl::KVM_SET_MEMORY_ATTRIBUTES, argument.as_mut_bytes())
    }

    /// `KVM_CREATE_GUEST_MEMFD`. The file gets the next number from 0 on.
    ///
    /// # Errors
    ///
    /// The error of the ioctl, and then there is no file of that number.
    pub fn create_guest_memfd(&mut self, argument: CreateGuestMemfd) -> Result<u64, Errno> {
        let mut argument = argument;
        let vm = ioctl_unsafe::borrowed(&self.machine.fd);
        let made = ioctl_unsafe::plain(vm, ioctl::KVM_CREATE_GUEST_MEMFD, argument.as_mut_bytes());
        let file = made.and_then(ioctl_unsafe::made);
        let number = self.files.len() as u64;
        let result = file.as_ref().map(|_| number).map_err(|errno| *errno);
        self.files.push(file.ok());
        result
    }

    /// `close` of a `guest_memfd`. KVM unbinds it from its slots.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number without a file.
    pub fn close_guest_memfd(&mut self, file: usize) -> Result<(), Errno> {
        self.files.get_mut(file).and_then(Option::take).map(drop).ok_or(Errno::EBADF)
    }

    /// `fallocate` of a `guest_memfd`: punches a hole, or with `allocate` makes pages present.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number without a file, else the error of the system call.
    pub fn fallocate(&self, file: usize, allocate: bool, offset: u64, bytes: u64) -> Result<(), Errno> {
        let file = self.files.get(file).and_then(Option::as_ref).ok_or(Errno::EBADF)?;
        let punch = if allocate { FallocateFlags::empty() } else { FallocateFlags::PUNCH_HOLE };
        rustix::fs::fallocate(file.as_fd(), punch | FallocateFlags::KEEP_SIZE, offset, bytes)
            .map_err(|error| Errno(error.raw_os_error()))
    }

    /// `KVM_SET_USER_MEMORY_REGION`, or with `second` its successor. `userspace_addr` counts from the start of the
    /// arena; `guest_memfd` is the number of a file, and one without a file is a descriptor that is not open.
    ///
    /// # Errors
    ///
    /// The error of the ioctl; `EFAULT` for a slot that the kernel would take although it leaves the arena.
    pub fn set_region(&self, region: &UserspaceMemoryRegion2, second: bool) -> Result<(), Errno> {
        let mut region = *region;
        let file = usize::try_from(region.guest_memfd).ok().and_then(|number| self.files.get(number));
        region.guest_memfd = match file.and_then(Option::as_ref) {
            Some(file) => u32::try_from(std::os::fd::AsRawFd::as_raw_fd(file)).unwrap_or(u32::MAX),
            None => u32::MAX,
        };
        let arena = self.machine.arena.as_ref().ok_or(Errno::EFAULT)?;
        ioctl_unsafe::region(ioctl_unsafe::borrowed(&self.machine.fd), arena, &region, second)
    }

    /// Copies into the arena.
    ///
    /// # Errors
    ///
    /// `EFAULT` outside of it or in its hole.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        self.machine.arena.as_ref().ok_or(Errno::EFAULT)?.write(offset, bytes)
    }

    /// Copies out of the arena.
    ///
    /// # Errors
    ///
    /// `EFAULT` outside of it or in its hole.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), Errno> {
        self.machine.arena.as_ref().ok_or(Errno::EFAULT)?.read(offset, bytes)
    }

    /// `KVM_CREATE_VCPU`.
    ///
    /// # Errors
    ///
    /// The ioctl failed, or the vCPU's run area cannot be mapped.
    pub fn create_vcpu(&self, id: u64) -> Result<Vcpu, KvmError> {
        let fd = self.machine.fd.create_vcpu(id).map_err(KvmError::ioctl("KVM_CREATE_VCPU"))?;
        Vcpu::new(fd, id, Arc::clone(&self.machine))
    }
}
