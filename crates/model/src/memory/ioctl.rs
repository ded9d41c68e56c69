//! The ioctls of a VM that are about memory, and what a VMM does to the files it got from them.

use crate::faults::Point;
use crate::memory::{DirtyLog, GuestMemfd, RmpEntry, Slot};
use crate::vm::Vm;
use exeunt_abi::kvm::memory::{
    CreateGuestMemfd, GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, MEM_LOG_DIRTY_PAGES, MEM_READONLY,
    MEMORY_ATTRIBUTE_PRIVATE, MemoryAttributes, UserspaceMemoryRegion, UserspaceMemoryRegion2,
};
use exeunt_abi::{Arch, Errno, Gfn, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::{PageRange, PageState};

/// Modes of `fallocate`.
///
/// Source: Linux `include/uapi/linux/falloc.h`.
pub mod falloc {
    /// `FALLOC_FL_KEEP_SIZE`.
    pub const KEEP_SIZE: u32 = 1 << 0;
    /// `FALLOC_FL_PUNCH_HOLE`.
    pub const PUNCH_HOLE: u32 = 1 << 1;
}

impl Vm {
    /// `KVM_SET_USER_MEMORY_REGION`: creates, moves, changes or, with size 0, deletes a slot.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vm_ioctl`, `kvm_set_memory_region`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for flags that the VM or the ioctl does not have, for what is not aligned, wraps or is too large, for
    /// numbers that are not userspace's, for a slot to delete that is not there, and for a change of anything but the
    /// address and the log; `EEXIST` for frames of another slot.
    pub fn set_user_memory_region(&self, region: &UserspaceMemoryRegion) -> Result<(), Errno> {
        if region.flags & !(MEM_LOG_DIRTY_PAGES | MEM_READONLY) != 0 {
            return Err(Errno::EINVAL);
        }
        let UserspaceMemoryRegion { slot, flags, guest_phys_addr, memory_size, userspace_addr } = *region;
        let region = UserspaceMemoryRegion2 {
            slot,
            flags,
            guest_phys_addr,
            memory_size,
            userspace_addr,
            guest_memfd_offset: 0,
            guest_memfd: 0,
            pad1: 0,
            pad2: [0; 14],
        };
        self.lock().memory.set_region(&region, |_| Err(Errno::EBADF))
    }

    /// `KVM_SET_USER_MEMORY_REGION2`. `resolve` finds the file of a descriptor: it fails with `EBADF` for one that is
    /// not open, and with `EINVAL` for one that is no `guest_memfd`. It is asked after every other check of a new
    /// slot, with the VM locked.
    ///
    /// # Errors
    ///
    /// `ENOTTY` where the kernel lacks it. Else as for [`Vm::set_user_memory_region`], and for a slot with a private half
    /// what `resolve` says, `EINVAL` for a file of another VM, a part that is not inside the file, or any change,
    /// `EEXIST` for a part that is bound (`EINVAL` before Linux 7.2).
    pub fn set_user_memory_region2(
        &self,
        region: &UserspaceMemoryRegion2,
        resolve: impl FnOnce(u32) -> Result<GuestMemfd, Errno>,
    ) -> Result<(), Errno> {
        let mut state = self.lock();
        if !state.kernel.dialect.has_private_memory() {
            return Err(Errno::ENOTTY);
        }
        state.memory.set_region(region, resolve)
    }

    /// Sets a slot by the ioctl that it needs.
    ///
    /// # Errors
    ///
    /// As for [`Vm::set_user_memory_region2`].
    pub fn add_slot(&self, slot: Slot) -> Result<(), Errno> {
        self.lock().memory.add_slot(slot)
    }

    /// Deletes a slot: its region with size 0.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a slot that is not there.
    pub fn delete_slot(&self, slot: u32) -> Result<(), Errno> {
        self.set_user_memory_region(&UserspaceMemoryRegion {
            slot,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: 0,
            userspace_addr: 0,
        })
    }

    /// The slots in the order of their addresses.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        self.lock().memory.slots().to_vec()
    }

    /// `KVM_GET_DIRTY_LOG`: the bitmap, which is clear afterwards unless logs are protected by hand.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a number that is not userspace's, `ENOENT` for a slot that is not there or not logged.
    pub fn get_dirty_log(&self, slot: u32) -> Result<DirtyLog, Errno> {
        self.lock().memory.get_dirty_log(slot)
    }

    /// `KVM_CLEAR_DIRTY_LOG`: pages of a log are clean again. `words` are those of the bitmap from `first_page` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a number that is not userspace's, or pages that do not begin and end at a word or at the end of
    /// the slot; `ENOENT` for a slot that is not there or not logged.
    pub fn clear_dirty_log(
        &self,
        slot: u32,
        first_page: u64,
        num_pages: u32,
        words: impl IntoIterator<Item = u64>,
    ) -> Result<(), Errno> {
        self.lock().memory.clear_dirty_log(slot, first_page, num_pages, words)
    }

    /// `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2` is enabled with these two of its flags.
    pub fn set_manual_dirty_log_protect(&self, protect: bool, initially_set: bool) {
        let mode = &mut self.lock().memory.dirty_log;
        (mode.manual_protect, mode.initially_set) = (protect, initially_set);
    }

    /// `KVM_CREATE_GUEST_MEMFD` without flags.
    ///
    /// # Errors
    ///
    /// As for [`Vm::create_guest_memfd_with`].
    pub fn create_guest_memfd(&self, bytes: u64) -> Result<GuestMemfd, Errno> {
        self.create_guest_memfd_with(&CreateGuestMemfd { size: bytes, flags: 0, reserved: [0; 6] })
    }

    /// `KVM_CREATE_GUEST_MEMFD`. KVM does not look at what is reserved.
    ///
    /// Source: Linux v7.2 `virt/kvm/guest_memfd.c`, `kvm_gmem_create`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a VM that has none (before Linux 6.18 each can make one, and not all can have it in a slot), for a flag that the VM cannot have, and for a size that is 0, not page-sized, or
    /// negative when signed.
    pub fn create_guest_memfd_with(&self, args: &CreateGuestMemfd) -> Result<GuestMemfd, Errno> {
        let mut state = self.lock();
        let is_new = state.kernel.dialect.has_gmem_mmap();
        let valid = match (is_new, state.vm_type.has_private_memory()) {
            (false, _) => 0,
            (true, true) => GUEST_MEMFD_FLAG_MMAP,
            (true, false) => GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
        };
        let is_missing =
            !state.kernel.dialect.has_private_memory() || is_new && !state.memory.supports_gmem();
        // The kernel takes the size as a signed number.
        let is_size = args.size > 0 && i64::try_from(args.size).is_ok() && args.size & (PAGE_SIZE - 1) == 0;
        if is_missing || args.flags & !valid != 0 || !is_size {
            return Err(Errno::EINVAL);
        }
        state.memory.add_file(args.size, args.flags)
    }

    /// `fallocate` on a `guest_memfd`: makes pages, or frees them with [`falloc::PUNCH_HOLE`].
    ///
    /// Source: Linux v7.2 `fs/open.c`, `vfs_fallocate`, and `virt/kvm/guest_memfd.c`, `kvm_gmem_fallocate`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an offset or length below 0, an empty range, one that is not page-aligned, or pages to make behind the
    /// end; `EOPNOTSUPP` without [`falloc::KEEP_SIZE`] or with another mode; `EFBIG` for an end that wraps; `EBADF` for a
    /// closed file; `EINTR` and what the fault plan says when pages are made.
    pub fn fallocate(&self, file: GuestMemfd, mode: u32, offset: i64, len: i64) -> Result<(), Errno> {
        let mut state = self.lock();
        let memory = &mut state.memory;
        let size = memory.file(file).ok_or(Errno::EBADF)?.len();
        let (Ok(offset), Ok(len)) = (u64::try_from(offset), u64::try_from(len)) else {
            return Err(Errno::EINVAL);
        };
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let is_hole = mode & falloc::PUNCH_HOLE != 0;
        let keeps_size = mode & falloc::KEEP_SIZE != 0;
        // The file system refuses a hole that could change the size before it looks at the range.
        if is_hole && !keeps_size {
            return Err(Errno::EOPNOTSUPP);
        }
        let end = offset.checked_add(len).filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::EFBIG)?;
        if !keeps_size || mode & !(falloc::KEEP_SIZE | falloc::PUNCH_HOLE) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if offset & (PAGE_SIZE - 1) != 0 || len & (PAGE_SIZE - 1) != 0 {
            return Err(Errno::EINVAL);
        }
        let indices = offset / PAGE_SIZE..end / PAGE_SIZE;
        if is_hole {
            memory.punch_hole(file, indices);
            return Ok(());
        }
        if end > size {
            return Err(Errno::EINVAL);
        }
        let faults = self.faults.clone();
        memory.files.get_mut(file.file).ok_or(Errno::EBADF)?.allocate_range(indices, &faults)
    }

    /// The last descriptor and mapping of a `guest_memfd` are closed: its pages are gone, and the slots that it backs have
    /// nothing behind their private half any more.
    pub fn close_guest_memfd(&self, file: GuestMemfd) {
        let memory = &mut self.lock().memory;
        if memory.file(file).is_some() {
            memory.close_file(file);
        }
    }

    /// The length of a `guest_memfd` in bytes, `None` for one that is closed or of another VM.
    #[must_use]
    pub fn guest_memfd_bytes(&self, file: GuestMemfd) -> Option<u64> {
        self.lock().memory.file(file).map(super::gmem::Gmem::len)
    }

    /// Pages of a `guest_memfd` that are present, as `fstat` would count them.
    #[must_use]
    pub fn present_pages(&self, file: GuestMemfd) -> usize {
        usize::try_from(self.lock().memory.present_pages(file)).unwrap_or(usize::MAX)
    }

    /// Memory failure, as `MADV_HWPOISON` causes it, at a page of a `guest_memfd`. The guest meets it as `EHWPOISON`.
    pub fn poison_guest_memfd(&self, file: GuestMemfd, offset_bytes: u64) {
        let memory = &mut self.lock().memory;
        let inside = memory.file(file).is_some_and(|gmem| offset_bytes < gmem.len());
        if let Some(gmem) = memory.files.get_mut(file.file).filter(|_| inside) {
            gmem.poison(offset_bytes / PAGE_SIZE);
        }
    }

    /// From now on a `guest_memfd` hands out folios of 2 MiB where slot and file allow it, so that the reverse map has
    /// entries of 2 MiB. No release does so; the code of KVM and of guests that deals with them is there.
    pub fn set_huge_folios(&self, on: bool) {
        self.lock().memory.has_huge_folios = on;
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES` without flags.
    ///
    /// # Errors
    ///
    /// As for [`Vm::set_attributes`].
    pub fn set_memory_attributes(&self, gpa: Gpa, bytes: u64, attributes: u64) -> Result<(), Errno> {
        self.set_attributes(&MemoryAttributes { address: gpa.0, size: bytes, attributes, flags: 0 })
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES`. Neither memory of the range is touched, no slot is needed, and a range that has
    /// the attributes already is left alone. KVM keeps an entry for each page, and so would work on a huge range until
    /// its memory is used up; here what counts is how many runs there are.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vm_ioctl_set_mem_attributes`.
    ///
    /// # Errors
    ///
    /// `ENOTTY` where the kernel lacks it; `EINVAL` for flags, for unsupported attributes, or a range that is empty, wraps
    /// or is not aligned; what the fault plan says, and then nothing has changed.
    pub fn set_attributes(&self, args: &MemoryAttributes) -> Result<(), Errno> {
        let mut state = self.lock();
        if !state.kernel.dialect.has_private_memory() || state.kernel.arch != Arch::X86 {
            return Err(Errno::ENOTTY);
        }
        let supported = if state.vm_type.has_private_memory() { MEMORY_ATTRIBUTE_PRIVATE } else { 0 };
        if args.flags != 0 || args.attributes & !supported != 0 {
            return Err(Errno::EINVAL);
        }
        if args.size == 0 || args.address.checked_add(args.size).is_none() {
            return Err(Errno::EINVAL);
        }
        let gpa = Gpa(args.address);
        if !gpa.is_page_aligned() || args.size & (PAGE_SIZE - 1) != 0 {
            return Err(Errno::EINVAL);
        }
        let range = PageRange::new(gpa.gfn(), args.size / PAGE_SIZE).ok_or(Errno::EINVAL)?;
        let to = if args.attributes == 0 { PageState::Shared } else { PageState::Private };
        if state.memory.attributes.are(range, to) {
            return Ok(());
        }
        self.faults.fail_at(Point::AttributeChange)?;
        state.memory.set_attributes(range, to);
        Ok(())
    }

    /// What the attributes say of a frame. KVM has no ioctl for it; tests do.
    #[must_use]
    pub fn page_state(&self, gfn: Gfn) -> PageState {
        self.lock().memory.attributes.get(gfn.0)
    }

    /// What the attributes say of a range, run by run.
    #[must_use]
    pub fn page_states(&self, range: PageRange) -> Vec<(PageRange, PageState)> {
        let state = self.lock();
        let (mut gfn, end) = (range.gfn().0, range.end().0);
        let mut runs = Vec::new();
        while gfn < end {
            let (of_run, behind) = state.memory.attributes.state_until(gfn, end);
            let Some(run) = PageRange::new(Gfn(gfn), behind.saturating_sub(gfn)) else { break };
            runs.push((run, of_run));
            gfn = behind;
        }
        runs
    }

    /// Whether the private half of a frame has a page, which a hole in its file takes away.
    #[must_use]
    pub fn has_private_page(&self, gfn: Gfn) -> bool {
        let state = self.lock();
        let page = state.memory.slot_of(gfn).and_then(|slot| slot.private_page(gfn));
        page.is_some_and(|(file, index)| state.memory.file(file).is_some_and(|gmem| gmem.is_present(index)))
    }

    /// The reverse map entry of the private page of a frame, as `RMPREAD` and the firmware see it. It is the hypervisor's
    /// where there is no page.
    #[must_use]
    pub fn rmp_entry(&self, gfn: Gfn) -> RmpEntry {
        self.lock().memory.rmp_entry(gfn)
    }

    /// Reads shared memory through the VMM's mapping.
    ///
    /// # Errors
    ///
    /// `EFAULT` where no slot is, or the process maps nothing.
    pub fn read_shared(&self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.lock().memory.read_mapped(gpa, bytes)
    }

    /// Writes shared memory through the VMM's mapping.
    ///
    /// # Errors
    ///
    /// `EFAULT` where no slot is, or the process maps nothing.
    pub fn write_shared(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        self.lock().memory.write_mapped(gpa, bytes)
    }

    /// What holds in every VM at every time between two acts: slots, files, attributes and the reverse map agree. The work
    /// is bounded by runs and pages with content, so tests can ask after every step.
    ///
    /// # Errors
    ///
    /// The first that does not hold, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.lock().memory.check_invariants()
    }
}
