//! The session between a guest's owner, or another platform, and the firmware: how the transport keys travel.
//!
//! Source: AMD 55766 "SEV API Specification" revision 3.24, section 2.2 "Keys" and chapter 6, `LAUNCH_START`.

use aes_gcm::aes::Aes128;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use hmac::{Hmac, Mac as _};
use p384::ecdh::diffie_hellman;
use p384::{PublicKey, SecretKey};
use sha2::Sha256;
use std::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Ctr = ctr::Ctr128BE<Aes128>;

/// Transport encryption key and transport integrity key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportKeys {
    /// Encrypts packets.
    pub tek: [u8; 16],
    /// Authenticates packets, policies and measurements.
    pub tik: [u8; 16],
}

/// The session data behind `session_uaddr`.
///
/// Layout: AMD 55766 revision 3.24, table "Session Data Buffer".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Session {
    /// Goes into the master secret.
    pub nonce: [u8; 16],
    /// TEK and TIK, encrypted.
    pub wrap_tk: [u8; 32],
    /// The start of their counter.
    pub wrap_iv: [u8; 16],
    /// Authenticates them.
    pub wrap_mac: [u8; 32],
    /// Authenticates the policy.
    pub policy_mac: [u8; 32],
}
const _: () = assert!(size_of::<Session>() == 128 && offset_of!(Session, wrap_iv) == 48);

/// What stands before a packet: `hdr_uaddr`.
///
/// Layout: AMD 55766 revision 3.24, table "Packet Header".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PacketHeader {
    /// Bit 0: the data is compressed, which the model does not do.
    pub flags: u32,
    /// The start of the counter.
    pub iv: [u8; 16],
    /// Authenticates header and data.
    pub mac: [u8; 32],
}
const _: () = assert!(size_of::<PacketHeader>() == 52 && offset_of!(PacketHeader, mac) == 20);

/// What the contents of a packet are for, which goes into its MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketKind {
    /// `LAUNCH_UPDATE_SECRET`.
    Secret = 1,
    /// `SEND_UPDATE_DATA` and `RECEIVE_UPDATE_DATA`.
    Data = 2,
}

/// HMAC-SHA256 over parts.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = <Hmac<Sha256> as hmac::Mac>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The key derivation of NIST SP 800-108 in counter mode with HMAC-SHA256, for one block.
fn derive(key: &[u8], label: &str, context: &[u8], bits: u32) -> [u8; 32] {
    mac(key, &[&1u32.to_le_bytes(), label.as_bytes(), &[0], context, &bits.to_le_bytes()])
}

struct WrappingKeys {
    kek: [u8; 16],
    kik: [u8; 32],
}

impl WrappingKeys {
    /// The keys that two holders of a key each agree on.
    fn agree(secret: &SecretKey, peer: &PublicKey, nonce: &[u8; 16]) -> Self {
        let shared = diffie_hellman(secret.to_nonzero_scalar(), peer.as_affine());
        let master = derive(shared.raw_secret_bytes(), "sev-master-secret", nonce, 128);
        let (master, _) = master.split_at(16);
        let kek = derive(master, "sev-kek", &[], 128);
        Self { kek: *kek.first_chunk().unwrap_or(&[0; 16]), kik: derive(master, "sev-kik", &[], 256) }
    }
}

fn crypt(key: &[u8; 16], iv: &[u8; 16], data: &mut [u8]) {
    Ctr::new(key.into(), iv.into()).apply_keystream(data);
}

impl Session {
    /// Wraps keys for the holder of another key.
    #[must_use]
    pub fn wrap(
        keys: TransportKeys,
        policy: u32,
        [nonce, iv]: [[u8; 16]; 2],
        secret: &SecretKey,
        peer: &PublicKey,
    ) -> Self {
        let wrapping = WrappingKeys::agree(secret, peer, &nonce);
        let mut wrapped = [0; 32];
        wrapped.iter_mut().zip(keys.tek.iter().chain(&keys.tik)).for_each(|(to, from)| *to = *from);
        crypt(&wrapping.kek, &iv, &mut wrapped);
        let policy_mac = mac(&keys.tik, &[&policy.to_le_bytes()]);
        Self { nonce, wrap_tk: wrapped, wrap_iv: iv, wrap_mac: mac(&wrapping.kik, &[&wrapped]), policy_mac }
    }

