//! Guest memory: slots, attributes, both backings, the reverse map, and who may touch what.

mod access;
mod attributes;
mod dirty;
mod fault;
mod gmem;
mod invariants;
mod ioctl;
mod launch;
mod memslot;
mod pre_fault;
mod region;
mod rmp;
mod sept;
mod user;

pub(crate) use access::RmpFaults;
pub use dirty::DirtyLog;
pub(crate) use fault::Miss;
pub use ioctl::falloc;
pub use memslot::{GuestMemfd, Slot};
pub use rmp::RmpEntry;
pub use user::{Protection, SparseMemory, UserMemory};

use crate::faults::Faults;
use crate::state::PAGE;
use attributes::Attributes;
use dirty::DirtyLogMode;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Errno, Gfn, Gpa, Kernel, PAGE_SIZE, PAGES_PER_2M};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_runs::RunMap;
use gmem::Gmem;
use launch::Vmsas;
use memslot::Slots;
use rmp::Rmp;
use sept::Sept;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tells the VMs of a process apart.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The first host frame of the first `guest_memfd`.
const FIRST_PFN: u64 = 1 << 20;

/// The memory of a VM.
#[derive(Debug)]
pub(crate) struct Memory {
    id: u64,
    kernel: Kernel,
    vm_type: VmType,
    pub(crate) faults: Faults,
    user: Arc<dyn UserMemory>,
    /// The slots by address space: that of guests, and that of system management mode.
    spaces: [Slots; 2],
    files: Vec<Gmem>,
    next_pfn: u64,
    pub(crate) attributes: Attributes,
    pub(crate) rmp: Rmp,
    pub(crate) sept: Sept,
    /// The guest's number in the reverse map.
    pub(crate) asid: u16,
    pub(crate) vmsas: Vmsas,
    /// Shared pages that KVM has mapped, by frame, and how often. The mapping holds the page whatever becomes of its
    /// slot.
    maps: BTreeMap<u64, (HostBacking, u32)>,
    /// Frames that the guest touched and that no slot has, see `cache_mmio`.
    mmio: BTreeSet<u64>,
    /// The pages that each logged slot has dirty, by slot.
    dirty: BTreeMap<u32, RunMap<()>>,
    pub(crate) dirty_log: DirtyLogMode,
    /// A `guest_memfd` hands out folios of 2 MiB where it can. No release does, but KVM is ready for it.
    has_huge_folios: bool,
}

