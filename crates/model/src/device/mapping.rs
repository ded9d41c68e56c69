//! `mmap` of descriptors, and the pages of a vCPU that process and kernel share.
//!
//! The model keeps its pages itself. A process whose pages lie elsewhere has them copied in before `KVM_RUN` and out after
//! it; the first 8 bytes are the process's own and are not copied out. [`Runner`] does it for pages that are mapped, and
//! copies only what the two halves can have changed.

use super::table::File;
use super::vcpu::VcpuFile;
use super::{Device, UserMemory};
use crate::memory::GuestMemfd;
use crate::vcpu::{Kick, Vcpu};
use crate::vm::Vm;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::regs::SyncRegs;
use exeunt_abi::kvm::run::{DIRECTION_IN, ExitReason, Io, PORT_DATA_BYTES, RunPage};
use exeunt_abi::{Errno, PAGE_SIZE};
use std::mem::size_of;
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of `struct kvm_run` on x86; the rest of its page reads as zero.
pub const RUN_BYTES: usize = 2352;
const _: () = assert!(size_of::<RunPage>() + size_of::<SyncRegs>() == RUN_BYTES);
/// What the process writes at the head of the page, by signal handlers and other threads too.
const USER_BYTES: usize = 8;

/// A page of a vCPU's mapping, in the order in which they lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VcpuPage {
    /// `struct kvm_run`.
    Run,
    /// The data of port I/O.
    PortData,
    /// The ring of gathered writes, which all vCPUs of a VM share.
    CoalescedRing,
}

/// What a mapping shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Pages of a vCPU, from the offset on; `None` is a page whose access ends in `SIGBUS`.
    Vcpu(Vec<Option<VcpuPage>>),
    /// Pages of a `guest_memfd` that userspace may see.
    Gmem {
        /// The file.
        file: GuestMemfd,
        /// Where the mapping begins in it, in bytes.
        offset_bytes: u64,
    },
}

impl Device {
    /// `mmap` with `MAP_SHARED`, at an offset in bytes.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vcpu_mmap` and `kvm_vcpu_fault`; `guest_memfd.c`,
    /// `kvm_gmem_mmap`.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open, `EINVAL` for a length of 0, an unaligned offset or more than 1 MiB of a
    /// vCPU, `ENODEV` for a file that cannot be mapped.
    pub fn mmap(&self, fd: i32, offset_bytes: u64, bytes: u64) -> Result<Mapping, Errno> {
        let file = self.table.get(fd)?;
        if bytes == 0 || offset_bytes & (PAGE_SIZE - 1) != 0 {
            return Err(Errno::EINVAL);
        }
        match file {
            File::Vcpu(_) if bytes > 1 << 20 => Err(Errno::EINVAL),
            File::Vcpu(_) => {
                let first = offset_bytes / PAGE_SIZE;
                let end = first.saturating_add(bytes.div_ceil(PAGE_SIZE));
                Ok(Mapping::Vcpu((first..end).map(page_at).collect()))
            }
            _ => Err(Errno::ENODEV),
        }
    }

    fn vcpu_file(&self, fd: i32) -> Result<Arc<VcpuFile>, Errno> {
        match self.table.get(fd)? {
            File::Vcpu(vcpu) => Ok(vcpu),
            _ => Err(Errno::ENODEV),
        }
    }

    /// Reads the run page of a vCPU, as a process does through its mapping. It waits for a `KVM_RUN` under way.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open, `ENODEV` for another file, `EFAULT` past the page.
    pub fn read_run_page(&self, fd: i32, offset: usize, to: &mut [u8]) -> Result<(), Errno> {
        let mut page = [0; 4096];
        store(&self.vcpu_file(fd)?.lock(), &mut page);
        let end = offset.checked_add(to.len()).ok_or(Errno::EFAULT)?;
        to.copy_from_slice(page.get(offset..end).ok_or(Errno::EFAULT)?);
        Ok(())
    }

    /// Writes the run page of a vCPU, as a process does through its mapping. It waits for a `KVM_RUN` under way; to end
    /// one there is [`Device::kick`].
    ///
    /// # Errors
    ///
    /// As [`Device::read_run_page`].
    pub fn write_run_page(&self, fd: i32, offset: usize, from: &[u8]) -> Result<(), Errno> {
        let file = self.vcpu_file(fd)?;
        let mut vcpu = file.lock();
        let mut page = [0; 4096];
        store(&vcpu, &mut page);
        let end = offset.checked_add(from.len()).ok_or(Errno::EFAULT)?;
        page.get_mut(offset..end).ok_or(Errno::EFAULT)?.copy_from_slice(from);
        load(&mut vcpu, &page);
        Ok(())
    }

