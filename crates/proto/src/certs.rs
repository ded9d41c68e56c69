//! The certificate table that goes with an attestation report.
//!
//! Layout: an array of 24-byte entries {GUID 16 bytes in printed order, offset u32, length u32}, ended by an entry of
//! zeroes, then the certificates; offsets count from the start of the table.
//!
//! Source: AMD 56421 revision 2.0x, section 4.1.8.1 "SNP Extended Guest Request"; byte order as AMD's own tool for
//! Linux guests writes it.

use core::fmt;

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 24;

/// A certificate's kind: its GUID in printed order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

/// The versioned chip endorsement key.
pub const VCEK: Guid = Guid(0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes());
/// The versioned loaded endorsement key.
pub const VLEK: Guid = Guid(0xa8074bc2_a25a_483e_aae6_39c045a0b8a1_u128.to_be_bytes());
/// The AMD SEV key, which signs the VCEK.
pub const ASK: Guid = Guid(0x4ab7b379_bbac_4fe4_a02f_05aef327c782_u128.to_be_bytes());
/// The AMD root key.
pub const ARK: Guid = Guid(0xc0b406a4_a803_4952_9743_3fb6014cd0ae_u128.to_be_bytes());
/// The certificate revocation list.
pub const CRL: Guid = Guid(0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea_u128.to_be_bytes());

impl Guid {
    /// The short name, if the kind is known.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match u128::from_be_bytes(self.0) {
            0x63da758d_e664_4564_adc5_f4b93be8accd => Some("VCEK"),
            0xa8074bc2_a25a_483e_aae6_39c045a0b8a1 => Some("VLEK"),
            0x4ab7b379_bbac_4fe4_a02f_05aef327c782 => Some("ASK"),
            0xc0b406a4_a803_4952_9743_3fb6014cd0ae => Some("ARK"),
            0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea => Some("CRL"),
            _ => None,
        }
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One certificate of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// Its kind.
    pub guid: Guid,
    /// Its bytes, usually DER.
    pub bytes: &'a [u8],
}

/// Why a table is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableError {
    /// The bytes end before the entry of zeroes.
    Unterminated {
        /// Where an entry was expected, in bytes.
        offset: usize,
    },
    /// A certificate lies outside the table, or in its directory.
    OutOfBounds {
        /// The index of its entry.
        index: usize,
        /// Where it should start, in bytes.
        offset: u32,
        /// How long it should be, in bytes.
        length: u32,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unterminated { offset } => {
                write!(f, "the certificate table has no entry of 24 zero bytes by offset {offset:#x}")
            }
            Self::OutOfBounds { index, offset, length } => write!(
                f,
                "certificate {index} at {offset:#x} with {length:#x} bytes lies outside the table's data"
            ),
        }
    }
}

impl core::error::Error for TableError {}

/// A table that was checked: it ends, and every certificate lies behind the directory and inside the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    bytes: &'a [u8],
    entries: usize,
}

impl<'a> Table<'a> {
    /// Checks `bytes`. The work is bounded by their length.
    ///
    /// # Errors
    ///
    /// The table does not end, or a certificate lies outside of it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        let mut entries = 0usize;
        let directory_bytes = loop {
            let offset = entries.saturating_mul(ENTRY_BYTES);
            let entry = entry_at(bytes, entries).ok_or(TableError::Unterminated { offset })?;
            if entry.is_terminator() {
                break offset.saturating_add(ENTRY_BYTES);
            }
            entries = entries.saturating_add(1);
        };
        for index in 0..entries {
            let Some(Entry { offset, length, .. }) = entry_at(bytes, index) else { continue };
            let end = u64::from(offset).saturating_add(u64::from(length));
            if (offset as usize) < directory_bytes || end > bytes.len() as u64 {
                return Err(TableError::OutOfBounds { index, offset, length });
            }
        }
        Ok(Self { bytes, entries })
    }

    /// The certificates in their order.
    pub fn certificates(self) -> impl Iterator<Item = Certificate<'a>> {
        (0..self.entries).filter_map(move |index| {
            let entry = entry_at(self.bytes, index)?;
            let bytes = self.bytes.get(entry.offset as usize..)?.get(..entry.length as usize)?;
            Some(Certificate { guid: entry.guid, bytes })
        })
    }
}

