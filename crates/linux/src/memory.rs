//! The memory behind the addresses of a guest: a table of slots that nobody waits for.
//!
//! The table never changes. Who needs it takes a reference to the one that is current, under a lock that is held for
//! as long as that takes, and then copies or makes system calls without any lock. Who adds a slot makes a new table.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use exeunt_abi::{Errno, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::host::Backing;

use crate::error::{KvmError, MemoryFlaw};
use crate::host_memory::{Discard, Half};
use crate::mapping_unsafe::Mapping;
use crate::slot_unsafe::Slot;

/// All slots of a VM. They share no page of the guest.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    current: RwLock<Arc<Table>>,
    /// Held by who makes the next table, and by nobody else.
    changing: Mutex<()>,
}

/// The slots at one time, in the order of their addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Arc<Slot>>,
}

/// The part of a range that lies in one slot.
struct Piece<'a> {
    slot: &'a Slot,
    /// From the start of the slot, in bytes.
    offset: u64,
    bytes: u64,
}

impl Memory {
    /// The slots as they are now. No lock is held once this has returned.
    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a slot, which is made with its number: how many there were before.
    ///
    /// # Errors
    ///
    /// The range cannot be a slot beside those that are there, or `make` failed. Nothing has been added then.
    pub(crate) fn add(
        &self,
        gpa: Gpa,
        bytes: u64,
        make: impl FnOnce(u32) -> Result<Slot, KvmError>,
    ) -> Result<(), KvmError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table();
        table.check_at(gpa, bytes)?;
        let slot = make(u32::try_from(table.slots.len()).unwrap_or(u32::MAX))?;
        let mut slots = table.slots.clone();
        slots.insert(slots.partition_point(|other| other.gpa < gpa), Arc::new(slot));
        self.replace(Table { slots });
        Ok(())
    }

    /// Takes the slot out that starts at an address. Its memory stays until nobody uses it any more.
    ///
    /// Not for slots that KVM knows: it would go on using their addresses.
    pub(crate) fn remove(&self, gpa: Gpa) -> bool {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table();
        let slots: Vec<_> = table.slots.iter().filter(|slot| slot.gpa != gpa).cloned().collect();
        let is_removed = slots.len() < table.slots.len();
        self.replace(Table { slots });
        is_removed
    }

    fn replace(&self, table: Table) {
        let table = Arc::new(table);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, table);
        drop(current);
        // It may be the last reference to memory, and unmapping that takes long.
        drop(before);
    }
}

impl Table {
    /// Checks that the range can be a slot beside those that are there.
    ///
    /// # Errors
    ///
    /// The first flaw in the order of the variants.
    pub(crate) fn check_at(&self, gpa: Gpa, bytes: u64) -> Result<(), KvmError> {
        self.check(gpa, bytes).map_err(|flaw| KvmError::BadMemory { gpa, bytes, flaw })
    }

    fn check(&self, gpa: Gpa, bytes: u64) -> Result<(), MemoryFlaw> {
        if bytes == 0 {
            return Err(MemoryFlaw::Empty);
        }
        if !gpa.is_page_aligned() || bytes % PAGE_SIZE != 0 {
            return Err(MemoryFlaw::Unaligned);
        }
        let end = gpa.0.checked_add(bytes).ok_or(MemoryFlaw::Wraps)?;
        let overlaps = |slot: &Arc<Slot>| gpa.0 < slot.end() && slot.gpa.0 < end;
        if self.slots.iter().any(overlaps) { Err(MemoryFlaw::Overlaps) } else { Ok(()) }
    }

    /// Copies shared guest memory out.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a byte lies in no slot that is mapped. Nothing is copied if it lies in no slot at all.
    pub(crate) fn read(&self, gpa: Gpa, to: &mut [u8]) -> Result<(), Errno> {
        let mut rest = to;
        for piece in self.pieces(gpa, rest.len() as u64)? {
            let (part, behind) = rest.split_at_mut_checked(length(piece.bytes)?).ok_or(Errno::EFAULT)?;
            let (mapping, start) = piece.slot.view().ok_or(Errno::EFAULT)?;
            mapping.read(length(start.saturating_add(piece.offset))?, part)?;
            rest = behind;
        }
        Ok(())
    }

    /// Copies into shared guest memory.
    ///
    /// # Errors
    ///
    /// As for [`Table::read`].
    pub(crate) fn write(&self, gpa: Gpa, from: &[u8]) -> Result<(), Errno> {
        let mut rest = from;
        for piece in self.pieces(gpa, rest.len() as u64)? {
            let (part, behind) = rest.split_at_checked(length(piece.bytes)?).ok_or(Errno::EFAULT)?;
            let (mapping, start) = piece.slot.view().ok_or(Errno::EFAULT)?;
            mapping.write(length(start.saturating_add(piece.offset))?, part)?;
            rest = behind;
        }
        Ok(())
    }

