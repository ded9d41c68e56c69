//! Conversions: slots in, actions out.

use exeunt_proto::conversion::{Conversion, PageRange, PageState};
use exeunt_proto::host::{Action, Backing};
use thiserror::Error;

/// A slot as the policy needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySlot {
    /// Its frames.
    pub range: PageRange,
    /// A `guest_memfd` backs its private half.
    pub has_private: bool,
}

/// The slots of a VM, in the order of their frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryMap {
    slots: Vec<MemorySlot>,
}

/// Two slots share a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the slots {0} and {1} overlap")]
pub struct SlotsOverlap(pub PageRange, pub PageRange);

impl MemoryMap {
    /// A map of these slots.
    ///
    /// # Errors
    ///
    /// Two slots overlap, which KVM does not allow either.
    pub fn new(slots: impl IntoIterator<Item = MemorySlot>) -> Result<Self, SlotsOverlap> {
        let mut slots: Vec<_> = slots.into_iter().collect();
        slots.sort_by_key(|slot| slot.range.gfn());
        for (slot, next) in slots.iter().zip(slots.iter().skip(1)) {
            if slot.range.intersect(next.range).is_some() {
                return Err(SlotsOverlap(slot.range, next.range));
            }
        }
        Ok(Self { slots })
    }

    /// The parts of the slots that a range covers.
    fn parts(&self, range: PageRange) -> impl Iterator<Item = MemorySlot> {
        let first = self.slots.partition_point(|slot| slot.range.end() <= range.gfn());
        self.slots.iter().skip(first).map_while(move |slot| {
            let range = slot.range.intersect(range)?;
            Some(MemorySlot { range, ..*slot })
        })
    }

    /// Whether slots cover all of a range.
    #[must_use]
    pub fn covers(&self, range: PageRange) -> bool {
        covered_pages(self.parts(range)) == range.pages()
    }

    /// Whether a conversion can be done. To private, every page needs a private half. To shared, a page without
    /// memory is what it is to be already: guests convert MMIO ranges.
    #[must_use]
    pub fn allows(&self, conversion: Conversion) -> bool {
        match conversion.to {
            PageState::Shared => true,
            PageState::Private => {
                covered_pages(self.parts(conversion.range).filter(|part| part.has_private))
                    == conversion.range.pages()
            }
        }
    }

    /// What a conversion does, slot by slot and nothing outside of them: first the attributes, then the memory that
    /// the pages no longer use. The other order would lose what the guest still writes.
    pub fn actions(&self, conversion: Conversion) -> impl Iterator<Item = Action<'static>> {
        let Conversion { range, to } = conversion;
        let left = match to {
            PageState::Private => Backing::Shared,
            PageState::Shared => Backing::Private,
        };
        self.parts(range).filter(|part| part.has_private).flat_map(move |part| {
            let range = part.range;
            [Action::SetAttributes { range, to }, Action::Discard { range, backing: left }]
        })
    }
}

fn covered_pages(parts: impl Iterator<Item = MemorySlot>) -> u64 {
    parts.fold(0, |sum: u64, part| sum.saturating_add(part.range.pages()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_abi::Gfn;

    fn range(gfn: u64, pages: u64) -> PageRange {
        PageRange::new(Gfn(gfn), pages).unwrap()
    }

    fn slot(gfn: u64, pages: u64, has_private: bool) -> MemorySlot {
        MemorySlot { range: range(gfn, pages), has_private }
    }

    /// Frames 0x10-0x1f and 0x20-0x27 with private halves, 0x30-0x33 without, holes elsewhere.
    fn map() -> MemoryMap {
        MemoryMap::new([slot(0x30, 4, false), slot(0x10, 16, true), slot(0x20, 8, true)]).unwrap()
    }

    #[test]
    fn a_range_over_slots_and_holes_is_split_and_nothing_outside_is_touched() {
        let conversion = Conversion { range: range(0, 0x100), to: PageState::Shared };
        let got: Vec<_> = map().actions(conversion).collect();
        let expected: Vec<_> = [range(0x10, 16), range(0x20, 8)]
            .into_iter()
            .flat_map(|range| {
                [
                    Action::SetAttributes { range, to: PageState::Shared },
                    Action::Discard { range, backing: Backing::Private },
                ]
            })
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn a_conversion_to_private_discards_the_shared_memory_after_the_attributes() {
        let conversion = Conversion { range: range(0x1e, 4), to: PageState::Private };
        assert!(map().allows(conversion));
        let got: Vec<_> = map().actions(conversion).collect();
        let part = range(0x1e, 2);
        assert_eq!(got[0], Action::SetAttributes { range: part, to: PageState::Private });
        assert_eq!(got[1], Action::Discard { range: part, backing: Backing::Shared });
        assert_eq!(got.len(), 4);
    }

    #[test]
    fn private_needs_a_private_half_for_every_page_and_shared_needs_nothing() {
        for (gfn, pages, allowed) in [
            (0x10, 24, true),
            (0xf, 2, false),
            (0x27, 2, false),
            (0x30, 1, false),
            (0x50, 1, false),
            (0, (1 << 52) - 1, false),
        ] {
            let to = |to| Conversion { range: range(gfn, pages), to };
            assert_eq!(map().allows(to(PageState::Private)), allowed, "{gfn:#x}");
            assert!(map().allows(to(PageState::Shared)));
        }
    }

    #[test]
    fn covered_means_every_page() {
        assert!(map().covers(range(0x10, 24)));
        assert!(map().covers(range(0x33, 1)));
        assert!(!map().covers(range(0x27, 10)));
        assert!(!MemoryMap::default().covers(range(0, 1)));
    }

    #[test]
    fn overlapping_slots_are_refused() {
        let overlap = MemoryMap::new([slot(8, 4, true), slot(0, 9, true)]);
        assert_eq!(overlap, Err(SlotsOverlap(range(0, 9), range(8, 4))));
    }
}