    /// Lets a function see and change the data of port I/O.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open, `ENODEV` for another file.
    pub fn with_port_data<T>(
        &self,
        fd: i32,
        look: impl FnOnce(&mut [u8; PORT_DATA_BYTES]) -> T,
    ) -> Result<T, Errno> {
        Ok(look(&mut self.vcpu_file(fd)?.lock().port_data))
    }

    /// `KVM_RUN` of a process whose pages lie elsewhere: copies them in, runs, and copies them out, also after an error.
    /// The first 8 bytes of the run page are the process's own: they are not copied out.
    ///
    /// # Errors
    ///
    /// As `KVM_RUN` by [`Device::ioctl`]; `ENODEV` for another file.
    pub fn run_on_pages(
        &self,
        fd: i32,
        arg: u64,
        memory: &Arc<dyn UserMemory>,
        run: &mut [u8; 4096],
        port_data: &mut [u8; PORT_DATA_BYTES],
    ) -> Result<u32, Errno> {
        let file = self.vcpu_file(fd)?;
        {
            let mut vcpu = file.lock();
            load(&mut vcpu, run);
            vcpu.port_data.copy_from_slice(port_data);
        }
        let result = self.ioctl(fd, nr::KVM_RUN.0, arg, memory);
        let vcpu = file.lock();
        let mut page = [0; 4096];
        store(&vcpu, &mut page);
        if let (Some(to), Some(from)) = (run.get_mut(USER_BYTES..), page.get(USER_BYTES..)) {
            to.copy_from_slice(from);
        }
        port_data.copy_from_slice(&*vcpu.port_data);
        result
    }
}

/// Where the data of port I/O begins in a vCPU's mapping.
const PORT_DATA_AT: usize = 4096;
/// Where the registers that are shared begin in a vCPU's mapping.
const SYNC_AT: usize = size_of::<RunPage>();

/// The mapping of a vCPU, where a process has it.
pub trait LivePages {
    /// Copies bytes out, from an offset in bytes on. What is outside of the mapping leaves the buffer as it was.
    fn load(&self, offset: usize, to: &mut [u8]);

    /// Copies bytes in. What is outside of the mapping is dropped.
    fn store(&self, offset: usize, from: &[u8]);
}

/// One `KVM_RUN`, as it came back.
#[derive(Debug)]
pub struct Ran {
    /// What the ioctl returns.
    pub result: Result<(), Errno>,
    /// The run page as the kernel left it. Its first 8 bytes are as they were at the entry.
    pub after: RunPage,
    /// The kernel would sleep or go on: nothing came for the process, not even a signal, and it is still inside of
    /// `KVM_RUN`. It is to be called again.
    pub is_blocked: bool,
}

/// The way to `KVM_RUN` of one vCPU for a process that has mapped its pages, without a look at the descriptor table.
#[derive(Clone, Debug)]
pub struct Runner {
    file: Arc<VcpuFile>,
}

impl Device {
    /// The way to `KVM_RUN` of a vCPU. It lives on when the descriptor is closed, and keeps the vCPU.
    ///
    /// # Errors
    ///
    /// `EBADF` for a number that is not open, `ENODEV` for another file.
    pub fn runner(&self, fd: i32) -> Result<Runner, Errno> {
        Ok(Runner { file: self.vcpu_file(fd)? })
    }
}

