//! The container of a snapshot: a header, sections, an end. It knows nothing of what is inside of a section.
//!
//! All numbers are little-endian. `docs/migration.md` has the layout.

use super::error::FormatError;
use sha2::{Digest as _, Sha256};
use std::io::{self, ErrorKind, Read, Write};

/// The first bytes. The first is no text, and the last shows a transfer that changes ends of lines.
pub const MAGIC: [u8; 8] = *b"\x7fexeunt\n";
/// The format that is written. Another major number is refused; a higher minor one has sections that can be skipped.
pub const MAJOR: u16 = 1;
/// See [`MAJOR`].
pub const MINOR: u16 = 0;
/// The flag of a section that a reader must understand to take the snapshot.
pub const MUST_UNDERSTAND: u32 = 1;

/// The section behind which nothing follows.
const END: u32 = 0;
const HEADER_BYTES: usize = 16;
const SECTION_HEADER_BYTES: usize = 16;
const CHECK_BYTES: usize = 8;
/// The count of sections, then the digest.
const END_BYTES: usize = 40;
/// What is asked of the heap before the bytes have come.
const FIRST_BYTES: usize = 1 << 16;

/// SHA-256 over all bytes of a snapshot before its end section.
pub type Digest = [u8; 32];

/// How much a reader takes. What claims to be longer is refused before memory is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole.
    pub total_bytes: u64,
    /// Bytes of the payload of one section.
    pub section_bytes: u64,
}

impl Default for Limits {
    /// 1 GiB for the whole, 2 MiB for a section.
    fn default() -> Self {
        Self { total_bytes: 1 << 30, section_bytes: 2 << 20 }
    }
}

/// A section as its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What is in it: a number of [`super::section::id`], or one that is not known here.
    pub id: u32,
    /// [`MUST_UNDERSTAND`] or nothing.
    pub flags: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

/// Writes a snapshot, section by section.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    digest: Sha256,
    sections: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// As `to` has them.
    pub fn new(to: W) -> io::Result<Self> {
        let mut writer = Self { to, digest: Sha256::new(), sections: 0 };
        let mut header = [0; HEADER_BYTES];
        put(&mut header, 0, &MAGIC);
        put(&mut header, 8, &MAJOR.to_le_bytes());
        put(&mut header, 10, &MINOR.to_le_bytes());
        writer.write(&header)?;
        Ok(writer)
    }

    /// Writes a section.
    ///
    /// # Errors
    ///
    /// As `to` has them.
    pub fn section(&mut self, id: u32, flags: u32, payload: &[u8]) -> io::Result<()> {
        let header = section_header(id, flags, payload.len() as u64);
        self.write(&header)?;
        self.write(payload)?;
        self.sections = self.sections.saturating_add(1);
        self.write(&check(&header, payload))
    }

    /// Writes the end, and says what the digest is.
    ///
    /// # Errors
    ///
    /// As `to` has them.
    pub fn finish(mut self) -> io::Result<(W, Digest)> {
        let digest: Digest = self.digest.clone().finalize().into();
        let mut payload = [0; END_BYTES];
        put(&mut payload, 0, &self.sections.to_le_bytes());
        put(&mut payload, 8, &digest);
        self.section(END, MUST_UNDERSTAND, &payload)?;
        self.to.flush()?;
        Ok((self.to, digest))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.to.write_all(bytes)
    }
}

