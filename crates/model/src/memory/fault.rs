//! Page faults as KVM resolves them: attributes, slots, backings, and faults of the reverse map.

use crate::guest::GuestFault;
use crate::memory::rmp::{Target, around_2m};
use crate::memory::{GuestMemfd, Memory, Slot};
use exeunt_abi::kvm::memory::MEM_READONLY;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::rmp::instruction;
use exeunt_abi::{Errno, Gfn, PAGES_PER_2M};
use exeunt_proto::conversion::{PageRange, PageState};

/// What backs a page that was faulted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// The process, at this address.
    User { uaddr: u64 },
    /// A page of a `guest_memfd`.
    Gmem { file: usize, index: u64 },
}

/// Why an access did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// The guest gets an exception.
    Guest(GuestFault),
    /// A TD did not accept the page, and the host is told.
    Unaccepted { gfn: Gfn },
    /// The host gets `KVM_EXIT_MEMORY_FAULT` with this error number.
    Host { gfn: Gfn, private: bool, errno: Errno },
    /// KVM would emulate the access: no slot is there, or one that cannot be written.
    Emulate { gfn: Gfn, has_slot: bool },
    /// `KVM_RUN` fails, and says no more.
    Failed(Errno),
    /// The reverse map refused. These are the bits of the error code that say how.
    Npf { gfn: Gfn, error_code: u64 },
}

/// Frames without memory that are remembered at most, so that a guest cannot make the host's memory grow. KVM frees
/// page tables under pressure, too.
const MMIO_FRAMES: usize = 1 << 12;

impl Memory {
    /// Resolves a fault: the privacy of the access against the attribute, then the slot, then its backing.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/mmu/mmu.c`, `kvm_mmu_faultin_pfn`.
    pub(crate) fn faultin(&mut self, gfn: Gfn, private: bool, write: bool) -> Result<Backing, Miss> {
        if self.mmio.contains(&gfn.0) {
            return Err(Miss::Emulate { gfn, has_slot: false });
        }
        let to_host = |errno| Miss::Host { gfn, private, errno };
        let is_private = self.attributes.get(gfn.0) == PageState::Private;
        if self.vm_type.has_private_memory() && private != is_private {
            return Err(to_host(Errno::EFAULT));
        }
        let Some(slot) = self.slot_of(gfn).copied() else {
            if private {
                return Err(to_host(Errno::EFAULT));
            }
            self.cache_mmio(gfn);
            return Err(Miss::Emulate { gfn, has_slot: false });
        };
        if private || self.is_gmem_only(&slot) {
            let (file, index) = slot.private_page(gfn).ok_or_else(|| to_host(Errno::EFAULT))?;
            self.get_pfn(&slot, file, index, gfn).map_err(to_host)?;
            if self.vm_type == VmType::Tdx {
                self.sept.map(gfn);
            }
            return Ok(Backing::Gmem { file: file.file, index });
        }
        if write && slot.has(MEM_READONLY) {
            return Err(Miss::Emulate { gfn, has_slot: true });
        }
        Ok(Backing::User { uaddr: slot.uaddr(gfn.gpa()) })
    }

    /// Remembers that a frame has no slot, as an entry of the page tables does that traps each access. It lasts until
    /// the slots change. `KVM_SET_MEMORY_ATTRIBUTES` goes through the slots to find what it has to forget, and so does
    /// not find this: a frame that becomes private meanwhile goes on to be emulated.
    ///
    /// Source: Linux v6.12 `arch/x86/kvm/mmu/mmu.c`, `handle_mmio_page_fault`; measured.
    fn cache_mmio(&mut self, gfn: Gfn) {
        if self.mmio.len() >= MMIO_FRAMES {
            self.mmio.clear();
        }
        if self.vm_type == VmType::SwProtected {
            self.mmio.insert(gfn.0);
        }
    }

    /// The page of a `guest_memfd`, made at its first use and prepared for the guest if it is not.
    ///
    /// Source: Linux v7.2 `virt/kvm/guest_memfd.c`, `kvm_gmem_get_pfn`; `arch/x86/kvm/svm/sev.c`, `sev_gmem_prepare`.
    pub(crate) fn get_pfn(
        &mut self,
        slot: &Slot,
        file: GuestMemfd,
        index: u64,
        gfn: Gfn,
    ) -> Result<(), Errno> {
        if self.has_huge_folios && self.get_huge(slot, file, index, gfn) {
            return Ok(());
        }
        let gmem = self.files.get_mut(file.file).ok_or(Errno::EFAULT)?;
        gmem.get_folio(slot.slot, index, &self.faults)?;
        if self.vm_type == VmType::Snp && !gmem.is_shared() {
            let pfn = gmem.pfn(index);
            self.rmp.prepare(pfn..pfn.saturating_add(1), gfn.0, self.asid);
        }
        Ok(())
    }

