//! `KVM_SET_USER_MEMORY_REGION` and `KVM_SET_USER_MEMORY_REGION2`.

use crate::memory::{GuestMemfd, Memory, Slot};
use exeunt_abi::kvm::memory::{MEM_GUEST_MEMFD, MEM_LOG_DIRTY_PAGES, MEM_READONLY, UserspaceMemoryRegion2};
use exeunt_abi::{Arch, Errno, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;

/// `KVM_USER_MEM_SLOTS` on x86: `SHRT_MAX`, less three that KVM keeps for itself.
const USER_SLOTS_X86: u32 = 0x7fff - 3;
/// The same where KVM keeps none.
const USER_SLOTS: u32 = 0x7fff;

/// `KVM_MEM_MAX_NR_PAGES`: dirty bitmaps are indexed by 32 bits.
const MAX_PAGES: u64 = (1 << 31) - 1;

/// The end of user addresses on a host with five levels of page tables.
const USER_END: u64 = (1 << 56) - PAGE_SIZE;

/// Frames on a host whose physical addresses have 52 bits.
const MAX_FRAMES: u64 = 1 << 40;

/// What a region becomes.
enum Change {
    Create,
    Move,
    Flags,
    Nothing,
}

const fn is_aligned(address: u64) -> bool {
    address & (PAGE_SIZE - 1) == 0
}

impl Memory {
    /// The flags that a slot of this VM may have besides those given.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `check_memory_region_flags`.
    fn valid_slot_flags(&self, flags: u32) -> u32 {
        let dialect = self.kernel.dialect;
        let has_gmem = self.supports_gmem();
        if flags & MEM_GUEST_MEMFD != 0 {
            return if has_gmem { MEM_GUEST_MEMFD } else { 0 };
        }
        let is_protected = self.kernel.arch == Arch::X86 && self.vm_type.has_protected_state();
        let readonly =
            if dialect.forbids_readonly_protected_slots() && is_protected { 0 } else { MEM_READONLY };
        MEM_LOG_DIRTY_PAGES | readonly
    }

    /// How many address spaces there are: the second one of x86 is that of system management mode.
    fn address_spaces(&self) -> u32 {
        if self.kernel.arch == Arch::X86 && !self.vm_type.has_private_memory() { 2 } else { 1 }
    }

    /// Whether a number names a slot that userspace may set.
    pub(crate) fn is_user_slot(&self, slot: u32) -> bool {
        let slots = if self.kernel.arch == Arch::X86 { USER_SLOTS_X86 } else { USER_SLOTS };
        slot & 0xffff < slots && slot >> 16 < self.address_spaces()
    }

    /// Sets a slot by the ioctl that it needs.
    pub(crate) fn add_slot(&mut self, slot: Slot) -> Result<(), Errno> {
        let (file, guest_memfd_offset) = slot.guest_memfd.unzip();
        let region = UserspaceMemoryRegion2 {
            slot: slot.slot,
            flags: slot.flags,
            guest_phys_addr: slot.range.gpa().0,
            memory_size: slot.range.bytes(),
            userspace_addr: slot.userspace_addr,
            guest_memfd_offset: guest_memfd_offset.unwrap_or(0),
            guest_memfd: 0,
            pad1: 0,
            pad2: [0; 14],
        };
        self.set_region(&region, |_| file.ok_or(Errno::EBADF))
    }

    /// Creates, moves, changes or deletes a slot. `resolve` finds the file of a descriptor, and is asked when KVM looks
    /// it up: last, and for a new slot only.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_set_memory_region`, and `guest_memfd.c`, `kvm_gmem_bind`.
    pub(crate) fn set_region(
        &mut self,
        region: &UserspaceMemoryRegion2,
        resolve: impl FnOnce(u32) -> Result<GuestMemfd, Errno>,
    ) -> Result<(), Errno> {
        self.check_region(region)?;
        if region.memory_size == 0 {
            return self.delete_slot(region.slot).ok_or(Errno::EINVAL).map(|_| ());
        }
        let range = PageRange::new(Gpa(region.guest_phys_addr).gfn(), region.memory_size / PAGE_SIZE)
            .ok_or(Errno::EINVAL)?;
        let change = self.change_of(region, range)?;
        let space = self.space(region.slot).ok_or(Errno::EINVAL)?;
        let is_taken = || space.overlapping(range).any(|other| other.slot != region.slot);
        match change {
            Change::Nothing => return Ok(()),
            Change::Create | Change::Move if is_taken() => return Err(Errno::EEXIST),
            _ => {}
        }
        let mut slot = Slot {
            slot: region.slot,
            flags: region.flags,
            range,
            userspace_addr: region.userspace_addr,
            guest_memfd: None,
        };
        if slot.has(MEM_GUEST_MEMFD) {
            let file = resolve(region.guest_memfd)?;
            self.check_binding(file, region.guest_memfd_offset, range.bytes())?;
            slot.guest_memfd = Some((file, region.guest_memfd_offset));
        }
        if !matches!(change, Change::Flags) && range.end().0 > MAX_FRAMES {
            return Err(Errno::EINVAL);
        }
        self.commit_slot(slot);
        Ok(())
    }

    /// The checks that need no slot.
    fn check_region(&self, region: &UserspaceMemoryRegion2) -> Result<(), Errno> {
        let has_file = region.flags & MEM_GUEST_MEMFD != 0;
        let user_end = region.userspace_addr.checked_add(region.memory_size);
        let file_end = region.guest_memfd_offset.checked_add(region.memory_size);
        let is_bad = region.flags & !self.valid_slot_flags(region.flags) != 0
            || !is_aligned(region.memory_size)
            || !is_aligned(region.guest_phys_addr)
            || !is_aligned(region.userspace_addr)
            || user_end.is_none_or(|end| end > USER_END)
            || has_file && (!is_aligned(region.guest_memfd_offset) || file_end.is_none())
            || !self.is_user_slot(region.slot)
            || region.guest_phys_addr.checked_add(region.memory_size).is_none()
            || region.memory_size / PAGE_SIZE > MAX_PAGES;
        if is_bad { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// What a region with a size changes.
    fn change_of(&self, region: &UserspaceMemoryRegion2, range: PageRange) -> Result<Change, Errno> {
        let Some(old) = self.space(region.slot).and_then(|slots| slots.numbered(region.slot)) else {
            return Ok(Change::Create);
        };
        // A slot with a private half can only be deleted.
        if region.flags & MEM_GUEST_MEMFD != 0
            || region.userspace_addr != old.userspace_addr
            || range.pages() != old.range.pages()
            || (region.flags ^ old.flags) & (MEM_READONLY | MEM_GUEST_MEMFD) != 0
        {
            return Err(Errno::EINVAL);
        }
        Ok(if range.gfn() != old.range.gfn() {
            Change::Move
        } else if region.flags == old.flags {
            Change::Nothing
        } else {
            Change::Flags
        })
    }

    /// Whether a part of a file can become the private half of a slot.
    fn check_binding(&self, file: GuestMemfd, offset_bytes: u64, bytes: u64) -> Result<(), Errno> {
        if file.vm != self.id {
            return Err(Errno::EINVAL);
        }
        // A closed file has no descriptor that would lead to it.
        let gmem = self.files.get(file.file).filter(|gmem| gmem.is_open()).ok_or(Errno::EBADF)?;
        let end = offset_bytes.checked_add(bytes).filter(|end| *end <= gmem.len()).ok_or(Errno::EINVAL)?;
        if gmem.is_bound(offset_bytes / PAGE_SIZE..end / PAGE_SIZE) {
            return Err(if self.kernel.dialect.names_gmem_overlap() { Errno::EEXIST } else { Errno::EINVAL });
        }
        Ok(())
    }

    /// Puts a checked slot in.
    fn commit_slot(&mut self, slot: Slot) {
        self.mmio.clear();
        if slot.has(MEM_LOG_DIRTY_PAGES) {
            self.start_dirty_log(&slot);
        } else {
            self.dirty.remove(&slot.slot);
        }
        self.bind(&slot);
        if let Some(space) = self.space_mut(slot.slot) {
            space.insert(slot);
        }
    }

    /// Binds the part of the file that is a slot's private half.
    fn bind(&mut self, slot: &Slot) {
        let Some((file, offset_bytes)) = slot.guest_memfd else { return };
        if let Some(gmem) = self.files.get_mut(file.file) {
            gmem.bind(slot.slot, offset_bytes / PAGE_SIZE, slot.range.pages());
        }
    }

    /// Deletes a slot. Its shared memory is the process's, and its private pages stay in their file.
    fn delete_slot(&mut self, number: u32) -> Option<Slot> {
        self.mmio.clear();
        let slot = self.space_mut(number)?.remove(number)?;
        self.dirty.remove(&number);
        self.sept.forget(&slot);
        if let Some((file, offset_bytes)) = slot.guest_memfd {
            if let Some(gmem) = self.files.get_mut(file.file) {
                gmem.unbind(offset_bytes / PAGE_SIZE, slot.range.pages());
            }
        }
        Some(slot)
    }

    /// Puts a slot in that no kernel would take, for vectors that want memory nearly everywhere.
    #[cfg(test)]
    pub(crate) fn insert_unchecked(&mut self, slot: Slot) {
        self.commit_slot(slot);
    }
}
