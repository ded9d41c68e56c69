//! What holds in the memory of every VM between two acts.

use crate::memory::gmem::Gmem;
use crate::memory::rmp::{RmpEntry, is_2m_aligned};
use crate::memory::{Memory, Slot};
use exeunt_abi::kvm::memory::{MEM_GUEST_MEMFD, MEM_LOG_DIRTY_PAGES};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::rmp::{State, vmpl};
use exeunt_abi::{PAGE_SIZE, PAGES_PER_2M};
use std::ops::Range;

/// Says what does not hold.
macro_rules! hold {
    ($condition:expr, $($words:tt)*) => {
        if !$condition {
            return Err(format!($($words)*));
        }
    };
}

impl Memory {
    /// Checks that slots, files, attributes and the reverse map agree with themselves and each other.
    ///
    /// # Errors
    ///
    /// The first that does not hold, in words.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        self.check_slots()?;
        for (number, gmem) in self.files.iter().enumerate() {
            check_file(number, gmem)?;
        }
        let has_private = self.vm_type.has_private_memory();
        hold!(
            has_private || self.attributes.run_count() == 0,
            "a VM without private memory has private frames"
        );
        hold!(self.vm_type == VmType::Snp || self.rmp.run_count() == 0, "only SNP VMs have entries");
        self.rmp.runs().try_for_each(|(pfns, entry)| self.check_entry(&pfns, entry))
    }

    fn check_slots(&self) -> Result<(), String> {
        for space in &self.spaces {
            for pair in space.as_slice().windows(2) {
                let [left, right] = pair else { continue };
                hold!(
                    left.range.end() <= right.range.gfn(),
                    "slots {} and {} overlap",
                    left.slot,
                    right.slot
                );
            }
            for slot in space.as_slice() {
                self.check_slot(slot)?;
                let found = space.numbered(slot.slot).map(|found| found.range);
                hold!(found == Some(slot.range), "slot {} is not found by its number", slot.slot);
            }
        }
        for slot in self.dirty.keys() {
            let found = self.space(*slot).and_then(|space| space.numbered(*slot));
            hold!(
                found.is_some_and(|slot| slot.has(MEM_LOG_DIRTY_PAGES)),
                "slot {slot} has a log and no flag"
            );
        }
        Ok(())
    }

    fn check_slot(&self, slot: &Slot) -> Result<(), String> {
        let number = slot.slot;
        hold!(slot.has(MEM_GUEST_MEMFD) == slot.guest_memfd.is_some(), "slot {number}: flag and file differ");
        let Some((file, offset_bytes)) = slot.guest_memfd else { return Ok(()) };
        let Some(gmem) = self.files.get(file.file) else {
            return Err(format!("slot {number} names no file"));
        };
        if !gmem.is_open() {
            return Ok(());
        }
        let first = offset_bytes / PAGE_SIZE;
        let part = first..first.saturating_add(slot.range.pages());
        let bound: Vec<_> = gmem.bindings_in(part.clone()).collect();
        hold!(bound == [(part, number)], "slot {number} is not what its part of the file is bound to");
        Ok(())
    }

    /// One run of entries. A page has an entry only while its file has the page.
    fn check_entry(&self, pfns: &Range<u64>, entry: RmpEntry) -> Result<(), String> {
        let fields = entry.fields();
        let at = pfns.start;
        hold!(
            fields.assigned && fields.asid == self.asid,
            "frame {at:#x} is not assigned to this guest: {entry:?}"
        );
        hold!(
            matches!(entry.state(), State::GuestInvalid | State::GuestValid | State::PreGuest),
            "frame {at:#x} is {}",
            entry.state()
        );
        hold!(entry.permissions(0) == vmpl::FULL, "frame {at:#x} denies VMPL 0 something");
        hold!(
            !entry.is_vmsa() || entry.is_validated() && !fields.is_2m,
            "frame {at:#x} is no page for a VMSA"
        );
        if fields.is_2m {
            let pages = pfns.end.saturating_sub(at);
            hold!(is_2m_aligned(at) && pages % PAGES_PER_2M == 0, "frames {pfns:x?} are not whole 2 MiB");
            hold!(is_2m_aligned(fields.gfn), "frame {at:#x} has a guest frame inside of 2 MiB");
        }
        let owner = self.files.iter().find(|gmem| gmem.pfns().contains(&at));
        let Some(gmem) = owner.filter(|gmem| gmem.pfns().end >= pfns.end) else {
            // A run over two files that touch is as many runs as files.
            return match owner {
                Some(gmem) => {
                    let border = gmem.pfns().end;
                    let rest = border.saturating_sub(at);
                    self.check_entry(&(at..border), entry)?;
                    self.check_entry(&(border..pfns.end), advanced(entry, rest))
                }
                None => Err(format!("frame {at:#x} is assigned and in no file")),
            };
        };
        let indices = at.saturating_sub(gmem.pfns().start)..pfns.end.saturating_sub(gmem.pfns().start);
        hold!(!gmem.is_shared(), "frame {at:#x} is assigned and the host maps it");
        hold!(gmem.is_open() && gmem.has_all(indices), "frame {at:#x} is assigned and not in its file");
        self.check_home(gmem, pfns, entry)
    }

    /// A page whose file was never bound elsewhere is where its entry says.
    fn check_home(&self, gmem: &Gmem, pfns: &Range<u64>, entry: RmpEntry) -> Result<(), String> {
        if gmem.was_unbound() {
            return Ok(());
        }
        let base = gmem.pfns().start;
        let indices = pfns.start.saturating_sub(base)..pfns.end.saturating_sub(base);
        for (part, number) in gmem.bindings_in(indices) {
            let slot = self.space(number).and_then(|space| space.numbered(number));
            let Some((slot, (_, offset_bytes))) = slot.and_then(|slot| Some((slot, slot.guest_memfd?)))
            else {
                return Err(format!("a part of a file is bound to slot {number}, which has none"));
            };
            let distance = part.start.saturating_sub(offset_bytes / PAGE_SIZE);
            let gfn = slot.range.gfn().0.saturating_add(distance);
            let pfn = base.saturating_add(part.start);
            let said = advanced(entry, pfn.saturating_sub(pfns.start)).fields().gfn;
            hold!(said == gfn & 0x7f_ffff_ffff, "frame {pfn:#x} is at {gfn:#x} and its entry says {said:#x}");
        }
        Ok(())
    }
}

fn advanced(entry: RmpEntry, pages: u64) -> RmpEntry {
    use exeunt_runs::Linear;
    entry.advance(pages)
}

fn check_file(number: usize, gmem: &Gmem) -> Result<(), String> {
    let pages = gmem.len() / PAGE_SIZE;
    for run in gmem.present_runs() {
        hold!(gmem.is_open() && run.end <= pages, "file {number} has pages {run:?} of {pages}");
    }
    for index in gmem.content_pages().chain(gmem.poisoned_pages()) {
        hold!(gmem.is_present(index), "file {number} keeps page {index:#x}, which is not there");
    }
    Ok(())
}