    /// Gives back one of the two memories behind the pages, with one system call for each run of the same memory.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a page lies in no slot, `EOPNOTSUPP` if a slot has no such memory, and then nothing is given back;
    /// else the error of the system call, and a part may have been given back. `EOPNOTSUPP`, too, if huge pages are
    /// covered in part: those stay, the others have been given back.
    pub(crate) fn discard(&self, range: PageRange, backing: Backing) -> Result<(), Errno> {
        self.discard_with(range, backing, |call| call.make())
    }

    /// As [`Table::discard`], with the system calls made by `make`.
    pub(crate) fn discard_with(
        &self,
        range: PageRange,
        backing: Backing,
        mut make: impl FnMut(Discard<'_>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if !self.pieces(range.gpa(), range.bytes())?.all(|piece| piece.slot.half(backing).is_some()) {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut stays = false;
        let mut make = |call: Discard<'_>| {
            let whole = call.clone().whole_pages();
            stays |= whole.as_ref().is_none_or(|whole| whole.bytes() < call.bytes());
            whole.map_or(Ok(()), &mut make)
        };
        let mut waiting: Option<Discard<'_>> = None;
        for piece in self.pieces(range.gpa(), range.bytes())? {
            let Some(half) = piece.slot.half(backing) else { return Err(Errno::EOPNOTSUPP) };
            let next = Discard::new(half, piece.offset, piece.bytes);
            if waiting.as_mut().is_some_and(|call| call.takes_in(&next)) {
                continue;
            }
            if let Some(call) = waiting.replace(next) {
                make(call)?;
            }
        }
        waiting.map_or(Ok(()), &mut make)?;
        // Who keeps account of what may hold something still has it, until a range covers the huge page.
        if stays { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
    }

    /// Gets memory for shared pages before the guest touches them. What they hold stays.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a page lies in no slot; `EOPNOTSUPP` where the kernel cannot do so; else the error of the system
    /// call.
    pub(crate) fn populate(&self, range: PageRange) -> Result<(), Errno> {
        for piece in self.pieces(range.gpa(), range.bytes())? {
            piece.slot.populate(piece.offset, piece.bytes)?;
        }
        Ok(())
    }

    /// Where the memory for the shared pages of a range is mapped: a mapping, and where the range starts in it.
    ///
    /// # Errors
    ///
    /// `EFAULT` if not all of it lies in one slot that is mapped.
    pub(crate) fn view(&self, range: PageRange) -> Result<(&Mapping, u64), Errno> {
        let piece = self.pieces(range.gpa(), range.bytes())?.next();
        let piece = piece.filter(|piece| piece.bytes == range.bytes()).ok_or(Errno::EFAULT)?;
        let (mapping, start) = piece.slot.view().ok_or(Errno::EFAULT)?;
        Ok((mapping, start.saturating_add(piece.offset)))
    }

    fn pieces(&self, gpa: Gpa, bytes: u64) -> Result<impl Iterator<Item = Piece<'_>>, Errno> {
        let end = gpa.0.checked_add(bytes).ok_or(Errno::EFAULT)?;
        let first = self.slots.partition_point(|slot| slot.end() <= gpa.0);
        let slots = self.slots.get(first..).unwrap_or_default();
        let covered = slots.iter().try_fold(gpa.0, |at, slot| {
            // The error is the end of what the slots cover without a gap.
            if slot.gpa.0 <= at && at < end { Ok(slot.end()) } else { Err(at) }
        });
        let (Ok(covered) | Err(covered)) = covered;
        if covered < end {
            return Err(Errno::EFAULT);
        }
        Ok(slots.iter().take_while(move |slot| slot.gpa.0 < end).map(move |slot| {
            let start = slot.gpa.0.max(gpa.0);
            Piece { slot, offset: start - slot.gpa.0, bytes: slot.end().min(end) - start }
        }))
    }
}

impl Slot {
    /// The first address behind it.
    fn end(&self) -> u64 {
        self.gpa.0.saturating_add(self.bytes)
    }

    fn half(&self, backing: Backing) -> Option<&Half> {
        match backing {
            Backing::Shared => Some(&self.shared),
            Backing::Private => self.private.as_ref(),
        }
    }

    fn populate(&self, offset: u64, bytes: u64) -> Result<(), Errno> {
        match self.view() {
            Some((mapping, start)) => mapping.populate(length(start.saturating_add(offset))?, length(bytes)?),
            None => self.shared.memory.populate(self.shared.offset.saturating_add(offset), bytes),
        }
    }
}

fn length(bytes: u64) -> Result<usize, Errno> {
    usize::try_from(bytes).map_err(|_| Errno::EFAULT)
}

#[cfg(test)]
mod tests;