    /// Unwraps the keys. `None` if they were wrapped for somebody else, or for another policy.
    #[must_use]
    pub fn open(&self, policy: u32, secret: &SecretKey, peer: &PublicKey) -> Option<TransportKeys> {
        let wrapping = WrappingKeys::agree(secret, peer, &self.nonce);
        if mac(&wrapping.kik, &[&self.wrap_tk]) != self.wrap_mac {
            return None;
        }
        let mut keys = self.wrap_tk;
        crypt(&wrapping.kek, &self.wrap_iv, &mut keys);
        let (tek, tik) = keys.split_first_chunk()?;
        let keys = TransportKeys { tek: *tek, tik: *tik.first_chunk()? };
        (mac(&keys.tik, &[&policy.to_le_bytes()]) == self.policy_mac).then_some(keys)
    }
}

impl TransportKeys {
    /// Encrypts a packet in place and returns its header. A secret is bound to the measurement of its guest.
    #[must_use]
    pub fn seal(&self, kind: PacketKind, iv: [u8; 16], measurement: &[u8], data: &mut [u8]) -> PacketHeader {
        crypt(&self.tek, &iv, data);
        PacketHeader { flags: 0, iv, mac: self.packet_mac(kind, 0, &iv, measurement, data) }
    }

    /// Decrypts a packet in place. `None`, and no change, if it is not authentic.
    pub fn open(
        &self,
        kind: PacketKind,
        header: &PacketHeader,
        measurement: &[u8],
        data: &mut [u8],
    ) -> Option<()> {
        if self.packet_mac(kind, header.flags, &header.iv, measurement, data) != header.mac {
            return None;
        }
        crypt(&self.tek, &header.iv, data);
        Some(())
    }

    fn packet_mac(
        &self,
        kind: PacketKind,
        flags: u32,
        iv: &[u8],
        measurement: &[u8],
        data: &[u8],
    ) -> [u8; 32] {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes();
        mac(&self.tik, &[&[kind as u8], &flags.to_le_bytes(), iv, &len, &len, data, measurement])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_slice(&[byte; 48]).unwrap()
    }

    #[test]
    fn keys_open_for_their_peer_and_policy_alone() {
        let keys = TransportKeys { tek: [1; 16], tik: [2; 16] };
        let (owner, platform) = (key(3), key(4));
        let session = Session::wrap(keys, 5, [[6; 16], [7; 16]], &owner, &platform.public_key());
        assert_eq!(session.open(5, &platform, &owner.public_key()), Some(keys));
        assert_eq!(session.open(4, &platform, &owner.public_key()), None);
        assert_eq!(session.open(5, &key(5), &owner.public_key()), None);
        let mut changed = session;
        changed.wrap_tk[0] ^= 1;
        assert_eq!(changed.open(5, &platform, &owner.public_key()), None);
    }

    #[test]
    fn a_packet_opens_as_what_it_was_sealed_for() {
        let keys = TransportKeys { tek: [1; 16], tik: [2; 16] };
        let mut data = *b"sixteen or more bytes of a page.";
        let header = keys.seal(PacketKind::Data, [9; 16], b"", &mut data);
        let sealed = data;
        assert_eq!(keys.open(PacketKind::Secret, &header, b"", &mut data), None);
        assert_eq!(keys.open(PacketKind::Data, &header, b"measured", &mut data), None);
        assert_eq!(data, sealed);
        assert_eq!(keys.open(PacketKind::Data, &header, b"", &mut data), Some(()));
        assert_eq!(&data, b"sixteen or more bytes of a page.");
    }
}
