//! What the launch and the creation of processors need of memory: pages that are the firmware's in between, and news of
//! pages that are gone.

use crate::memory::Memory;
use crate::memory::rmp::{RmpEntry, rmpupdate_result};
use crate::state::PAGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::rmp::Fields;
use exeunt_abi::{Errno, Gfn};
use exeunt_proto::conversion::PageState;
use std::collections::BTreeMap;
use std::ops::Range;

/// The VMSAs that vCPUs run with, and which of them were taken away.
#[derive(Debug, Default)]
pub(crate) struct Vmsas {
    /// By vCPU: the frame, and whether a reload is requested.
    watched: BTreeMap<u64, (Gfn, bool)>,
}

impl Vmsas {
    /// The vCPU runs with the VMSA at a frame from now on, or with none that memory could lose.
    pub(crate) fn watch(&mut self, vcpu: u64, gfn: Option<Gfn>) {
        match gfn {
            Some(gfn) => _ = self.watched.insert(vcpu, (gfn, false)),
            None => _ = self.watched.remove(&vcpu),
        }
    }

    /// `KVM_REQ_VMSA_PAGE_RELOAD`, taken.
    pub(crate) fn take_reload(&mut self, vcpu: u64) -> bool {
        self.watched.get_mut(&vcpu).is_some_and(|(_, reload)| std::mem::take(reload))
    }

    /// Whether there is anyone to tell.
    pub(crate) fn is_any(&self) -> bool {
        !self.watched.is_empty()
    }

    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_gmem_invalidate_range`.
    pub(crate) fn invalidate(&mut self, gfns: Range<u64>) {
        for (gfn, reload) in self.watched.values_mut() {
            *reload |= gfns.contains(&gfn.0);
        }
    }
}

impl Memory {
    /// The page of a `guest_memfd` behind a frame, made and prepared at its first use: its host frame.
    ///
    /// # Errors
    ///
    /// `EINVAL` without such a slot, else as [`Memory::get_pfn`].
    pub(crate) fn private_pfn(&mut self, gfn: Gfn) -> Result<u64, Errno> {
        let slot = self.slot_of(gfn).copied().ok_or(Errno::EINVAL)?;
        let (file, index) = slot.private_page(gfn).ok_or(Errno::EINVAL)?;
        self.get_pfn(&slot, file, index, gfn)?;
        Ok(self.files.get(file.file).ok_or(Errno::EFAULT)?.pfn(index))
    }

    /// The host frame behind a frame, if its page is there already.
    pub(crate) fn present_pfn(&self, gfn: Gfn) -> Option<u64> {
        let (file, index) = self.slot_of(gfn)?.private_page(gfn)?;
        let gmem = self.files.get(file.file)?;
        gmem.is_present(index).then(|| gmem.pfn(index))
    }

    /// The reverse map entry of a frame's private page. It is the hypervisor's where there is none.
    pub(crate) fn rmp_entry(&self, gfn: Gfn) -> RmpEntry {
        self.present_pfn(gfn).map_or_else(RmpEntry::default, |pfn| self.rmp.get(pfn))
    }

    /// Changes the reverse map entry of a frame's private page, as the firmware does.
    pub(crate) fn set_rmp_entry(&mut self, gfn: Gfn, entry: RmpEntry) {
        if let Some(pfn) = self.present_pfn(gfn) {
            self.rmp.set(pfn, entry);
        }
    }

    /// Reads a frame's private page without any check. A page that is not there reads as zero.
    pub(crate) fn read_private(&self, gfn: Gfn, offset: usize, to: &mut [u8]) {
        to.fill(0);
        let page = self.slot_of(gfn).and_then(|slot| slot.private_page(gfn));
        if let Some((file, index)) = page {
            if let Some(gmem) = self.files.get(file.file).filter(|gmem| gmem.is_present(index)) {
                gmem.read(index, offset, to);
            }
        }
    }

    /// Writes a frame's private page without any check, if it is there.
    pub(crate) fn write_private(&mut self, gfn: Gfn, offset: usize, from: &[u8]) {
        let page = self.slot_of(gfn).and_then(|slot| slot.private_page(gfn));
        if let Some((file, index)) = page {
            if let Some(gmem) = self.files.get_mut(file.file).filter(|gmem| gmem.is_present(index)) {
                gmem.write(index, offset, from);
            }
        }
    }

    /// Takes one page from shared to Pre-guest with `content`, or with zeros: what a launch does before it asks the
    /// firmware.
    ///
    /// Source: Linux v7.2 `virt/kvm/guest_memfd.c`, `__kvm_gmem_populate`, and `arch/x86/kvm/svm/sev.c`,
    /// `sev_gmem_post_populate`.
    ///
    /// # Errors
    ///
    /// `EINVAL` without a `guest_memfd` or without the private attribute, `EEXIST` for a page that is assigned already,
    /// `EFAULT` for a closed file, and what the allocation fails with.
    pub(crate) fn prepare_launch_page(
        &mut self,
        gfn: Gfn,
        content: Option<&[u8; PAGE]>,
    ) -> Result<(), Errno> {
        let slot = self.slot_of(gfn).copied().ok_or(Errno::EINVAL)?;
        let (file, index) = slot.private_page(gfn).ok_or(Errno::EINVAL)?;
        let gmem = self.files.get_mut(file.file).ok_or(Errno::EFAULT)?;
        gmem.get_folio(slot.slot, index, &self.faults)?;
        let is_private = self.attributes.get(gfn.0) == PageState::Private;
        let is_assigned = self.rmp.lookup(gmem.pfn(index)).0;
        match (is_private, is_assigned) {
            (false, true) if !self.kernel.dialect.checks_attribute_before_rmp() => return Err(Errno::EEXIST),
            (false, _) => return Err(Errno::EINVAL),
            (true, true) => return Err(Errno::EEXIST),
            (true, false) => {}
        }
        if let Some(content) = content {
            gmem.write(index, 0, content);
        }
        if self.vm_type == VmType::Snp {
            let (is_2m, immutable) = (false, true);
            let fields = Fields { assigned: true, is_2m, immutable, gfn: gfn.0, asid: self.asid };
            rmpupdate_result(self.rmp.rmpupdate(gmem.pfn(index), fields))?;
        }
        Ok(())
    }

    /// The firmware took a Pre-guest page: it is the guest's, validated, with these permissions of VMPL 1 to 3.
    pub(crate) fn finish_launch_page(&mut self, gfn: Gfn, permissions: [u8; 3]) {
        let mut entry = self.rmp_entry(gfn).with_immutable(false).with_validated(true);
        for (level, permissions) in (1..).zip(permissions) {
            entry = entry.with_permissions(level, permissions);
        }
        self.set_rmp_entry(gfn, entry);
    }

    /// The firmware refused a Pre-guest page: it is reclaimed, and the hypervisor's again.
    pub(crate) fn reclaim_launch_page(&mut self, gfn: Gfn) {
        self.set_rmp_entry(gfn, RmpEntry::default());
    }
}
