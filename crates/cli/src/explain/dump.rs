//! Bytes that were given, read at offsets.

use super::explanation::{Field, hex};

/// A copy of bytes. What lies outside of them reads as zero: the kinds check the size before they read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dump<'a>(pub(super) &'a [u8]);

impl<'a> Dump<'a> {
    pub(super) fn slice(self, offset: usize, length: usize) -> &'a [u8] {
        let rest = self.0.get(offset..).unwrap_or_default();
        rest.get(..length).unwrap_or(rest)
    }

    fn array<const N: usize>(self, offset: usize) -> [u8; N] {
        self.0.get(offset..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
    }

    pub(super) fn u8(self, offset: usize) -> u8 {
        u8::from_le_bytes(self.array(offset))
    }

    pub(super) fn u16(self, offset: usize) -> u16 {
        u16::from_le_bytes(self.array(offset))
    }

    pub(super) fn u32(self, offset: usize) -> u32 {
        u32::from_le_bytes(self.array(offset))
    }

    pub(super) fn u64(self, offset: usize) -> u64 {
        u64::from_le_bytes(self.array(offset))
    }

    /// A quadword as a field, in hex.
    pub(super) fn hex64(self, offset: usize, name: &str, meaning: impl Into<String>) -> Field {
        Field::at(offset, name, format!("{:#x}", self.u64(offset)), meaning)
    }

    /// A doubleword as a field, in hex.
    pub(super) fn hex32(self, offset: usize, name: &str, meaning: impl Into<String>) -> Field {
        Field::at(offset, name, format!("{:#x}", self.u32(offset)), meaning)
    }

    /// A byte as a field, in decimal.
    pub(super) fn byte(self, offset: usize, name: &str, meaning: impl Into<String>) -> Field {
        Field::at(offset, name, self.u8(offset).to_string(), meaning)
    }

    /// A run of bytes as a field, in hex as they lie in memory.
    pub(super) fn run(self, offset: usize, length: usize, name: &str, meaning: impl Into<String>) -> Field {
        Field::at(offset, name, hex(self.slice(offset, length)), meaning)
    }

    /// Calls out a reserved run that is not zero.
    pub(super) fn not_zero(self, offset: usize, length: usize, name: &str) -> Option<String> {
        let at = self.slice(offset, length).iter().position(|byte| *byte != 0)?;
        Some(format!("{name} at {offset:#x} should be 0, and the byte at {:#x} is not", offset + at))
    }
}
