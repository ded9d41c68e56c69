//! What a side remembers when it was killed.

use super::TransferId;
use crate::snapshot::Digest;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// What a side has of a VM. It is replaced as a whole, and durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// It owns the VM, which goes on from this checkpoint.
    Owns {
        /// The digest of the checkpoint.
        checkpoint: Digest,
    },
    /// It has offered the VM; the arbiter says whether it still owns it.
    Offers {
        /// The transfer.
        transfer: TransferId,
        /// The digest of the checkpoint.
        checkpoint: Digest,
    },
    /// It has a complete copy; the arbiter says whether it owns the VM.
    Holds {
        /// The transfer.
        transfer: TransferId,
        /// The digest of the checkpoint.
        checkpoint: Digest,
    },
    /// The VM went to the other side.
    Gave {
        /// The transfer.
        transfer: TransferId,
    },
    /// The VM stayed with the other side.
    Dropped {
        /// The transfer.
        transfer: TransferId,
    },
}

/// The bytes are not a record. Nothing may be concluded from them: neither that the VM is here nor that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the record cannot be read: it is not as it was written")]
pub struct RecordError;

/// Bytes of the longest record.
const MAX_BYTES: usize = 256;

impl Record {
    /// The checkpoint that it names.
    #[must_use]
    pub const fn checkpoint(&self) -> Option<Digest> {
        match self {
            Self::Owns { checkpoint } | Self::Offers { checkpoint, .. } | Self::Holds { checkpoint, .. } => {
                Some(*checkpoint)
            }
            Self::Gave { .. } | Self::Dropped { .. } => None,
        }
    }

    /// The transfer that it names.
    #[must_use]
    pub const fn transfer(&self) -> Option<TransferId> {
        match self {
            Self::Owns { .. } => None,
            Self::Offers { transfer, .. }
            | Self::Holds { transfer, .. }
            | Self::Gave { transfer }
            | Self::Dropped { transfer } => Some(*transfer),
        }
    }

    /// The first word of its bytes.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Owns { .. } => "owns",
            Self::Offers { .. } => "offers",
            Self::Holds { .. } => "holds",
            Self::Gave { .. } => "gave",
            Self::Dropped { .. } => "dropped",
        }
    }

    /// Its bytes: a line of words in ASCII, of which the last is the start of SHA-256 over what is before it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut line = self.name().to_owned();
        let words = [self.transfer().map(|it| hex(&it.0)), self.checkpoint().map(|it| hex(&it))];
        for word in words.into_iter().flatten() {
            line.push(' ');
            line.push_str(&word);
        }
        format!("{line} {}\n", check(&line)).into_bytes()
    }

    /// Reads the bytes of a record.
    ///
    /// # Errors
    ///
    /// They are not the bytes of one, to the last bit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > MAX_BYTES {
            return Err(RecordError);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| RecordError)?;
        let (line, found) =
            text.strip_suffix('\n').and_then(|text| text.rsplit_once(' ')).ok_or(RecordError)?;
        if check(line) != found {
            return Err(RecordError);
        }
        let words: Vec<&str> = line.split(' ').collect();
        let transfer = |word: &str| unhex(word).map(TransferId).ok_or(RecordError);
        let digest = |word: &str| unhex(word).ok_or(RecordError);
        Ok(match words.as_slice() {
            ["owns", checkpoint] => Self::Owns { checkpoint: digest(checkpoint)? },
            ["offers", id, checkpoint] => {
                Self::Offers { transfer: transfer(id)?, checkpoint: digest(checkpoint)? }
            }
            ["holds", id, checkpoint] => {
                Self::Holds { transfer: transfer(id)?, checkpoint: digest(checkpoint)? }
            }
            ["gave", id] => Self::Gave { transfer: transfer(id)? },
            ["dropped", id] => Self::Dropped { transfer: transfer(id)? },
            _ => return Err(RecordError),
        })
    }
}

fn check(line: &str) -> String {
    let digest: Digest = Sha256::digest(line.as_bytes()).into();
    hex(digest.first_chunk::<8>().unwrap_or(&[0; 8]))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// Exactly `N` bytes in lower case, so that a record has one form.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if !text.is_ascii() || text.len() != N.checked_mul(2)? {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        let start = at.checked_mul(2)?;
        *byte = u8::from_str_radix(text.get(start..start.checked_add(2)?)?, 16).ok()?;
    }
    (hex(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Record; 5] {
        let (transfer, checkpoint) = (TransferId([0xa1; 16]), [0xb2; 32]);
        [
            Record::Owns { checkpoint },
            Record::Offers { transfer, checkpoint },
            Record::Holds { transfer, checkpoint },
            Record::Gave { transfer },
            Record::Dropped { transfer },
        ]
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_with_no_bit_and_no_byte_otherwise() {
        for record in all() {
            let bytes = record.to_bytes();
            assert_eq!(Record::from_bytes(&bytes), Ok(record));
            assert!(bytes.len() <= MAX_BYTES && bytes.is_ascii());
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::from_bytes(&flipped), Err(RecordError), "{} bit {bit}", record.name());
            }
            for length in 0..bytes.len() {
                assert_eq!(Record::from_bytes(&bytes[..length]), Err(RecordError));
            }
            assert_eq!(Record::from_bytes(&[bytes.as_slice(), b" "].concat()), Err(RecordError));
        }
        assert_eq!(Record::from_bytes(&vec![b'a'; 1 << 16]), Err(RecordError));
    }

    #[test]
    fn words_that_are_no_record_are_refused_with_a_right_checksum() {
        for line in ["", "owns", "owns 12", "gave", "holds a b", "runs", "owns \u{e4}"] {
            let bytes = format!("{line} {}\n", check(line)).into_bytes();
            assert_eq!(Record::from_bytes(&bytes), Err(RecordError), "{line}");
        }
    }
}
