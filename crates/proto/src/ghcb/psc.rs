//! The descriptor of a page-state change, as a guest wrote it.

use crate::conversion::{Conversion, PageRange, PageState};
use core::fmt;
use exeunt_abi::Gfn;
use exeunt_abi::ghcb::psc::{ENTRY_BYTES, Entry, HEADER_BYTES, Header, MAX_ENTRIES, operation};
use zerocopy::FromBytes;

/// A descriptor that was copied out of the guest, with its header checked.
#[derive(Clone, Copy, Debug)]
pub struct PscRequest<'a> {
    header: Header,
    entries: &'a [u8],
}

/// Why a descriptor is refused. The guest gets `INVALID_HDR`, or `INVALID_SCRATCH_AREA` for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PscError {
    /// There is no room for the header.
    Short {
        /// Bytes that there are.
        bytes: usize,
    },
    /// The last entry lies behind the area.
    EndEntry {
        /// `end_entry`.
        end: u16,
        /// How many entries the area holds.
        room: u64,
    },
}

impl fmt::Display for PscError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { bytes } => write!(f, "{bytes} bytes hold no header of a page-state change"),
            Self::EndEntry { end, room } => {
                write!(f, "entry {end} is the last, and there is room for {room}")
            }
        }
    }
}

impl core::error::Error for PscError {}

impl<'a> PscRequest<'a> {
    /// Checks the header of a copy of the scratch area, from `sw_scratch` to the end of the shared buffer.
    ///
    /// As in KVM, `reserved` and a `cur_entry` behind `end_entry` are not refused: the latter is a request that is
    /// done.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_begin_psc`.
    ///
    /// # Errors
    ///
    /// The header does not fit, or promises entries that do not.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PscError> {
        let short = PscError::Short { bytes: bytes.len() };
        let (header, entries) = Header::read_from_prefix(bytes).map_err(|_| short)?;
        let room = (entries.len() as u64 / ENTRY_BYTES).min(MAX_ENTRIES);
        if u64::from(header.end_entry) >= room {
            return Err(PscError::EndEntry { end: header.end_entry, room });
        }
        Ok(Self { header, entries })
    }

    /// The header.
    #[must_use]
    pub const fn header(self) -> Header {
        self.header
    }

    /// The entries from `cur_entry` to `end_entry` with their indices: never more than 253.
    pub fn entries(self) -> impl Iterator<Item = (u16, Entry)> {
        (self.header.cur_entry..=self.header.end_entry).filter_map(move |index| {
            let at = usize::from(index).saturating_mul(8);
            let bytes = self.entries.get(at..)?.first_chunk::<8>()?;
            Some((index, Entry(u64::from_le_bytes(*bytes))))
        })
    }
}

const _: () = assert!(HEADER_BYTES == 8 && ENTRY_BYTES == 8);

/// What one entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PscEntry {
    /// The pages that are left, or `None` if the entry is done.
    pub range: Option<PageRange>,
    /// What is asked for.
    pub operation: PscOperation,
    /// The entry covers 2 MiB.
    pub is_2m: bool,
}

/// `operation` of an entry, 4 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PscOperation {
    /// The range becomes shared or private.
    Assign(PageState),
    /// A hint to split the 2 MiB page.
    Psmash,
    /// A hint to join the 4 KiB pages.
    Unsmash,
    /// A number without a meaning here. KVM takes such an entry for done.
    Unknown(u8),
}

/// Why an entry is refused. The guest gets `INVALID_ENTRY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PscEntryError {
    /// More pages are done than the entry has.
    CurPage {
        /// `cur_page`.
        cur_page: u64,
        /// 4 KiB pages of the entry.
        pages: u64,
    },
    /// The frame of a 2 MiB entry is not a multiple of 512.
    Unaligned {
        /// The frame.
        gfn: Gfn,
    },
}

impl fmt::Display for PscEntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CurPage { cur_page, pages } => write!(f, "{cur_page} of {pages} pages are done"),
            Self::Unaligned { gfn } => write!(f, "frame {gfn} is not aligned to 2 MiB"),
        }
    }
}

impl core::error::Error for PscEntryError {}

impl PscEntry {
    /// Decodes an entry. The reserved bits are not looked at.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_do_psc`.
    ///
    /// # Errors
    ///
    /// The first check that fails, in the order of the variants.
    pub const fn decode(entry: Entry) -> Result<Self, PscEntryError> {
        let (cur_page, pages, gfn) = (entry.cur_page(), entry.pages(), entry.gfn());
        let Some(left) = pages.checked_sub(cur_page) else {
            return Err(PscEntryError::CurPage { cur_page, pages });
        };
        if gfn & pages.wrapping_sub(1) != 0 {
            return Err(PscEntryError::Unaligned { gfn: Gfn(gfn) });
        }
        Ok(Self {
            range: PageRange::new(Gfn(gfn.saturating_add(cur_page)), left),
            operation: PscOperation::from_number(entry.operation()),
            is_2m: entry.is_2m(),
        })
    }

