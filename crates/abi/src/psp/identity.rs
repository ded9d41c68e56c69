//! ID block, ID authentication and the format of their keys and signatures.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI" revision 1.58, section 8.18 "`SNP_LAUNCH_FINISH`" and
//! chapter 10 "Digital Signatures".

use crate::kvm::sev::snp::{ID_AUTH_BYTES, ID_BLOCK_BYTES};
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `ID_BLOCK.VERSION` that the firmware takes.
pub const ID_BLOCK_VERSION: u32 = 1;
/// `EcdsaPublicKey::curve` of P-384.
pub const CURVE_P384: u32 = 2;

/// What the owner of a guest says that the guest is.
///
/// Layout: AMD 56860 revision 1.58, table "Structure of the ID Block".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IdBlock {
    /// The launch digest that the guest has to have.
    pub ld: [u8; 48],
    /// Family of the guest.
    pub family_id: [u8; 16],
    /// Image of the guest.
    pub image_id: [u8; 16],
    /// [`ID_BLOCK_VERSION`].
    pub version: u32,
    /// Security version of the guest.
    pub guest_svn: u32,
    /// The policy that the guest has to have, as in [`crate::kvm::sev::snp::policy`].
    pub policy: u64,
}
const _: () = assert!(size_of::<IdBlock>() == ID_BLOCK_BYTES && offset_of!(IdBlock, family_id) == 0x30);
const _: () = assert!(offset_of!(IdBlock, image_id) == 0x40 && offset_of!(IdBlock, version) == 0x50);
const _: () = assert!(offset_of!(IdBlock, guest_svn) == 0x54 && offset_of!(IdBlock, policy) == 0x58);

/// An ECDSA signature.
///
/// Layout: AMD 56860 revision 1.58, table "Format for an ECDSA P-384 with SHA-384 Signature".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EcdsaSignature {
    /// R, little endian, zero extended.
    pub r: [u8; 72],
    /// S, little endian, zero extended.
    pub s: [u8; 72],
    /// Reserved.
    pub reserved: [u8; 368],
}
const _: () = assert!(size_of::<EcdsaSignature>() == 512 && offset_of!(EcdsaSignature, s) == 72);

/// A public key.
///
/// Layout: AMD 56860 revision 1.58, table "Format for an ECDSA P-384 Public Key".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EcdsaPublicKey {
    /// [`CURVE_P384`].
    pub curve: u32,
    /// X, little endian, zero extended.
    pub qx: [u8; 72],
    /// Y, little endian, zero extended.
    pub qy: [u8; 72],
    /// Reserved.
    pub reserved: [u8; 880],
}
const _: () = assert!(size_of::<EcdsaPublicKey>() == 0x404 && offset_of!(EcdsaPublicKey, qx) == 4);
const _: () = assert!(offset_of!(EcdsaPublicKey, qy) == 76);

/// The keys and signatures that stand behind an [`IdBlock`].
///
/// Layout: AMD 56860 revision 1.58, table "ID Authentication Information Structure".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IdAuth {
    /// Algorithm of the ID key, as in [`crate::report::signature_algo`].
    pub id_key_algo: u32,
    /// Algorithm of the author key, as in [`crate::report::signature_algo`].
    pub auth_key_algo: u32,
    /// Reserved.
    pub reserved0: [u8; 0x38],
    /// The ID key's signature of the ID block.
    pub id_block_sig: EcdsaSignature,
    /// The ID key.
    pub id_key: EcdsaPublicKey,
    /// Reserved.
    pub reserved1: [u8; 0x3c],
    /// The author key's signature of the ID key.
    pub id_key_sig: EcdsaSignature,
    /// The author key.
    pub author_key: EcdsaPublicKey,
    /// Reserved.
    pub reserved2: [u8; 0x37c],
}
const _: () = assert!(size_of::<IdAuth>() == ID_AUTH_BYTES && offset_of!(IdAuth, id_block_sig) == 0x40);
const _: () = assert!(offset_of!(IdAuth, id_key) == 0x240 && offset_of!(IdAuth, id_key_sig) == 0x680);
const _: () = assert!(offset_of!(IdAuth, author_key) == 0x880 && offset_of!(IdAuth, reserved2) == 0xc84);
