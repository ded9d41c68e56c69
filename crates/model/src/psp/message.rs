//! Guest messages: a header in the clear, and a payload in AES-256-GCM. Both ends of a key use this.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI" revision 1.58, section 8.26 "`SNP_GUEST_REQUEST`".

use aes_gcm::{AeadInPlace, Aes256Gcm, KeyInit, Tag};
use exeunt_abi::ghcb::guest_message::{Header, algo};
use std::fmt;
use std::mem::size_of;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = size_of::<Header>();
/// Bytes of the longest payload: what a page has room for.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 4096 - HEADER_BYTES;
/// The authenticated part of the header.
const AAD: std::ops::Range<usize> = 0x30..0x60;
/// Bytes of the tag that AES-256-GCM makes.
const TAG_BYTES: usize = 16;

/// A `VMPCK`, expanded.
#[derive(Clone)]
pub struct MessageKey(Aes256Gcm);

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageKey")
    }
}

/// Why a page holds no message under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The header is not one of version 1 for AES-256-GCM, or the sizes do not fit.
    Header,
    /// The tag does not fit: another key, or somebody changed the message.
    Tag,
}

impl MessageKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Aes256Gcm::new(&(*key).into()))
    }

    /// Writes a message to the start of a page: header, tag and encrypted payload. The rest of the page stays.
    ///
    /// Returns `None`, and writes nothing, for a payload that does not fit.
    pub fn seal(&self, to: &mut [u8], seqno: u64, message: Kind, payload: &[u8]) -> Option<()> {
        let msg_sz = u16::try_from(payload.len()).ok()?;
        let bytes = to.get_mut(..HEADER_BYTES.checked_add(payload.len())?)?;
        let mut header = Header::new_zeroed();
        header.msg_seqno = seqno;
        header.algo = algo::AES_256_GCM;
        header.hdr_version = 1;
        header.hdr_sz = u16::try_from(HEADER_BYTES).ok()?;
        header.msg_type = message.msg_type;
        header.msg_version = message.version;
        header.msg_sz = msg_sz;
        header.msg_vmpck = message.vmpck;
        let (head, body) = bytes.split_at_mut(HEADER_BYTES);
        body.copy_from_slice(payload);
        let aad = header.as_bytes().get(AAD)?;
        let tag = self.0.encrypt_in_place_detached(&nonce(seqno), aad, body).ok()?;
        header.authtag.iter_mut().zip(tag).for_each(|(to, from)| *to = from);
        head.copy_from_slice(header.as_bytes());
        Some(())
    }

    /// Opens the message in a page that nobody else can change. The payload takes the place of what was encrypted.
    ///
    /// # Errors
    ///
    /// The first check that fails, in the order of the variants. After [`OpenError::Tag`] the page is as before.
    pub fn open<'a>(&self, page: &'a mut [u8]) -> Result<(Header, &'a [u8]), OpenError> {
        let header = header_of(page)?;
        let (head, body) = page.split_at_mut_checked(HEADER_BYTES).ok_or(OpenError::Header)?;
        let body = body.get_mut(..usize::from(header.msg_sz)).ok_or(OpenError::Header)?;
        let aad = head.get(AAD).ok_or(OpenError::Header)?;
        let tag = header.authtag.first_chunk::<TAG_BYTES>().ok_or(OpenError::Header)?;
        self.0
            .decrypt_in_place_detached(&nonce(header.msg_seqno), aad, body, &Tag::from(*tag))
            .map_err(|_| OpenError::Tag)?;
        Ok((header, body))
    }
}

/// What a message is, apart from its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// As in [`exeunt_abi::ghcb::guest_message::msg_type`].
    pub msg_type: u8,
    /// Version of the message.
    pub version: u8,
    /// The key: VMPCK 0 to 3.
    pub vmpck: u8,
}

/// The header of a message, checked as far as it can be without a key.
///
/// # Errors
///
/// [`OpenError::Header`].
pub(crate) fn header_of(page: &[u8]) -> Result<Header, OpenError> {
    let (header, _) = Header::read_from_prefix(page).map_err(|_| OpenError::Header)?;
    let fits = header.algo == algo::AES_256_GCM
        && header.hdr_version == 1
        && usize::from(header.hdr_sz) == HEADER_BYTES
        && usize::from(header.msg_sz) <= PAYLOAD_BYTES_MAX;
    if fits { Ok(header) } else { Err(OpenError::Header) }
}

/// The sequence number, zero extended to 96 bits.
fn nonce(seqno: u64) -> aes_gcm::Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce.iter_mut().zip(seqno.to_le_bytes()).for_each(|(to, from)| *to = from);
    nonce.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { msg_type: 5, version: 1, vmpck: 2 };

    #[test]
    fn a_message_opens_with_its_key_alone_and_only_as_it_was_sealed() {
        let key = MessageKey::new(&[7; 32]);
        let mut page = [0xee; 4096];
        key.seal(&mut page, 9, KIND, b"what the guest asks").unwrap();
        let sealed = page;
        let (header, payload) = key.open(&mut page).unwrap();
        assert_eq!((header.msg_seqno, header.msg_type, header.msg_vmpck), (9, 5, 2));
        assert_eq!(payload, b"what the guest asks");
        assert_eq!(page[HEADER_BYTES + 19..], [0xee; 4096][HEADER_BYTES + 19..], "behind the message");
        let mut other = sealed;
        assert_eq!(MessageKey::new(&[8; 32]).open(&mut other), Err(OpenError::Tag));
        // Every byte of the header and the payload, but for the reserved ones that are not authenticated.
        for at in (0..16).chain(0x20..0x28).chain(0x30..HEADER_BYTES + 19) {
            let mut changed = sealed;
            changed[at] ^= 1;
            assert!(key.open(&mut changed).is_err(), "byte {at:#x}");
        }
    }

    #[test]
    fn the_longest_payload_fills_the_page_and_a_longer_one_is_refused() {
        let key = MessageKey::new(&[7; 32]);
        let mut page = [0; 4096];
        assert_eq!(key.seal(&mut page, 1, KIND, &[1; PAYLOAD_BYTES_MAX + 1]), None);
        assert_eq!(page, [0; 4096]);
        key.seal(&mut page, 1, KIND, &[1; PAYLOAD_BYTES_MAX]).unwrap();
        assert_eq!(key.open(&mut page).unwrap().1, [1; PAYLOAD_BYTES_MAX]);
        let mut empty = [0; HEADER_BYTES];
        key.seal(&mut empty, 1, KIND, &[]).unwrap();
        assert!(key.open(&mut empty).unwrap().1.is_empty());
    }

    #[test]
    fn the_iv_is_the_sequence_number_and_the_tag_that_of_aes_256_gcm() {
        // Test case 13 of "The Galois/Counter Mode of Operation (GCM)": key, IV and text are zero. The AAD is not, so
        // the cipher text is compared, which does not depend on it: case 14 for 16 zero bytes.
        let key = MessageKey::new(&[0; 32]);
        let mut page = [0; 4096];
        key.seal(&mut page, 0, KIND, &[0; 16]).unwrap();
        let expected =
            [0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18];
        assert_eq!(page[HEADER_BYTES..HEADER_BYTES + 16], expected);
    }
}
