//! Numbers and runs of bytes inside of a section.

use super::error::{Flaw, FormatError};

/// What is left of a section's payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    id: u32,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(id: u32, payload: &'a [u8]) -> Self {
        Self { id, rest: payload }
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| self.flawed(Flaw::TooShort))?;
        self.rest = rest;
        Ok(*array)
    }

    pub(crate) fn bytes(&mut self, length: u32) -> Result<&'a [u8], FormatError> {
        let cut = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (bytes, rest) = cut.ok_or_else(|| self.flawed(Flaw::TooShort))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A length in four bytes, then the text.
    pub(crate) fn text(&mut self) -> Result<String, FormatError> {
        let length = self.u32()?;
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| self.flawed(Flaw::NotText))?;
        Ok(text.to_owned())
    }

    /// All that is left.
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// A count of things that have at least `each_bytes`; more than there are bytes for is refused.
    pub(crate) fn count(&mut self, each_bytes: u64) -> Result<u32, FormatError> {
        let count = self.u32()?;
        if u64::from(count).saturating_mul(each_bytes) > self.rest.len() as u64 {
            return Err(self.flawed(Flaw::TooShort));
        }
        Ok(count)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), FormatError> {
        match self.rest.len() as u64 {
            0 => Ok(()),
            bytes => Err(self.flawed(Flaw::LeftOver { bytes })),
        }
    }

    pub(crate) const fn flawed(&self, flaw: Flaw) -> FormatError {
        FormatError::Malformed { id: self.id, flaw }
    }
}

/// Appends a text as [`Cursor::text`] reads it.
pub(crate) fn put_text(to: &mut Vec<u8>, text: &str) {
    put_bytes(to, text.as_bytes());
}

/// Appends a length in four bytes, then the bytes.
pub(crate) fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    to.extend(bytes);
}

/// Appends how many of something follow.
pub(crate) fn put_count(to: &mut Vec<u8>, count: usize) {
    to.extend(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}
