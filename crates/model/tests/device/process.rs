//! A process with memory, descriptors and a scratch area for the arguments of its ioctls.

use exeunt_abi::kvm::ioctl::{self as nr, Ioctl};
use exeunt_abi::kvm::run::RunPage;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use exeunt_model::device::Path;
use exeunt_model::{Device, Host, Protection, SparseMemory, UserMemory};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where a test puts the argument of an ioctl.
pub(crate) const ARG: u64 = 0x7000_0000;
/// A page that the process has not mapped.
pub(crate) const UNMAPPED: u64 = 0x6666_0000;
/// A page that the process can only read.
pub(crate) const READ_ONLY: u64 = 0x5555_0000;

pub(crate) struct Process {
    pub(crate) device: Device,
    pub(crate) memory: Arc<dyn UserMemory>,
}

impl Process {
    pub(crate) fn on(dialect: Dialect, host: Host) -> Self {
        let sparse = SparseMemory::new();
        sparse.protect(UNMAPPED, Protection::None);
        sparse.protect(READ_ONLY, Protection::ReadOnly);
        let device = Device::new(Kernel { dialect, arch: Arch::X86 }, host);
        Self { device, memory: Arc::new(sparse) }
    }

    pub(crate) fn new() -> Self {
        Self::on(Dialect::Linux7_2, Host::AMD)
    }

    /// An ioctl with a number for its argument.
    pub(crate) fn ioctl(&self, fd: i32, request: Ioctl, arg: u64) -> Result<u32, Errno> {
        self.device.ioctl(fd, request.0, arg, &self.memory)
    }

    /// An ioctl with a struct for its argument.
    pub(crate) fn with<T: IntoBytes + Immutable + ?Sized>(
        &self,
        fd: i32,
        request: Ioctl,
        arg: &T,
    ) -> Result<u32, Errno> {
        self.memory.write(ARG, arg.as_bytes()).unwrap();
        self.ioctl(fd, request, ARG)
    }

    /// What an ioctl left in its argument.
    pub(crate) fn argument<T: FromBytes + KnownLayout>(&self) -> T {
        let mut bytes = vec![0; size_of::<T>()];
        self.memory.read(ARG, &mut bytes).unwrap();
        T::read_from_bytes(&bytes).ok().unwrap()
    }

    pub(crate) fn kvm(&self) -> i32 {
        self.device.open(Path::Kvm).unwrap()
    }

    pub(crate) fn vm(&self, vm_type: VmType) -> i32 {
        fd(self.ioctl(self.kvm(), nr::KVM_CREATE_VM, vm_type.number()))
    }

    pub(crate) fn vcpu(&self, vm: i32, id: u64) -> i32 {
        fd(self.ioctl(vm, nr::KVM_CREATE_VCPU, id))
    }

    pub(crate) fn page(&self, vcpu: i32) -> RunPage {
        let mut bytes = [0; 288];
        self.device.read_run_page(vcpu, 0, &mut bytes).unwrap();
        RunPage::read_from_bytes(&bytes).unwrap()
    }
}

/// A descriptor that an ioctl returned.
pub(crate) fn fd(result: Result<u32, Errno>) -> i32 {
    i32::try_from(result.unwrap()).unwrap()
}