impl Memory {
    /// No slots yet; those to come lie in this process.
    pub(crate) fn new(kernel: Kernel, vm_type: VmType, user: Arc<dyn UserMemory>, faults: Faults) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            kernel,
            vm_type,
            faults,
            user,
            spaces: Default::default(),
            files: Vec::new(),
            next_pfn: FIRST_PFN,
            attributes: Attributes::default(),
            rmp: Rmp::default(),
            sept: Sept::default(),
            asid: 1,
            vmsas: Vmsas::default(),
            maps: BTreeMap::new(),
            mmio: BTreeSet::new(),
            dirty: BTreeMap::new(),
            dirty_log: DirtyLogMode::default(),
            has_huge_folios: false,
        }
    }

    /// Whether this VM can have a `guest_memfd`.
    pub(crate) fn supports_gmem(&self) -> bool {
        let dialect = self.kernel.dialect;
        let for_all = dialect.has_gmem_mmap() && self.kernel.arch != Arch::Riscv64;
        dialect.has_private_memory() && (self.vm_type.has_private_memory() || for_all)
    }

    /// Another empty file.
    fn add_file(&mut self, bytes: u64, flags: u64) -> Result<GuestMemfd, Errno> {
        // The frames of a file begin at a border of 2 MiB, so that pages have the same place in both.
        let pages = (bytes / PAGE_SIZE).next_multiple_of(PAGES_PER_2M);
        let end = self.next_pfn.checked_add(pages).ok_or(Errno::ENOMEM)?;
        self.files.push(Gmem::new(self.next_pfn, bytes, flags));
        self.next_pfn = end;
        Ok(GuestMemfd { vm: self.id, file: self.files.len().saturating_sub(1) })
    }

    /// The slots of guests in the order of their addresses.
    pub(crate) fn slots(&self) -> &[Slot] {
        self.spaces.first().map_or(&[], Slots::as_slice)
    }

    /// The address space that a slot's number names.
    fn space(&self, slot: u32) -> Option<&Slots> {
        self.spaces.get(usize::try_from(slot >> 16).ok()?)
    }

    fn space_mut(&mut self, slot: u32) -> Option<&mut Slots> {
        self.spaces.get_mut(usize::try_from(slot >> 16).ok()?)
    }

    /// The slot that holds a frame.
    pub(crate) fn slot_of(&self, gfn: Gfn) -> Option<&Slot> {
        self.spaces.first()?.at(gfn)
    }

    /// Whether the shared pages of a slot come from its file too.
    fn is_gmem_only(&self, slot: &Slot) -> bool {
        slot.guest_memfd.and_then(|(file, _)| self.files.get(file.file)).is_some_and(Gmem::is_gmem_only)
    }

    /// An open file of this VM.
    fn file(&self, file: GuestMemfd) -> Option<&Gmem> {
        self.files.get(file.file).filter(|gmem| gmem.is_open() && file.vm == self.id)
    }

    /// The memory of the process that the slots lie in.
    pub(crate) fn user(&self) -> Arc<dyn UserMemory> {
        Arc::clone(&self.user)
    }

    /// Pages of a `guest_memfd` that are present.
    pub(crate) fn present_pages(&self, file: GuestMemfd) -> u64 {
        self.file(file).map_or(0, Gmem::present)
    }

    /// Where the VMM and KVM reach a frame's shared page. A file that can be mapped is taken to be mapped at the slot's
    /// address, as KVM asks for it.
    fn host_backing(&self, gfn: Gfn) -> Result<HostBacking, Errno> {
        let slot = self.slot_of(gfn).ok_or(Errno::EFAULT)?;
        let Some((file, index)) = slot.private_page(gfn).filter(|_| self.is_gmem_only(slot)) else {
            return Ok(HostBacking::User(slot.uaddr(gfn.gpa())));
        };
        // The mapping of a file whose pages are not shared faults, and so does that of one that is gone.
        let gmem = self.files.get(file.file).filter(|gmem| gmem.is_open() && gmem.is_shared());
        gmem.map(|_| HostBacking::Gmem(file.file, index)).ok_or(Errno::EFAULT)
    }

    /// `kvm_vcpu_map` of a shared page.
    ///
    /// # Errors
    ///
    /// `EFAULT` where no slot is.
    pub(crate) fn map_shared(&mut self, gfn: Gfn) -> Result<(), Errno> {
        let backing = self.host_backing(gfn)?;
        let (_, count) = self.maps.entry(gfn.0).or_insert((backing, 0));
        *count = count.saturating_add(1);
        Ok(())
    }

    /// `kvm_vcpu_unmap` of a page that was mapped.
    pub(crate) fn unmap_shared(&mut self, gfn: Gfn) {
        if let Some((_, count)) = self.maps.get_mut(&gfn.0) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.maps.remove(&gfn.0);
            }
        }
    }

    /// Where KVM reaches a frame's shared page: by its mapping, or by the slot.
    fn kvm_backing(&self, gfn: Gfn) -> Result<HostBacking, Errno> {
        match self.maps.get(&gfn.0) {
            Some((backing, _)) => Ok(*backing),
            None => self.host_backing(gfn),
        }
    }

    /// Reads shared memory as KVM does.
    ///
    /// # Errors
    ///
    /// `EFAULT` where no slot is, or the process maps nothing; bytes before that page have been read.
    pub(crate) fn read_shared(&self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.read_as(gpa, bytes, true)
    }

    /// Reads shared memory as the VMM does, through its own mapping.
    ///
    /// # Errors
    ///
    /// As for [`Memory::read_shared`].
    pub(crate) fn read_mapped(&self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.read_as(gpa, bytes, false)
    }

    fn read_as(&self, gpa: Gpa, bytes: &mut [u8], by_kvm: bool) -> Result<(), Errno> {
        for (chunk, gfn, offset) in split_at_pages(gpa, bytes.len()) {
            let backing = if by_kvm { self.kvm_backing(gfn)? } else { self.host_backing(gfn)? };
            let to = bytes.get_mut(chunk).ok_or(Errno::EFAULT)?;
            match backing {
                HostBacking::User(uaddr) => self.user.read(uaddr.wrapping_add(offset as u64), to)?,
                HostBacking::Gmem(file, index) => {
                    if let Some(gmem) = self.files.get(file) {
                        gmem.read(index, offset, to);
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes shared memory as KVM does: the pages are dirty then.
    ///
    /// # Errors
    ///
    /// `EFAULT` where no slot is, or the process maps nothing; bytes before that page have been written.
    pub(crate) fn write_shared(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        self.write_as(gpa, bytes, true)
    }

    /// Writes shared memory as the VMM does, through its own mapping.
    ///
    /// # Errors
    ///
    /// As for [`Memory::write_shared`].
    pub(crate) fn write_mapped(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        self.write_as(gpa, bytes, false)
    }

    fn write_as(&mut self, gpa: Gpa, bytes: &[u8], by_kvm: bool) -> Result<(), Errno> {
        for (chunk, gfn, offset) in split_at_pages(gpa, bytes.len()) {
            let from = bytes.get(chunk).unwrap_or_default();
            let backing = if by_kvm { self.kvm_backing(gfn)? } else { self.host_backing(gfn)? };
            match backing {
                HostBacking::User(uaddr) => self.user.write(uaddr.wrapping_add(offset as u64), from)?,
                HostBacking::Gmem(file, index) => {
                    if let Some(gmem) = self.files.get_mut(file) {
                        gmem.write_mapped(index, offset, from, &self.faults)?;
                    }
                }
            }
            if by_kvm {
                self.mark_dirty(gfn);
            }
        }
        Ok(())
    }

    /// Reads a byte of shared memory.
    pub(crate) fn read_u8(&self, gpa: Gpa) -> Result<u8, Errno> {
        let mut bytes = [0];
        self.read_shared(gpa, &mut bytes)?;
        let [byte] = bytes;
        Ok(byte)
    }

    /// Reads a little-endian word of shared memory.
    pub(crate) fn read_u64(&self, gpa: Gpa) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        self.read_shared(gpa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a little-endian word of shared memory.
    pub(crate) fn write_u64(&mut self, gpa: Gpa, value: u64) -> Result<(), Errno> {
        self.write_shared(gpa, &value.to_le_bytes())
    }

    /// Gives back the shared memory of a run of pages: it reads as zero again.
    pub(crate) fn discard_shared(&mut self, range: PageRange) {
        let [space, _] = &self.spaces;
        for slot in space.overlapping(range) {
            if let Some(part) = slot.range.intersect(range) {
                self.user.discard(slot.uaddr(part.gpa()), part.bytes());
            }
        }
    }

    /// Punches the holes that back a run of pages, slot by slot.
    pub(crate) fn discard_private(&mut self, range: PageRange) {
        let [space, _] = &self.spaces;
        for slot in space.overlapping(range) {
            let Some(part) = slot.range.intersect(range) else { continue };
            let Some((file, index)) = slot.private_page(part.gfn()) else { continue };
            let indices = index..index.saturating_add(part.pages());
            if let Some(gmem) = self.files.get_mut(file.file) {
                truncate(gmem, indices, space, &mut self.rmp, &mut self.vmsas, &mut self.sept);
            }
        }
    }

    /// `fallocate(PUNCH_HOLE)` on a file.
    fn punch_hole(&mut self, file: GuestMemfd, indices: Range<u64>) {
        let [space, _] = &self.spaces;
        if let Some(gmem) = self.files.get_mut(file.file) {
            truncate(gmem, indices, space, &mut self.rmp, &mut self.vmsas, &mut self.sept);
        }
    }

    /// The last descriptor of a file is closed.
    fn close_file(&mut self, file: GuestMemfd) {
        self.punch_hole(file, 0..u64::MAX);
        if let Some(gmem) = self.files.get_mut(file.file) {
            gmem.close();
        }
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES`, checks done: neither memory is touched.
    pub(crate) fn set_attributes(&mut self, range: PageRange, to: PageState) {
        self.attributes.set(range, to);
        self.sept_follow(range, to);
    }
}

/// Where the host reaches a shared page.
#[derive(Clone, Copy, Debug)]
enum HostBacking {
    User(u64),
    /// The file and the page.
    Gmem(usize, u64),
}

/// Frees pages of a file: vCPUs whose VMSA is there learn of it, and the frames are the hypervisor's again.
///
/// Source: Linux v7.2 `virt/kvm/guest_memfd.c`, `kvm_gmem_punch_hole`.
fn truncate(
    gmem: &mut Gmem,
    indices: Range<u64>,
    space: &Slots,
    rmp: &mut Rmp,
    vmsas: &mut Vmsas,
    sept: &mut Sept,
) {
    let end = indices.end.min(gmem.len() / PAGE_SIZE);
    if indices.start >= end {
        return;
    }
    let indices = indices.start..end;
    // Frames are assigned and mapped only while their pages are there.
    if gmem.is_free(indices.clone()) && !vmsas.is_any() {
        return;
    }
    for (bound, slot) in gmem.bindings_in(indices.clone()) {
        let Some(slot) = space.numbered(slot) else { continue };
        let Some((_, offset_bytes)) = slot.guest_memfd else { continue };
        let gfn =
            |index: u64| slot.range.gfn().0.saturating_add(index.saturating_sub(offset_bytes / PAGE_SIZE));
        vmsas.invalidate(gfn(bound.start)..gfn(bound.end));
        sept.zap(gfn(bound.start)..gfn(bound.end));
    }
    rmp.make_shared(gmem.pfn(indices.start)..gmem.pfn(indices.end));
    gmem.truncate(indices);
}

/// Removes what lies in a range of keys. The work is bounded by what is there, not by the range.
fn remove_range<T>(map: &mut BTreeMap<u64, T>, keys: Range<u64>) {
    while let Some((&key, _)) = map.range(keys.clone()).next() {
        map.remove(&key);
    }
}

/// Splits a run of bytes at page borders: where in the buffer, which frame, where in the frame. It ends where the
/// address would wrap.
pub(crate) fn split_at_pages(gpa: Gpa, bytes: usize) -> impl Iterator<Item = (Range<usize>, Gfn, usize)> {
    let mut done = 0usize;
    std::iter::from_fn(move || {
        if done >= bytes {
            return None;
        }
        let at = Gpa(gpa.0.checked_add(done as u64)?);
        let offset = usize::try_from(at.offset_in_page()).ok()?;
        let take = PAGE.saturating_sub(offset).min(bytes.saturating_sub(done));
        let chunk = done..done.saturating_add(take);
        done = chunk.end;
        Some((chunk, at.gfn(), offset))
    })
}

#[cfg(test)]
mod tests;
