//! The secure EPT of a TD: which private pages it has, and which of them it has accepted.
//!
//! A page that KVM maps while the TD runs is pending until the TD accepts it, and zero from then on. One that is there
//! from the launch is accepted. A page that KVM removes, because it went shared or its slot or its memory is gone, comes
//! back pending.

use crate::guest::{Access, GuestFault};
use crate::memory::fault::{Backing, Miss};
use crate::memory::{Memory, Slot};
use crate::state::PAGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gfn, Gpa, PAGES_PER_2M};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_runs::RunMap;
use std::ops::Range;

/// The secure EPT, and what of the TD's parameters decides an access.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sept {
    mapped: RunMap<()>,
    accepted: RunMap<()>,
    /// The bit that makes an address shared; 0 before the TD is initialised, and in other VMs.
    shared_bit: u64,
    /// `SEPT_VE_DISABLE`: an access to a pending page is the host's to see.
    is_ve_disabled: bool,
}

impl Sept {
    /// The TD has these parameters.
    pub(crate) const fn configure(&mut self, shared_bit: u64, is_ve_disabled: bool) {
        self.shared_bit = shared_bit;
        self.is_ve_disabled = is_ve_disabled;
    }

    /// What an access means whose address may have the shared bit.
    pub(super) const fn resolve(&self, gpa: Gpa, access: Access) -> (Gpa, Access) {
        if gpa.0 & self.shared_bit == 0 {
            return (gpa, access);
        }
        (Gpa(gpa.0 & !self.shared_bit), Access::Shared)
    }

    /// KVM has mapped a private page.
    pub(super) fn map(&mut self, gfn: Gfn) {
        self.mapped.put(gfn.0..gfn.0.saturating_add(1), ());
    }

    /// KVM removes what it has mapped in a range.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_sept_remove_private_spte`.
    pub(super) fn zap(&mut self, gfns: Range<u64>) {
        self.mapped.clear(gfns.clone());
        self.accepted.clear(gfns);
    }

    /// A slot is gone, and all that was mapped in it.
    pub(super) fn forget(&mut self, slot: &Slot) {
        self.zap(slot.range.gfn().0..slot.range.end().0);
    }

    /// An access to a mapped page that is pending ends in the guest, or in the host if the TD's attributes say so.
    ///
    /// Source: Intel 344425 "Architecture Specification: Intel Trust Domain Extensions Module", section "`#VE`
    /// Injected by the Intel TDX Module"; Linux v7.2 `arch/x86/kvm/vmx/tdx.c`,
    /// `tdx_is_sept_violation_unexpected_pending`.
    pub(super) fn check_accepted(&self, gfn: Gfn) -> Result<(), Miss> {
        if self.accepted.get(gfn.0).is_some() {
            Ok(())
        } else if self.is_ve_disabled {
            Err(Miss::Unaccepted { gfn })
        } else {
            Err(Miss::Guest(GuestFault::VirtualizationException { gpa: gfn.gpa().0 }))
        }
    }
}

impl Memory {
    /// `TDG.MEM.PAGE.ACCEPT` of 4 KiB. Returns whether the page was pending.
    ///
    /// # Errors
    ///
    /// What an access to a page that is not mapped leads to.
    pub(crate) fn sept_accept(&mut self, gfn: Gfn) -> Result<bool, Miss> {
        let backing = self.faultin(gfn, true, true)?;
        if self.sept.accepted.get(gfn.0).is_some() {
            return Ok(false);
        }
        self.sept.accepted.put(gfn.0..gfn.0.saturating_add(1), ());
        if let Backing::Gmem { file, index } = backing {
            if let Some(gmem) = self.files.get_mut(file) {
                gmem.write(index, 0, &[0; PAGE]);
            }
        }
        Ok(true)
    }

    /// `TDG.MEM.PAGE.ACCEPT` of 2 MiB: the walk meets a table of 4 KiB pages, since KVM maps no others.
    ///
    /// # Errors
    ///
    /// What an access to the first page leads to, if none of them is mapped.
    pub(crate) fn sept_accept_2m(&mut self, gfn: Gfn) -> Result<(), Miss> {
        if self.sept.mapped.is_free(gfn.0..gfn.0.saturating_add(PAGES_PER_2M)) {
            self.faultin(gfn, true, true)?;
        }
        Ok(())
    }

    /// `TDH.MEM.PAGE.ADD` of one page of the initial memory.
    ///
    /// Source: Linux v7.2 `virt/kvm/guest_memfd.c`, `kvm_gmem_populate`; `arch/x86/kvm/vmx/tdx.c`,
    /// `tdx_gmem_post_populate`.
    ///
    /// # Errors
    ///
    /// `EINVAL` without a `guest_memfd` or without the private attribute, `EFAULT` for a closed file, what the
    /// allocation fails with, `EOPNOTSUPP` without content, `EIO` for a page that is there already.
    pub(crate) fn sept_add(&mut self, gfn: Gfn, content: Option<&[u8; PAGE]>) -> Result<(), Errno> {
        let slot = self.slot_of(gfn).copied().ok_or(Errno::EINVAL)?;
        let (file, index) = slot.private_page(gfn).ok_or(Errno::EINVAL)?;
        self.get_pfn(&slot, file, index, gfn)?;
        if self.attributes.get(gfn.0) != PageState::Private {
            return Err(Errno::EINVAL);
        }
        let content = content.ok_or(Errno::EOPNOTSUPP)?;
        if self.sept.mapped.get(gfn.0).is_some() {
            return Err(Errno::EIO);
        }
        self.sept.map(gfn);
        self.sept.accepted.put(gfn.0..gfn.0.saturating_add(1), ());
        self.files.get_mut(file.file).ok_or(Errno::EFAULT)?.write(index, 0, content);
        Ok(())
    }

    /// The attributes of a range changed. To shared, KVM removes its private pages; to private, its shared ones.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/mmu/mmu.c`, `kvm_arch_pre_set_memory_attributes`.
    pub(super) fn sept_follow(&mut self, range: PageRange, to: PageState) {
        if self.vm_type == VmType::Tdx && to == PageState::Shared {
            self.sept.zap(range.gfn().0..range.end().0);
        }
    }
}
