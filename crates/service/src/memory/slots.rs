//! The slots of a VM.

use exeunt_abi::Gfn;
use exeunt_proto::conversion::PageRange;
use thiserror::Error;

/// A slot as the policy needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySlot {
    /// Its frames.
    pub range: PageRange,
    /// A `guest_memfd` backs its private half.
    pub has_private: bool,
}

/// Two slots share a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the slots {0} and {1} overlap")]
pub struct SlotsOverlap(pub PageRange, pub PageRange);

/// The slots of a VM, in the order of their frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    slots: Vec<MemorySlot>,
}

impl Slots {
    /// Adds a slot.
    ///
    /// # Errors
    ///
    /// It overlaps another one, which KVM does not allow either.
    pub(crate) fn add(&mut self, slot: MemorySlot) -> Result<(), SlotsOverlap> {
        if let Some(other) = self.slots.iter().find(|other| other.range.intersect(slot.range).is_some()) {
            let (other, new) = (other.range, slot.range);
            let in_order = if other.gfn() < new.gfn() { (other, new) } else { (new, other) };
            return Err(SlotsOverlap(in_order.0, in_order.1));
        }
        let at = self.slots.partition_point(|other| other.range.gfn() < slot.range.gfn());
        self.slots.insert(at, slot);
        Ok(())
    }

    /// The slot with this first frame.
    pub(crate) fn at(&self, gfn: Gfn) -> Option<MemorySlot> {
        self.slots.iter().find(|slot| slot.range.gfn() == gfn).copied()
    }

    /// Takes the slot with this first frame away.
    pub(crate) fn remove(&mut self, gfn: Gfn) -> Option<MemorySlot> {
        let at = self.slots.iter().position(|slot| slot.range.gfn() == gfn)?;
        Some(self.slots.remove(at))
    }

    /// The parts of the slots that a range covers.
    pub(crate) fn parts(&self, range: PageRange) -> impl Iterator<Item = MemorySlot> {
        let first = self.slots.partition_point(|slot| slot.range.end() <= range.gfn());
        self.slots.iter().skip(first).map_while(move |slot| {
            let range = slot.range.intersect(range)?;
            Some(MemorySlot { range, ..*slot })
        })
    }

    /// Whether slots cover all of a range.
    pub(crate) fn covers(&self, range: PageRange) -> bool {
        covered_pages(self.parts(range)) == range.pages()
    }

    /// Whether every page of a range has a private half.
    pub(crate) fn has_private(&self, range: PageRange) -> bool {
        covered_pages(self.parts(range).filter(|part| part.has_private)) == range.pages()
    }
}

fn covered_pages(parts: impl Iterator<Item = MemorySlot>) -> u64 {
    parts.fold(0, |sum: u64, part| sum.saturating_add(part.range.pages()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(gfn: u64, pages: u64) -> PageRange {
        PageRange::new(Gfn(gfn), pages).unwrap()
    }

    fn slot(gfn: u64, pages: u64, has_private: bool) -> MemorySlot {
        MemorySlot { range: range(gfn, pages), has_private }
    }

    /// Frames 0x10-0x1f and 0x20-0x27 with private halves, 0x30-0x33 without, holes elsewhere.
    fn slots() -> Slots {
        let mut slots = Slots::default();
        for slot in [slot(0x30, 4, false), slot(0x10, 16, true), slot(0x20, 8, true)] {
            slots.add(slot).unwrap();
        }
        slots
    }

    #[test]
    fn a_range_is_cut_at_slots_and_holes() {
        let parts: Vec<_> = slots().parts(range(0x18, 0x1a)).collect();
        assert_eq!(parts, [slot(0x18, 8, true), slot(0x20, 8, true), slot(0x30, 2, false)]);
        assert_eq!(slots().parts(range(0x28, 8)).count(), 0);
    }

    #[test]
    fn covered_means_every_page_and_private_means_every_half() {
        for (gfn, pages, covered, private) in [
            (0x10, 24, true, true),
            (0xf, 2, false, false),
            (0x27, 2, false, false),
            (0x30, 1, true, false),
            (0x50, 1, false, false),
            (0, (1 << 52) - 1, false, false),
        ] {
            assert_eq!(slots().covers(range(gfn, pages)), covered, "{gfn:#x}");
            assert_eq!(slots().has_private(range(gfn, pages)), private, "{gfn:#x}");
        }
        assert!(!Slots::default().covers(range(0, 1)));
    }

    #[test]
    fn overlapping_slots_are_refused_and_a_removed_one_makes_room() {
        let mut slots = slots();
        let before = slots.clone();
        for (gfn, pages, with) in
            [(0x1f, 1, range(0x10, 16)), (0, 0x11, range(0x10, 16)), (0x33, 9, range(0x30, 4))]
        {
            let refused = slots.add(slot(gfn, pages, true)).unwrap_err();
            assert!([refused.0, refused.1].contains(&with), "{refused}");
            assert!([refused.0, refused.1].contains(&range(gfn, pages)), "{refused}");
            assert_eq!(slots, before);
        }
        assert_eq!(slots.remove(Gfn(0x11)), None);
        assert_eq!(slots.remove(Gfn(0x10)), Some(slot(0x10, 16, true)));
        assert_eq!(slots.add(slot(0x1f, 1, true)), Ok(()));
        assert!(slots.covers(range(0x1f, 9)));
    }
}
