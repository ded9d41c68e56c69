//! The header of a guest message.

use core::fmt;
use core::mem::size_of;
use exeunt_abi::PAGE_SIZE;
use exeunt_abi::ghcb::guest_message::{Header, algo, msg_type};
use zerocopy::FromBytes;

/// What the header says. KVM looks at [`MessageHeader::kind`] alone and takes it on trust; the firmware authenticates
/// the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    /// The sequence number.
    pub seqno: u64,
    /// The encryption, as in [`algo`].
    pub algo: u8,
    /// What the message is, as in [`msg_type`].
    pub kind: u8,
    /// Version of the message.
    pub version: u8,
    /// Bytes of the encrypted message behind the header.
    pub size_bytes: u16,
    /// The key: VMPCK 0 to 3.
    pub vmpck: u8,
}

/// Why a header has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// There is no room for the header.
    Short {
        /// Bytes that there are.
        bytes: usize,
    },
    /// `hdr_version` is not 1.
    HeaderVersion {
        /// The version.
        version: u8,
    },
    /// `hdr_sz` is not 96.
    HeaderSize {
        /// The size in bytes.
        bytes: u16,
    },
    /// Header and message are longer than a page.
    MessageSize {
        /// Bytes of the message.
        bytes: u16,
    },
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { bytes } => write!(f, "{bytes} bytes hold no header of a guest message"),
            Self::HeaderVersion { version } => write!(f, "the header has version {version}"),
            Self::HeaderSize { bytes } => write!(f, "the header says that it has {bytes} bytes"),
            Self::MessageSize { bytes } => write!(f, "a message of {bytes} bytes does not fit into a page"),
        }
    }
}

impl core::error::Error for MessageError {}

impl MessageHeader {
    /// Parses the header of a copy of the request or response page.
    ///
    /// Source: AMD 56860 revision 1.58, section 8; Linux v7.2 `drivers/virt/coco/sev-guest`, whose checks are those
    /// of the variants.
    ///
    /// # Errors
    ///
    /// The first check that fails, in the order of the variants.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let short = MessageError::Short { bytes: bytes.len() };
        let (wire, _) = Header::read_from_prefix(bytes).map_err(|_| short)?;
        if wire.hdr_version != 1 {
            return Err(MessageError::HeaderVersion { version: wire.hdr_version });
        }
        if usize::from(wire.hdr_sz) != size_of::<Header>() {
            return Err(MessageError::HeaderSize { bytes: wire.hdr_sz });
        }
        if u64::from(wire.hdr_sz).saturating_add(u64::from(wire.msg_sz)) > PAGE_SIZE {
            return Err(MessageError::MessageSize { bytes: wire.msg_sz });
        }
        Ok(Self {
            seqno: wire.msg_seqno,
            algo: wire.algo,
            kind: wire.msg_type,
            version: wire.msg_version,
            size_bytes: wire.msg_sz,
            vmpck: wire.msg_vmpck,
        })
    }
}

impl fmt::Display for MessageHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match msg_type::name(self.kind) {
            Some(name) => write!(f, "{name}")?,
            None => write!(f, "message of type {}", self.kind)?,
        }
        write!(f, " {} of {} bytes with VMPCK{}", self.seqno, self.size_bytes, self.vmpck)?;
        if self.algo == algo::AES_256_GCM { Ok(()) } else { write!(f, ", algorithm {}", self.algo) }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    fn bytes() -> [u8; 96] {
        let mut bytes = [0; 96];
        bytes[0x20] = 9;
        bytes[0x30..0x38].copy_from_slice(&[1, 1, 96, 0, 5, 1, 96, 0]);
        bytes[0x3c] = 2;
        bytes
    }

    #[test]
    fn a_header_gives_back_its_fields() {
        let header = MessageHeader::parse(&bytes()).unwrap();
        let expected = MessageHeader { seqno: 9, algo: 1, kind: 5, version: 1, size_bytes: 96, vmpck: 2 };
        assert_eq!(header, expected);
        assert_eq!(header.to_string(), "REPORT_REQ 9 of 96 bytes with VMPCK2");
    }

    #[test]
    fn each_check_refuses_what_it_is_there_for() {
        for length in 0..96 {
            let refused = MessageHeader::parse(&bytes()[..length]).unwrap_err();
            assert_eq!(refused, MessageError::Short { bytes: length });
        }
        for version in (0..=255).filter(|version| *version != 1) {
            let mut bytes = bytes();
            bytes[0x31] = version;
            assert_eq!(MessageHeader::parse(&bytes), Err(MessageError::HeaderVersion { version }));
        }
        let mut longer = bytes();
        longer[0x32] = 97;
        assert_eq!(MessageHeader::parse(&longer), Err(MessageError::HeaderSize { bytes: 97 }));
        for (size, fits) in [(4000, true), (4001, false), (u16::MAX, false)] {
            let mut bytes = bytes();
            bytes[0x36..0x38].copy_from_slice(&u16::to_le_bytes(size));
            assert_eq!(MessageHeader::parse(&bytes).is_ok(), fits, "{size}");
        }
    }

    #[test]
    fn every_type_is_taken_and_prints() {
        for kind in 0..=255 {
            let mut bytes = bytes();
            bytes[0x34] = kind;
            let header = MessageHeader::parse(&bytes).unwrap();
            assert_eq!(header.kind, kind);
            assert!(!header.to_string().is_empty());
        }
    }
}