    /// A folio of 2 MiB, where slot and file have it at the same place and nothing of it is there yet.
    fn get_huge(&mut self, slot: &Slot, file: GuestMemfd, index: u64, gfn: Gfn) -> bool {
        let around = around_2m(index);
        let distance = index.saturating_sub(around.start);
        let Some(first) = gfn.0.checked_sub(distance).filter(|first| first % PAGES_PER_2M == 0) else {
            return false;
        };
        let Some(range) = PageRange::new(Gfn(first), PAGES_PER_2M) else { return false };
        let Some(gmem) = self.files.get_mut(file.file) else { return false };
        if slot.range.intersect(range) != Some(range) || !gmem.is_free(around.clone()) {
            return false;
        }
        let Ok(PAGES_PER_2M) = gmem.get_folios(slot.slot, around.clone(), &self.faults) else { return false };
        if self.vm_type == VmType::Snp && !gmem.is_shared() {
            self.rmp.prepare_2m(gmem.pfn(around.start), first, self.asid);
        }
        true
    }

    /// Faults the frames from `gfn` to `end` in that behave alike, at least the first. Returns how many.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/mmu/mmu.c`, `kvm_tdp_page_prefault`.
    pub(crate) fn faultin_run(&mut self, gfn: Gfn, end: Gfn) -> Result<u64, Miss> {
        let (state, end) = self.attributes.state_until(gfn.0, end.0);
        let backing = self.faultin(gfn, state == PageState::Private, false)?;
        let (file, index) = match backing {
            Backing::Gmem { file, index } => (file, index),
            Backing::User { uaddr } => {
                // The page is pinned for reading while it is mapped.
                self.user.read(uaddr, &mut [0]).map_err(Miss::Failed)?;
                return Ok(1);
            }
        };
        let Some(slot) = self.slot_of(gfn).copied() else { return Ok(1) };
        let end = end.min(slot.range.end().0);
        let pages = end.saturating_sub(gfn.0);
        let Some(gmem) = self.files.get_mut(file) else { return Ok(1) };
        if self.has_huge_folios {
            return Ok(around_2m(index).end.saturating_sub(index).min(pages).max(1));
        }
        // The first is there, so a failure of the next ones is met when they are the first.
        let pages = gmem.get_folios(slot.slot, index..index.saturating_add(pages), &self.faults).unwrap_or(1);
        if self.vm_type == VmType::Snp && !gmem.is_shared() {
            let pfn = gmem.pfn(index);
            self.rmp.prepare(pfn..pfn.saturating_add(pages), gfn.0, self.asid);
        }
        Ok(pages)
    }

    /// Splits the entry of 2 MiB that a fault of the reverse map was about. Returns whether it did; everything else
    /// that KVM finds there it only logs, and the guest meets the fault again.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_handle_rmp_fault`.
    pub(crate) fn handle_rmp_fault(&mut self, gfn: Gfn) -> bool {
        if self.attributes.get(gfn.0) != PageState::Private {
            return false;
        }
        let Some(slot) = self.slot_of(gfn).copied() else { return false };
        let Some((file, index)) = slot.private_page(gfn) else { return false };
        if self.get_pfn(&slot, file, index, gfn).is_err() {
            return false;
        }
        let Some(pfn) = self.files.get(file.file).map(|gmem| gmem.pfn(index)) else { return false };
        let (assigned, is_2m) = self.rmp.lookup(pfn);
        assigned && is_2m && self.rmp.psmash(around_2m(pfn).start) == instruction::SUCCESS
    }

    /// Where the instructions on the reverse map act.
    pub(crate) fn rmp_target(&self, backing: Backing, gfn: Gfn, is_2m: bool) -> Option<Target> {
        let Backing::Gmem { file, index } = backing else { return None };
        let pfn = self.files.get(file)?.pfn(index);
        Some(Target { pfn, gfn: gfn.0, asid: self.asid, is_2m })
    }
}
