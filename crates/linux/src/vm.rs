//! One VM: its memory, its capabilities, its vCPUs.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::{
    VALID_NMI_PENDING, VALID_PAYLOAD, VALID_SHADOW, VALID_SIPI_VECTOR, VALID_SMM, VALID_TRIPLE_FAULT,
};
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::{Errno, Gpa, Kernel};
use kvm_bindings::{kvm_create_guest_memfd, kvm_enable_cap};
use kvm_ioctls::VmFd;

use crate::effects::{Effects, Ports};
use crate::error::KvmError;
use crate::host_memory::{Half, HostMemory};
use crate::ioctl_unsafe;
use crate::mapping_unsafe::Mapping;
use crate::memory::Memory;
use crate::slot_unsafe::Slot;
use crate::vcpu::Vcpu;

/// The flags of events that need no capability.
const PLAIN_EVENT_FLAGS: u32 = VALID_NMI_PENDING | VALID_SIPI_VECTOR | VALID_SHADOW | VALID_SMM;

/// A virtual machine. The kernel's is gone when this, its vCPUs and its effects are.
#[derive(Debug)]
pub struct Vm {
    machine: Arc<Machine>,
}

/// What a VM, its vCPUs and its effects share.
///
/// The order of the fields is the order in which they die: the descriptor goes before the memory that the kernel
/// reaches through it. A vCPU closes its own descriptor before it lets go of this.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) fd: VmFd,
    pub(crate) memory: Memory,
    ports: Mutex<Ports>,
    event_flags: AtomicU32,
    pub(crate) kernel: Kernel,
    /// What a VM of [`crate::Unchecked`] has for its slots.
    pub(crate) arena: Option<Mapping>,
}

impl Machine {
    pub(crate) fn new(fd: VmFd, kernel: Kernel) -> Self {
        let event_flags = AtomicU32::new(PLAIN_EVENT_FLAGS);
        let ports = Mutex::default();
        Self { fd, memory: Memory::default(), ports, event_flags, kernel, arena: None }
    }

    /// The ports. No code that holds them can leave them half changed, so that a panic elsewhere does not matter.
    pub(crate) fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `KVM_VCPUEVENT_VALID_*` that the capabilities allow now.
    pub(crate) fn event_flags(&self) -> u32 {
        self.event_flags.load(Ordering::SeqCst)
    }

    pub(crate) fn check_extension(&self, cap: Cap) -> u32 {
        u32::try_from(self.fd.check_extension_raw(cap.0.into())).unwrap_or(0)
    }

    fn require(&self, cap: Cap, needed_for: &'static str) -> Result<u32, KvmError> {
        match self.check_extension(cap) {
            0 => Err(KvmError::MissingCapability { cap, needed_for }),
            value => Ok(value),
        }
    }

    fn add_slot(&self, gpa: Gpa, bytes: u64, shared: Half, private: Option<Half>) -> Result<(), KvmError> {
        self.memory
            .add(gpa, bytes, |number| Slot::new(gpa, bytes, shared, private)?.register(&self.fd, number))
    }
}

impl AsFd for Vm {
    /// The VM's descriptor, for ioctls that this crate does not make.
    fn as_fd(&self) -> BorrowedFd<'_> {
        ioctl_unsafe::borrowed(&self.machine.fd)
    }
}

impl Vm {
    pub(crate) fn new(machine: Arc<Machine>) -> Self {
        Self { machine }
    }

    pub(crate) fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// `KVM_CHECK_EXTENSION` on this VM: what the capability says for its type, 0 where it is absent.
    #[must_use]
    pub fn check_extension(&self, cap: Cap) -> u32 {
        self.machine.check_extension(cap)
    }

    /// `KVM_ENABLE_CAP` with one argument. An argument of 0 turns off what can be turned off.
    ///
    /// # Errors
    ///
    /// The host lacks the capability, or refuses the argument.
    pub fn enable_cap(&mut self, cap: Cap, argument: u64) -> Result<(), KvmError> {
        self.machine.require(cap, "KVM_ENABLE_CAP")?;
        let enable = kvm_enable_cap { cap: cap.0, args: [argument, 0, 0, 0], ..Default::default() };
        self.machine.fd.enable_cap(&enable).map_err(KvmError::ioctl("KVM_ENABLE_CAP"))?;
        let flag = match cap {
            Cap::X86_TRIPLE_FAULT_EVENT => VALID_TRIPLE_FAULT,
            Cap::EXCEPTION_PAYLOAD => VALID_PAYLOAD,
            _ => 0,
        };
        if argument == 0 {
            self.machine.event_flags.fetch_and(!flag, Ordering::SeqCst);
        } else {
            self.machine.event_flags.fetch_or(flag, Ordering::SeqCst);
        }
        Ok(())
    }

