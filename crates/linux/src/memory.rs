//! The guest memory of a VM: its slots in the order they were added.

use exeunt_abi::{Errno, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::host::Backing;
use rustix::fs::FallocateFlags;

use crate::error::MemoryFlaw;
use crate::slot_unsafe::Slot;

/// All slots. They share no page.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    slots: Vec<Slot>,
}

/// The part of a range that lies in one slot.
struct Piece<'a> {
    slot: &'a Slot,
    /// From the start of the slot, in bytes.
    offset: u64,
    bytes: u64,
}

impl Memory {
    /// The number of the next slot.
    pub(crate) fn next_number(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Checks that the range can be a slot beside those that are there.
    ///
    /// # Errors
    ///
    /// The first flaw in the order of the variants.
    pub(crate) fn check(&self, gpa: Gpa, bytes: u64) -> Result<(), MemoryFlaw> {
        if bytes == 0 {
            return Err(MemoryFlaw::Empty);
        }
        if !gpa.is_page_aligned() || bytes % PAGE_SIZE != 0 {
            return Err(MemoryFlaw::Unaligned);
        }
        let end = gpa.0.checked_add(bytes).ok_or(MemoryFlaw::Wraps)?;
        let overlaps = |slot: &Slot| gpa.0 < slot.gpa.0.saturating_add(slot.bytes) && slot.gpa.0 < end;
        if self.slots.iter().any(overlaps) { Err(MemoryFlaw::Overlaps) } else { Ok(()) }
    }

    /// Takes a slot in that [`Memory::check`] let pass.
    pub(crate) fn add(&mut self, slot: Slot) {
        self.slots.push(slot);
    }

    /// Copies shared guest memory out.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a byte lies in no slot, and then nothing is copied.
    pub(crate) fn read(&self, gpa: Gpa, to: &mut [u8]) -> Result<(), Errno> {
        let mut rest = to;
        for piece in self.pieces(gpa, rest.len() as u64)? {
            let (part, behind) = rest.split_at_mut_checked(piece.length()?).ok_or(Errno::EFAULT)?;
            piece.slot.shared.read(piece.start()?, part)?;
            rest = behind;
        }
        Ok(())
    }

    /// Copies into shared guest memory.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a byte lies in no slot, and then nothing is copied.
    pub(crate) fn write(&self, gpa: Gpa, from: &[u8]) -> Result<(), Errno> {
        let mut rest = from;
        for piece in self.pieces(gpa, rest.len() as u64)? {
            let (part, behind) = rest.split_at_checked(piece.length()?).ok_or(Errno::EFAULT)?;
            piece.slot.shared.write(piece.start()?, part)?;
            rest = behind;
        }
        Ok(())
    }

    /// Gives back one of the two memories behind the pages.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a page lies in no slot, `EOPNOTSUPP` if a slot has no such memory, and then nothing is given back;
    /// else the error of the system call, and a part may have been given back.
    pub(crate) fn discard(&self, range: PageRange, backing: Backing) -> Result<(), Errno> {
        let pieces = self.pieces(range.gpa(), range.bytes())?;
        if backing == Backing::Private && pieces.iter().any(|piece| piece.slot.private.is_none()) {
            return Err(Errno::EOPNOTSUPP);
        }
        for piece in pieces {
            match (backing, &piece.slot.private) {
                (Backing::Shared, _) => piece.slot.shared.discard(piece.start()?, piece.length()?)?,
                (Backing::Private, Some(memfd)) => {
                    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    rustix::fs::fallocate(memfd, flags, piece.offset, piece.bytes)
                        .map_err(|error| Errno(error.raw_os_error()))?;
                }
                (Backing::Private, None) => return Err(Errno::EOPNOTSUPP),
            }
        }
        Ok(())
    }

    fn pieces(&self, gpa: Gpa, bytes: u64) -> Result<Vec<Piece<'_>>, Errno> {
        let end = gpa.0.checked_add(bytes).ok_or(Errno::EFAULT)?;
        let mut pieces = Vec::new();
        let mut at = gpa.0;
        while at < end {
            let inside = |slot: &&Slot| at.checked_sub(slot.gpa.0).is_some_and(|offset| offset < slot.bytes);
            let slot = self.slots.iter().find(inside).ok_or(Errno::EFAULT)?;
            let slot_end = slot.gpa.0.saturating_add(slot.bytes);
            let stop = slot_end.min(end);
            pieces.push(Piece { slot, offset: at - slot.gpa.0, bytes: stop - at });
            at = stop;
        }
        Ok(pieces)
    }
}

impl Piece<'_> {
    fn start(&self) -> Result<usize, Errno> {
        usize::try_from(self.offset).map_err(|_| Errno::EFAULT)
    }

    fn length(&self) -> Result<usize, Errno> {
        usize::try_from(self.bytes).map_err(|_| Errno::EFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_abi::Gfn;
    use exeunt_abi::kvm::caps::Cap;
    use exeunt_abi::kvm::vm_type::VmType;

    #[test]
    fn private_pages_are_given_back_and_the_shared_ones_behind_the_same_addresses_stay() {
        let test = "private pages";
        let kvm = match crate::probe() {
            Ok(kvm) => kvm,
            Err(reason) => return crate::print_skip(test, reason),
        };
        for cap in [Cap::USER_MEMORY2, Cap::GUEST_MEMFD] {
            if kvm.check_extension(cap) == 0 {
                return crate::print_skip(test, format_args!("this host lacks {cap}"));
            }
        }
        let device = kvm_ioctls::Kvm::new().unwrap();
        let vm = device.create_vm_with_type(VmType::Default.number()).unwrap();
        let mut memory = Memory::default();
        let slot = match Slot::private(&vm, memory.next_number(), Gpa(0x4000), 0x2000) {
            Ok(slot) => slot,
            // Before a default VM could have one.
            Err(error) => return crate::print_skip(test, error),
        };
        memory.add(slot);
        memory.write(Gpa(0x4000), &[7]).unwrap();
        let range = |gfn, pages| PageRange::new(Gfn(gfn), pages).unwrap();
        assert_eq!(memory.discard(range(4, 2), Backing::Private), Ok(()));
        assert_eq!(memory.discard(range(5, 2), Backing::Private), Err(Errno::EFAULT));
        let mut byte = [0];
        memory.read(Gpa(0x4000), &mut byte).unwrap();
        assert_eq!(byte, [7]);
    }
}