/// Reads a snapshot, section by section. A section is handed out when its checksum is right; that the whole is as it
/// was written is known when the reader has said that there are no more.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    limits: Limits,
    digest: Sha256,
    /// What has been read, in bytes.
    at: u64,
    sections: u64,
    minor: u16,
    ended: Option<Digest>,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// It is not a snapshot, or one of a format that this reader does not have.
    pub fn new(from: R, limits: Limits) -> Result<Self, FormatError> {
        let mut reader =
            Self { from, limits, digest: Sha256::new(), at: 0, sections: 0, minor: 0, ended: None };
        let header: [u8; HEADER_BYTES] = reader.array()?;
        let magic: [u8; 8] = cut(&header, 0);
        if magic != MAGIC {
            return Err(FormatError::NotASnapshot { magic });
        }
        let major = u16::from_le_bytes(cut(&header, 8));
        reader.minor = u16::from_le_bytes(cut(&header, 10));
        if major != MAJOR {
            return Err(FormatError::OtherFormat { major, minor: reader.minor });
        }
        let bits = u32::from_le_bytes(cut(&header, 12));
        if bits != 0 {
            return Err(FormatError::HeaderFlags { bits });
        }
        reader.digest.update(header);
        Ok(reader)
    }

    /// The minor number of the format that the writer had.
    #[must_use]
    pub const fn minor(&self) -> u16 {
        self.minor
    }

    /// The digest, once the end has been read and found right.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        self.ended
    }

    /// The next section; `None` when the end was right and nothing follows.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong. Nothing can be read after it.
    pub fn section(&mut self) -> Result<Option<Section>, FormatError> {
        if self.ended.is_some() {
            return Ok(None);
        }
        let header: [u8; SECTION_HEADER_BYTES] = self.array()?;
        let (id, flags) = (u32::from_le_bytes(cut(&header, 0)), u32::from_le_bytes(cut(&header, 4)));
        let bytes = u64::from_le_bytes(cut(&header, 8));
        let bits = flags & !MUST_UNDERSTAND;
        if bits != 0 {
            return Err(FormatError::SectionFlags { id, bits });
        }
        if bytes > self.limits.section_bytes {
            return Err(FormatError::SectionTooLong { id, bytes, limit_bytes: self.limits.section_bytes });
        }
        let payload = self.payload(bytes)?;
        let found: [u8; CHECK_BYTES] = self.array()?;
        let right = check(&header, &payload);
        if found != right {
            return Err(FormatError::Checksum { id, at: self.at });
        }
        if id == END {
            self.end(flags, &payload)?;
            return Ok(None);
        }
        self.sections = self.sections.saturating_add(1);
        self.digest.update(header);
        self.digest.update(&payload);
        self.digest.update(right);
        Ok(Some(Section { id, flags, payload }))
    }

    fn end(&mut self, flags: u32, payload: &[u8]) -> Result<(), FormatError> {
        let malformed = FormatError::End { bytes: payload.len() as u64, flags };
        let payload: &[u8; END_BYTES] = payload.try_into().map_err(|_| malformed.clone())?;
        if flags != MUST_UNDERSTAND {
            return Err(malformed);
        }
        let said = u64::from_le_bytes(cut(payload, 0));
        if said != self.sections {
            return Err(FormatError::SectionCount { said, found: self.sections });
        }
        let digest: Digest = self.digest.clone().finalize().into();
        if cut::<32>(payload, 8) != digest {
            return Err(FormatError::Digest);
        }
        let mut behind = [0];
        loop {
            match self.from.read(&mut behind) {
                Ok(0) => break,
                Ok(_) => return Err(FormatError::BehindTheEnd { at: self.at }),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(FormatError::Read { kind: error.kind(), at: self.at }),
            }
        }
        self.ended = Some(digest);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        self.count(N as u64)?;
        self.from.read_exact(&mut bytes).map_err(|error| self.failed(&error))?;
        Ok(bytes)
    }

    /// Memory grows with the bytes that come, not with the length that was said.
    fn payload(&mut self, bytes: u64) -> Result<Vec<u8>, FormatError> {
        self.count(bytes)?;
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut payload = Vec::with_capacity(length.min(FIRST_BYTES));
        self.from.by_ref().take(bytes).read_to_end(&mut payload).map_err(|error| self.failed(&error))?;
        if payload.len() != length {
            return Err(FormatError::Truncated { at: self.at });
        }
        Ok(payload)
    }

    fn count(&mut self, bytes: u64) -> Result<(), FormatError> {
        self.at = self.at.saturating_add(bytes);
        if self.at > self.limits.total_bytes {
            return Err(FormatError::TooLong { limit_bytes: self.limits.total_bytes });
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> FormatError {
        match error.kind() {
            ErrorKind::UnexpectedEof => FormatError::Truncated { at: self.at },
            kind => FormatError::Read { kind, at: self.at },
        }
    }
}

fn section_header(id: u32, flags: u32, bytes: u64) -> [u8; SECTION_HEADER_BYTES] {
    let mut header = [0; SECTION_HEADER_BYTES];
    put(&mut header, 0, &id.to_le_bytes());
    put(&mut header, 4, &flags.to_le_bytes());
    put(&mut header, 8, &bytes.to_le_bytes());
    header
}

/// The first bytes of SHA-256 over a section's header and payload.
fn check(header: &[u8], payload: &[u8]) -> [u8; CHECK_BYTES] {
    let digest: Digest = Sha256::new().chain_update(header).chain_update(payload).finalize().into();
    cut(&digest, 0)
}

fn put(to: &mut [u8], at: usize, from: &[u8]) {
    to.iter_mut().skip(at).zip(from).for_each(|(to, from)| *to = *from);
}

/// `N` bytes at an offset that the caller knows to be inside.
fn cut<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    from.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests;