    /// `KVM_CREATE_IRQCHIP`: the local APICs are in the kernel, and so is a vCPU that halts. Before it there is no vCPU.
    ///
    /// # Errors
    ///
    /// The ioctl failed.
    pub fn create_irqchip(&self) -> Result<(), KvmError> {
        self.machine.fd.create_irq_chip().map_err(KvmError::ioctl("KVM_CREATE_IRQCHIP"))
    }

    /// Adds zeroed memory of `bytes` bytes: an anonymous mapping and `KVM_SET_USER_MEMORY_REGION`.
    ///
    /// # Errors
    ///
    /// The range is empty, unaligned, too high or taken; no memory can be mapped; the ioctl failed.
    pub fn add_memory(&mut self, gpa: Gpa, bytes: u64) -> Result<(), KvmError> {
        self.machine.memory.table().check_at(gpa, bytes)?;
        self.machine.add_slot(gpa, bytes, HostMemory::anonymous(bytes)?.at(0), None)
    }

    /// Adds memory of `bytes` bytes that pages can be private in: an anonymous mapping for the shared pages, a
    /// `guest_memfd` for the private ones, and `KVM_SET_USER_MEMORY_REGION2`. All pages are shared at first.
    ///
    /// # Errors
    ///
    /// The host lacks a capability for this VM's type, which is named; else as for [`Vm::add_memory`].
    pub fn add_private_memory(&mut self, gpa: Gpa, bytes: u64) -> Result<(), KvmError> {
        let needed_for = "private memory";
        self.machine.require(Cap::USER_MEMORY2, needed_for)?;
        let attributes = self.machine.require(Cap::MEMORY_ATTRIBUTES, needed_for)?;
        if u64::from(attributes) & MEMORY_ATTRIBUTE_PRIVATE == 0 {
            return Err(KvmError::MissingCapability { cap: Cap::MEMORY_ATTRIBUTES, needed_for });
        }
        self.machine.require(Cap::GUEST_MEMFD, needed_for)?;
        self.machine.memory.table().check_at(gpa, bytes)?;
        let private = self.create_guest_memfd(bytes)?;
        self.machine.add_slot(gpa, bytes, HostMemory::anonymous(bytes)?.at(0), Some(private.at(0)))
    }

    /// Adds memory that is there already: `KVM_SET_USER_MEMORY_REGION`, or its successor if there is a half for private
    /// pages, which is a `guest_memfd`. Files for shared pages are mapped shared.
    ///
    /// No capability is asked for: the ioctl says what the host cannot do.
    ///
    /// # Errors
    ///
    /// As for [`Vm::add_memory`]; or a half does not have the memory, or would begin or end inside of a huge page.
    pub fn add_slot(
        &mut self,
        gpa: Gpa,
        bytes: u64,
        shared: Half,
        private: Option<Half>,
    ) -> Result<(), KvmError> {
        self.machine.add_slot(gpa, bytes, shared, private)
    }

    /// `KVM_CREATE_GUEST_MEMFD`, for the private half of slots.
    ///
    /// # Errors
    ///
    /// The ioctl failed, as it does before Linux 6.8.
    pub fn create_guest_memfd(&self, bytes: u64) -> Result<HostMemory, KvmError> {
        let create = kvm_create_guest_memfd { size: bytes, ..Default::default() };
        let failed = KvmError::ioctl("KVM_CREATE_GUEST_MEMFD");
        let made = self.machine.fd.create_guest_memfd(create).map_err(failed)?;
        let failed = |errno| KvmError::Ioctl { name: "KVM_CREATE_GUEST_MEMFD", errno };
        let made = u64::try_from(made).map_err(|_| failed(Errno::EBADF))?;
        Ok(HostMemory::guest_memfd(ioctl_unsafe::made(made).map_err(failed)?, bytes))
    }

    /// Copies into shared guest memory. 8 bytes on a border of 8 bytes are one store, as a TD needs it that waits for the
    /// status of a quote.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a byte lies outside of the VM's memory, and then nothing is written.
    pub fn write_guest(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        self.machine.memory.table().write(gpa, bytes)
    }

    /// Copies shared guest memory out.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a byte lies outside of the VM's memory, and then nothing is read.
    pub fn read_guest(&self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.machine.memory.table().read(gpa, bytes)
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

    /// A handle that applies effects to this VM. All handles of one VM share the ports.
    #[must_use]
    pub fn effects(&self) -> Effects {
        Effects::new(Arc::clone(&self.machine), None)
    }
}
