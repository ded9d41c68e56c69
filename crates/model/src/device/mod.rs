//! The model as a process meets it: `/dev/kvm` and `/dev/sev`, file descriptors, and ioctls with their bytes.
//!
//! [`Device`] is the descriptor table of one process. A request is decoded by its whole 32-bit number; structs are copied
//! from and to the memory of the caller in the order in which KVM copies them, so that each errno comes from the check
//! that KVM makes first. A descriptor that another process uses, forked or handed over, finds another memory: KVM refuses
//! it with `EIO`.

mod attr;
mod board;
mod call;
mod cpuid;
mod filters;
mod gmem;
pub(crate) mod interrupts;
mod mapping;
mod msrs;
mod nested;
mod one_reg;
mod registers;
mod routes;
mod sev;
mod state;
mod system;
mod table;
mod vcpu;
mod vm;

pub use mapping::{LivePages, Mapping, RUN_BYTES, Ran, Runner, VcpuPage};
pub use table::{Descriptors, OwnNumbers};

use crate::guest::{Cpu, GuestFault};
use crate::host::Host;
use crate::kvm::Kvm;
use crate::launch::SevHost;
use crate::memory::UserMemory;
use crate::vcpu::Kick;
use crate::vm::Vm;
use call::Call;
use exeunt_abi::kvm::ioctl::Ioctl;
use exeunt_abi::{Errno, Kernel};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use table::{File, Table};

/// What a vCPU runs.
pub type Program = Pin<Box<dyn Future<Output = Result<(), GuestFault>> + Send>>;

type Guests = Arc<dyn Fn(u64, Cpu) -> Program + Send + Sync>;

/// A file that can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// `/dev/kvm`.
    Kvm,
    /// `/dev/sev`.
    Sev,
}

/// What `fstat` says of a descriptor, as far as the model knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// `st_size`: bytes of a `guest_memfd`, 0 for everything else.
    pub size: u64,
    /// `st_blocks`: units of 512 bytes that are present.
    pub blocks: u64,
}

/// The descriptors of a process, and the kernel behind them.
pub struct Device {
    kvm: Kvm,
    kernel: Kernel,
    host: Host,
    /// The secure processor, and the open `/dev/sev` by number.
    sev: SevHost,
    table: Table,
    guests: RwLock<Guests>,
    seed: AtomicU64,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("kvm", &self.kvm).field("table", &self.table).finish_non_exhaustive()
    }
}

impl Device {
    /// A process without descriptors of its own, on this kernel and host. Its numbers begin at 3. Every vCPU halts at
    /// once.
    #[must_use]
    pub fn new(kernel: Kernel, host: Host) -> Self {
        Self::with_descriptors(kernel, host, Arc::new(OwnNumbers::default()))
    }

    /// The same, with descriptor numbers from elsewhere.
    #[must_use]
    pub fn with_descriptors(kernel: Kernel, host: Host, descriptors: Arc<dyn Descriptors>) -> Self {
        let halts: Guests = Arc::new(|_, _| Box::pin(async { Ok(()) }));
        let sev = SevHost::default();
        sev.close(SevHost::FILE);
        Self {
            kvm: Kvm::on(host, kernel),
            kernel,
            host,
            sev,
            table: Table::new(descriptors),
            guests: RwLock::new(halts),
            seed: AtomicU64::new(0),
        }
    }

    /// Chooses what vCPUs that are made from now on run, by their id.
    pub fn set_guest(&self, guest: impl Fn(u64, Cpu) -> Program + Send + Sync + 'static) {
        *self.guests.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(guest);
    }

    /// Chooses what decides by chance in vCPUs that are made from now on; each has its id besides.
    pub fn set_seed(&self, seed: u64) {
        self.seed.store(seed, Ordering::Relaxed);
    }

    fn seed(&self) -> u64 {
        self.seed.load(Ordering::Relaxed)
    }