impl Runner {
    /// `KVM_RUN` with 0 as its argument. `before` is the run page that the process hands in; the page that comes back
    /// is not written to `pages`, the shared registers and the data of port I/O are, as far as they changed.
    #[must_use]
    pub fn run(&self, memory: &Arc<dyn UserMemory>, before: &RunPage, pages: &impl LivePages) -> Ran {
        let mut vcpu = self.file.lock();
        if !vcpu.vm.belongs_to(memory) || vcpu.vm.is_dead() {
            return Ran { result: Err(Errno::EIO), after: before.clone(), is_blocked: false };
        }
        load_port_data(&mut vcpu, pages);
        vcpu.page = before.clone();
        load_sync(&mut vcpu, pages);
        let result = vcpu.kvm_run();
        store_port_data(&vcpu, result, pages);
        if vcpu.sync.kvm_valid_regs | vcpu.sync.kvm_dirty_regs != 0 {
            pages.store(SYNC_AT, vcpu.sync.as_bytes());
        }
        let [_, immediate_exit, ..] = before.user;
        let is_signal = || immediate_exit != 0 || vcpu.peer.immediate_exit();
        let is_waiting = || vcpu.slice == 0 || vcpu.is_blocked();
        let is_blocked = result == Err(Errno::EINTR) && !is_signal() && is_waiting();
        Ran { result, after: vcpu.page.clone(), is_blocked }
    }

    /// What makes another thread's `KVM_RUN` return.
    #[must_use]
    pub fn kick(&self) -> Kick {
        self.file.kick()
    }

    /// The VM, for those who look at it from outside.
    #[must_use]
    pub fn vm(&self) -> Vm {
        self.file.vm.clone()
    }

    /// Lets a function see and change the vCPU between two calls.
    pub fn change<T>(&self, change: impl FnOnce(&mut Vcpu) -> T) -> T {
        change(&mut self.file.lock())
    }

    /// The signals that are blocked during `KVM_RUN`, bit n - 1 for signal n, if the process chose other ones than those
    /// of the thread.
    #[must_use]
    pub fn signal_mask(&self) -> Option<u64> {
        self.file.lock().signal_mask
    }
}

/// The process's answer to port I/O: the model looks at the data of a read only.
fn load_port_data(vcpu: &mut Vcpu, pages: &impl LivePages) {
    // The model's own page says what the last exit was, whatever the process made of its copy.
    let Some(bytes) = port_bytes(&vcpu.page) else { return };
    if vcpu.page.payload::<Io>().direction == DIRECTION_IN {
        pages.load(PORT_DATA_AT, vcpu.port_data.get_mut(..bytes).unwrap_or_default());
    }
}

fn store_port_data(vcpu: &Vcpu, result: Result<(), Errno>, pages: &impl LivePages) {
    if let (Ok(()), Some(bytes)) = (result, port_bytes(&vcpu.page)) {
        pages.store(PORT_DATA_AT, vcpu.port_data.get(..bytes).unwrap_or_default());
    }
}

/// Bytes of port data that go with the exit in a page.
fn port_bytes(page: &RunPage) -> Option<usize> {
    if page.reason() != ExitReason::IO {
        return None;
    }
    let io: Io = page.payload();
    let bytes = u64::from(io.size).saturating_mul(u64::from(io.count));
    Some(usize::try_from(bytes).unwrap_or(PORT_DATA_BYTES).min(PORT_DATA_BYTES))
}

/// The shared registers, if the process or the kernel marked any.
fn load_sync(vcpu: &mut Vcpu, pages: &impl LivePages) {
    let mut marks = [0u8; 16];
    pages.load(SYNC_AT, &mut marks);
    if marks != [0; 16] {
        pages.load(SYNC_AT, vcpu.sync.as_mut_bytes());
    } else if vcpu.sync.kvm_valid_regs | vcpu.sync.kvm_dirty_regs != 0 {
        (vcpu.sync.kvm_valid_regs, vcpu.sync.kvm_dirty_regs) = (0, 0);
    }
}

fn page_at(page: u64) -> Option<VcpuPage> {
    match page {
        0 => Some(VcpuPage::Run),
        1 => Some(VcpuPage::PortData),
        2 => Some(VcpuPage::CoalescedRing),
        _ => None,
    }
}

fn load(vcpu: &mut Vcpu, page: &[u8; 4096]) {
    if let Ok((head, rest)) = RunPage::read_from_prefix(page) {
        vcpu.page = head;
        if let Ok((sync, _)) = SyncRegs::read_from_prefix(rest) {
            *vcpu.sync = sync;
        }
    }
}

fn store(vcpu: &Vcpu, page: &mut [u8; 4096]) {
    let (head, rest) = page.split_at_mut(size_of::<RunPage>());
    head.copy_from_slice(vcpu.page.as_bytes());
    if let Some(sync) = rest.get_mut(..size_of::<SyncRegs>()) {
        sync.copy_from_slice(vcpu.sync.as_bytes());
    }
}
