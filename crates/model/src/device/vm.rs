//! The ioctls of a VM.

use super::board::Board;
use super::call::Call;
use super::gmem::GmemFile;
use super::table::File;
use super::vcpu::VcpuFile;
use crate::memory::GuestMemfd;
use crate::vm::Vm;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::device_attr::EnableCap;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::memory::{ClearDirtyLog, CreateGuestMemfd, DirtyLog, UserspaceMemoryRegion2};
use exeunt_abi::{Arch, Errno};
use std::sync::{Arc, Mutex, Weak};

/// A VM with what only its descriptors have.
#[derive(Debug)]
pub(super) struct VmFile {
    pub(super) vm: Vm,
    pub(super) board: Mutex<Board>,
    pub(super) vcpus: Mutex<Vec<Weak<VcpuFile>>>,
}

impl VmFile {
    pub(super) fn new(vm: Vm) -> Self {
        Self { vm, board: Mutex::default(), vcpus: Mutex::default() }
    }
}

impl Call<'_> {
    /// A VM belongs to the process that made it, and a dead one to nobody.
    pub(super) fn check_owner(&self, vm: &Vm) -> Result<(), Errno> {
        if !vm.belongs_to(self.user) || vm.is_dead() {
            return Err(Errno::EIO);
        }
        Ok(())
    }

    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vm_ioctl`, and `arch/x86/kvm/x86.c`, `kvm_arch_vm_ioctl`.
    pub(super) fn on_vm(&self, file: &Arc<VmFile>) -> Result<u32, Errno> {
        let vm = &file.vm;
        self.check_owner(vm)?;
        if self.device.kernel.arch == Arch::X86 {
            let on_board = self
                .on_board(file)
                .or_else(|| self.on_routes(file))
                .or_else(|| self.on_filters(vm))
                .or_else(|| self.on_encryption(file));
            if let Some(result) = on_board {
                return result;
            }
        }
        let has_private = self.device.kernel.dialect.has_private_memory();
        match self.request {
            nr::KVM_CREATE_VCPU => self.create_vcpu(file),
            nr::KVM_ENABLE_CAP => vm.enable_cap_args(&self.get::<EnableCap>()?).map(|()| 0),
            nr::KVM_SET_USER_MEMORY_REGION => vm.set_user_memory_region(&self.get()?).map(|()| 0),
            nr::KVM_SET_USER_MEMORY_REGION2 if has_private => {
                let region: UserspaceMemoryRegion2 = self.get()?;
                vm.set_user_memory_region2(&region, |fd| self.guest_memfd(fd)).map(|()| 0)
            }
            nr::KVM_SET_MEMORY_ATTRIBUTES if has_private => vm.set_attributes(&self.get()?).map(|()| 0),
            nr::KVM_CREATE_GUEST_MEMFD if has_private => {
                let args: CreateGuestMemfd = self.get()?;
                self.create_guest_memfd(vm, &args)
            }
            nr::KVM_GET_DIRTY_LOG => self.get_dirty_log(vm),
            nr::KVM_CLEAR_DIRTY_LOG => self.clear_dirty_log(vm),
            nr::KVM_CHECK_EXTENSION => {
                let vm_type = vm.lock().vm_type;
                Ok(self.check_extension(Some(vm_type)))
            }
            nr::KVM_CREATE_DEVICE => self.create_device(file),
            nr::KVM_GET_STATS_FD if vm.check_extension(Cap::BINARY_STATS_FD) != 0 => self.stats_fd(vm),
            // There is no dirty ring to reset.
            nr::KVM_RESET_DIRTY_RINGS => Err(Errno::EINVAL),
            _ => Err(Errno::ENOTTY),
        }
    }

    /// `KVM_GET_STATS_FD` of a VM or a vCPU: a file that pins the VM.
    pub(super) fn stats_fd(&self, vm: &Vm) -> Result<u32, Errno> {
        self.device.table.insert(File::Stats(vm.clone())).map(i32::unsigned_abs)
    }

    fn create_vcpu(&self, file: &VmFile) -> Result<u32, Errno> {
        let guests = self.device.guests();
        let id = self.arg;
        let seed = self.device.seed().wrapping_add(id);
        let vcpu = file.vm.create_vcpu_with_id(id, seed, |cpu| guests(id, cpu))?;
        let vcpu = Arc::new(VcpuFile::new(vcpu));
        file.add_vcpu(&vcpu);
        let fd = self.device.table.insert(File::Vcpu(vcpu))?;
        Ok(fd.unsigned_abs())
    }

    fn create_guest_memfd(&self, vm: &Vm, args: &CreateGuestMemfd) -> Result<u32, Errno> {
        let fd = self.device.table.insert_with(|_| {
            let file = vm.create_guest_memfd_with(args)?;
            Ok(File::Gmem(Arc::new(GmemFile { vm: vm.clone(), file })))
        })?;
        Ok(fd.unsigned_abs())
    }

    /// The file behind a number in a slot.
    fn guest_memfd(&self, fd: u32) -> Result<GuestMemfd, Errno> {
        match self.device.table.get(i32::try_from(fd).map_err(|_| Errno::EBADF)?)? {
            File::Gmem(gmem) => Ok(gmem.file),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The bitmap is copied word by word; what cannot be copied is lost from the log all the same.
    fn get_dirty_log(&self, vm: &Vm) -> Result<u32, Errno> {
        let args: DirtyLog = self.get()?;
        let log = vm.get_dirty_log(args.slot)?;
        for (word, at) in log.words().zip((args.dirty_bitmap..).step_by(8)) {
            self.put_at(at, &word)?;
        }
        Ok(0)
    }

    /// The whole bitmap is read before the first page is clean again.
    fn clear_dirty_log(&self, vm: &Vm) -> Result<u32, Errno> {
        let args: ClearDirtyLog = self.get()?;
        let clear = |words: &mut dyn Iterator<Item = u64>| {
            vm.clear_dirty_log(args.slot, args.first_page, args.num_pages, words)
        };
        clear(&mut std::iter::empty())?;
        let count = u64::from(args.num_pages).div_ceil(64);
        let word = |index: u64| self.get_at::<u64>(args.dirty_bitmap.wrapping_add(index.saturating_mul(8)));
        (0..count).try_for_each(|index| word(index).map(|_| ()))?;
        clear(&mut (0..count).map_while(|index| word(index).ok()))?;
        Ok(0)
    }
}