    fn guests(&self) -> Guests {
        Arc::clone(&self.guests.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// `open`.
    ///
    /// # Errors
    ///
    /// `ENOENT` for `/dev/sev` on an Intel host; `EMFILE` if there is no number left; what [`Descriptors::take`] says.
    pub fn open(&self, path: Path) -> Result<i32, Errno> {
        match path {
            Path::Kvm => self.table.insert(File::Kvm),
            Path::Sev => self.open_sev(true),
        }
    }

    /// `open` of `/dev/sev`, for reading only or for writing too, which changes of the platform need.
    ///
    /// # Errors
    ///
    /// As [`Device::open`].
    pub fn open_sev(&self, writable: bool) -> Result<i32, Errno> {
        if self.host.is_intel() {
            return Err(Errno::ENOENT);
        }
        let fd = self.table.insert(File::Sev { writable })?;
        self.sev.open(fd.unsigned_abs(), writable);
        Ok(fd)
    }

    /// The host that VMs of this process are launched on.
    #[must_use]
    pub const fn sev_host(&self) -> &SevHost {
        &self.sev
    }

    /// An event file, for `KVM_IRQFD` and `KVM_IOEVENTFD`.
    ///
    /// # Errors
    ///
    /// As [`Device::open`].
    pub fn eventfd(&self) -> Result<i32, Errno> {
        self.table.insert(File::Event)
    }

    /// `ioctl`: what it returns, which is never negative.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open; what the kernel says otherwise.
    pub fn ioctl(&self, fd: i32, request: u32, arg: u64, memory: &Arc<dyn UserMemory>) -> Result<u32, Errno> {
        let call = Call { device: self, fd, request: Ioctl(request), arg, user: memory };
        match self.table.get(fd)? {
            File::Kvm => call.on_system(),
            File::Vm(vm) => call.on_vm(&vm),
            File::Vcpu(vcpu) => call.on_vcpu(&vcpu),
            File::Device(device) => call.on_device(&device),
            File::Sev { .. } => call.on_sev(),
            File::Event | File::Gmem(_) | File::Stats(_) => Err(Errno::ENOTTY),
        }
    }

    /// `close`. The object lives on as long as another descriptor or the VM needs it.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open.
    pub fn close(&self, fd: i32) -> Result<(), Errno> {
        if matches!(self.table.get(fd)?, File::Sev { .. }) {
            self.sev.close(fd.unsigned_abs());
        }
        self.table.remove(fd)
    }

    /// `dup`.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open; as [`Device::open`].
    pub fn dup(&self, fd: i32) -> Result<i32, Errno> {
        let file = self.table.get(fd)?;
        let writable = matches!(file, File::Sev { writable: true });
        let is_sev = matches!(file, File::Sev { .. });
        let copy = self.table.insert(file)?;
        if is_sev {
            self.sev.open(copy.unsigned_abs(), writable);
        }
        Ok(copy)
    }

    /// The VM of a descriptor, its own or that of its vCPU, file or device, for those who look at it from outside.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open, `EINVAL` for another file.
    pub fn vm(&self, fd: i32) -> Result<Vm, Errno> {
        match self.table.get(fd)? {
            File::Vm(vm) => Ok(vm.vm.clone()),
            File::Vcpu(vcpu) => Ok(vcpu.vm.clone()),
            File::Gmem(gmem) => Ok(gmem.vm.clone()),
            File::Device(device) => Ok(device.vm.clone()),
            File::Stats(vm) => Ok(vm),
            File::Kvm | File::Sev { .. } | File::Event => Err(Errno::EINVAL),
        }
    }

    /// What makes another thread's `KVM_RUN` on this descriptor return.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open, `EINVAL` for another file.
    pub fn kick(&self, fd: i32) -> Result<Kick, Errno> {
        match self.table.get(fd)? {
            File::Vcpu(vcpu) => Ok(vcpu.kick()),
            _ => Err(Errno::EINVAL),
        }
    }
}