struct Entry {
    guid: Guid,
    offset: u32,
    length: u32,
}

impl Entry {
    fn is_terminator(&self) -> bool {
        self.guid.0 == [0; 16] && self.offset == 0 && self.length == 0
    }
}

fn entry_at(bytes: &[u8], index: usize) -> Option<Entry> {
    let rest = bytes.get(index.checked_mul(ENTRY_BYTES)?..)?;
    let (guid, rest) = rest.split_first_chunk::<16>()?;
    let (offset, rest) = rest.split_first_chunk::<4>()?;
    let (length, _) = rest.split_first_chunk::<4>()?;
    Some(Entry {
        guid: Guid(*guid),
        offset: u32::from_le_bytes(*offset),
        length: u32::from_le_bytes(*length),
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    fn table(certificates: &[(Guid, &[u8])]) -> Vec<u8> {
        let mut offset = u32::try_from((certificates.len() + 1) * ENTRY_BYTES).unwrap();
        let mut bytes = Vec::new();
        for (guid, certificate) in certificates {
            let length = u32::try_from(certificate.len()).unwrap();
            bytes.extend_from_slice(&guid.0);
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&length.to_le_bytes());
            offset += length;
        }
        bytes.extend_from_slice(&[0; ENTRY_BYTES]);
        for (_, certificate) in certificates {
            bytes.extend_from_slice(certificate);
        }
        bytes
    }

    #[test]
    fn a_table_gives_back_its_certificates_in_order() {
        let bytes = table(&[(VCEK, b"vcek"), (ASK, b""), (Guid([7; 16]), b"unknown")]);
        assert_eq!(bytes[..4], [0x63, 0xda, 0x75, 0x8d], "GUIDs are in printed order");
        let got: Vec<_> = Table::parse(&bytes).unwrap().certificates().collect();
        assert_eq!(got[0], Certificate { guid: VCEK, bytes: b"vcek" });
        assert_eq!(got[1], Certificate { guid: ASK, bytes: b"" });
        assert_eq!(got[2], Certificate { guid: Guid([7; 16]), bytes: b"unknown" });
        assert_eq!(got.len(), 3);
    }

    #[test]
    fn the_empty_table_is_24_zero_bytes() {
        assert_eq!(Table::parse(&[0; 24]).unwrap().certificates().count(), 0);
        for short in 0..24 {
            assert_eq!(Table::parse(&[0; 24][..short]), Err(TableError::Unterminated { offset: 0 }));
        }
    }

    #[test]
    fn every_truncation_of_a_table_is_refused() {
        let bytes = table(&[(VCEK, b"vcek"), (ARK, b"ark")]);
        for length in 0..bytes.len() {
            assert!(Table::parse(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Table::parse(&bytes).is_ok());
    }

    #[test]
    fn a_certificate_in_the_directory_or_past_the_end_is_refused() {
        for (offset, length) in [(0, 4), (47, 4), (48, 5), (u32::MAX, u32::MAX), (52, 1)] {
            let mut bytes = table(&[(VCEK, b"vcek")]);
            bytes[16..20].copy_from_slice(&u32::to_le_bytes(offset));
            bytes[20..24].copy_from_slice(&u32::to_le_bytes(length));
            assert_eq!(Table::parse(&bytes), Err(TableError::OutOfBounds { index: 0, offset, length }));
        }
    }

    #[test]
    fn a_guid_prints_as_the_specification_prints_it() {
        assert_eq!(VCEK.to_string(), "63da758d-e664-4564-adc5-f4b93be8accd");
        for (guid, name) in [(VCEK, "VCEK"), (VLEK, "VLEK"), (ASK, "ASK"), (ARK, "ARK"), (CRL, "CRL")] {
            assert_eq!(guid.name(), Some(name));
        }
        assert_eq!(Guid([1; 16]).name(), None);
    }
}