    /// What userspace would be asked for, if anything.
    #[must_use]
    pub const fn conversion(self) -> Option<Conversion> {
        match (self.range, self.operation) {
            (Some(range), PscOperation::Assign(to)) => Some(Conversion { range, to }),
            _ => None,
        }
    }
}

impl PscOperation {
    /// The operation with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            operation::PRIVATE => Self::Assign(PageState::Private),
            operation::SHARED => Self::Assign(PageState::Shared),
            operation::PSMASH => Self::Psmash,
            operation::UNSMASH => Self::Unsmash,
            number => Self::Unknown(number),
        }
    }
}

impl fmt::Display for PscEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            PscOperation::Assign(to) => write!(f, "make {to}")?,
            PscOperation::Psmash => f.write_str("split")?,
            PscOperation::Unsmash => f.write_str("join")?,
            PscOperation::Unknown(number) => write!(f, "operation {number}")?,
        }
        match self.range {
            Some(range) => write!(f, " {range}"),
            None => f.write_str(" (done)"),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    fn descriptor(cur: u16, end: u16, entries: &[Entry]) -> Vec<u8> {
        let mut bytes = Vec::from(cur.to_le_bytes());
        bytes.extend_from_slice(&end.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for entry in entries {
            bytes.extend_from_slice(&entry.0.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn the_entries_from_the_current_to_the_last_come_in_order() {
        let entries: Vec<Entry> = (0..6).map(|gfn| Entry::new(gfn, operation::PRIVATE, false)).collect();
        for cur in 0..8 {
            for end in 0..6 {
                let bytes = descriptor(cur, end, &entries);
                let got: Vec<u64> =
                    PscRequest::parse(&bytes).unwrap().entries().map(|(_, entry)| entry.gfn()).collect();
                let expected: Vec<u64> = (u64::from(cur)..=u64::from(end)).collect();
                assert_eq!(got, expected, "{cur}..={end}");
            }
        }
    }

    #[test]
    fn a_header_that_promises_more_than_there_is_is_refused_at_every_length() {
        let bytes = descriptor(0, u16::MAX, &[Entry(0); 300]);
        for length in 0..bytes.len() {
            let expected = match length {
                0..8 => PscError::Short { bytes: length },
                _ => PscError::EndEntry { end: u16::MAX, room: (length as u64 / 8 - 1).min(253) },
            };
            assert_eq!(PscRequest::parse(&bytes[..length]).unwrap_err(), expected);
            assert!(!expected.to_string().is_empty());
        }
        let full = descriptor(0, 252, &[Entry(0); 300]);
        assert_eq!(PscRequest::parse(&full).unwrap().entries().count(), 253);
        let one_more = descriptor(0, 253, &[Entry(0); 300]);
        let refused = PscRequest::parse(&one_more).unwrap_err();
        assert_eq!(refused, PscError::EndEntry { end: 253, room: 253 });
    }

    #[test]
    fn what_is_left_of_an_entry_is_what_is_not_done() {
        for huge in [false, true] {
            let (pages, gfn) = if huge { (512, 0x400) } else { (1, 0x400) };
            for done in 0..0x1000 {
                let entry = Entry::new(gfn, operation::SHARED, huge).with_cur_page(done);
                match PscEntry::decode(entry) {
                    Ok(got) => {
                        assert!(done <= pages);
                        assert_eq!(got.range, PageRange::new(Gfn(gfn + done), pages - done));
                        assert_eq!(got.conversion().is_none(), done == pages);
                        assert!(!got.to_string().is_empty());
                    }
                    Err(error) => assert_eq!(error, PscEntryError::CurPage { cur_page: done, pages }),
                }
            }
        }
    }

    #[test]
    fn only_aligned_frames_have_2_mib_and_only_two_operations_ask_for_a_conversion() {
        for gfn in 0..1024 {
            let entry = PscEntry::decode(Entry::new(gfn, operation::PRIVATE, true));
            assert_eq!(entry.is_err(), gfn % 512 != 0, "{gfn}");
        }
        for number in 0..16 {
            let entry = PscEntry::decode(Entry::new(7, number, false)).unwrap();
            assert_eq!(entry.conversion().is_some(), matches!(number, 1 | 2));
            assert!(!entry.to_string().is_empty());
        }
    }
}
