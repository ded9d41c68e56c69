//! The ID block: who signed for the guest, and what of it reports say.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI" revision 1.58, section 8.18 "`SNP_LAUNCH_FINISH`".

use super::Status;
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::psp::identity::{
    CURVE_P384, EcdsaPublicKey, EcdsaSignature, ID_BLOCK_VERSION, IdAuth, IdBlock,
};
use exeunt_abi::report::signature_algo;
use p384::EncodedPoint;
use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha384};
use zerocopy::{FromZeros, IntoBytes};

/// Bytes of a coordinate and of a scalar of P-384.
const SCALAR_BYTES: usize = 48;

/// What the firmware keeps of an ID block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) family_id: [u8; 16],
    pub(crate) image_id: [u8; 16],
    pub(crate) guest_svn: u32,
    pub(crate) id_key_digest: [u8; 48],
    pub(crate) author_key_digest: Option<[u8; 48]>,
}

impl Identity {
    /// Checks an ID block against the guest and against its signatures.
    pub(crate) fn check(
        block: &IdBlock,
        auth: &IdAuth,
        has_author: bool,
        digest: [u8; 48],
        policy: u64,
    ) -> Result<Self, Status> {
        if block.version != ID_BLOCK_VERSION || auth.id_key_algo != signature_algo::ECDSA_P384_SHA384 {
            return Err(firmware::INVALID_PARAM);
        }
        if has_author && auth.auth_key_algo != signature_algo::ECDSA_P384_SHA384 {
            return Err(firmware::INVALID_PARAM);
        }
        if block.policy != policy {
            return Err(firmware::POLICY_FAILURE);
        }
        if block.ld != digest {
            return Err(firmware::BAD_MEASUREMENT);
        }
        verify(&auth.id_key, block.as_bytes(), &auth.id_block_sig)?;
        if has_author {
            verify(&auth.author_key, auth.id_key.as_bytes(), &auth.id_key_sig)?;
        }
        let digest_of = |key: &EcdsaPublicKey| Sha384::digest(key.as_bytes()).into();
        Ok(Self {
            family_id: block.family_id,
            image_id: block.image_id,
            guest_svn: block.guest_svn,
            id_key_digest: digest_of(&auth.id_key),
            author_key_digest: has_author.then(|| digest_of(&auth.author_key)),
        })
    }
}

fn verify(key: &EcdsaPublicKey, message: &[u8], signature: &EcdsaSignature) -> Result<(), Status> {
    let key = public_key(key).ok_or(firmware::INVALID_PARAM)?;
    let signature = signature_of(signature).ok_or(firmware::BAD_SIGNATURE)?;
    key.verify(message, &signature).map_err(|_| firmware::BAD_SIGNATURE)
}

/// A key as the firmware reads it.
pub(crate) fn public_key(key: &EcdsaPublicKey) -> Option<VerifyingKey> {
    if key.curve != CURVE_P384 {
        return None;
    }
    let (x, y) = (big_endian(&key.qx)?, big_endian(&key.qy)?);
    let point = EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false);
    VerifyingKey::from_encoded_point(&point).ok()
}

/// A signature as the firmware writes it.
pub(crate) fn signature_of(wire: &EcdsaSignature) -> Option<Signature> {
    Signature::from_scalars(big_endian(&wire.r)?, big_endian(&wire.s)?).ok()
}

/// A number of 72 bytes in little endian that has to fit into 48.
fn big_endian(little: &[u8; 72]) -> Option<[u8; SCALAR_BYTES]> {
    let (low, high) = little.split_first_chunk::<SCALAR_BYTES>()?;
    let mut big = *low;
    big.reverse();
    high.iter().all(|byte| *byte == 0).then_some(big)
}

fn little_endian(big: &[u8]) -> [u8; 72] {
    let mut little = [0; 72];
    little.iter_mut().zip(big.iter().rev()).for_each(|(to, from)| *to = *from);
    little
}

/// A signature in the format of the firmware.
pub(crate) fn to_wire(signature: &Signature) -> EcdsaSignature {
    let (r, s) = signature.split_bytes();
    EcdsaSignature { r: little_endian(&r), s: little_endian(&s), reserved: [0; 368] }
}

/// What the owner of a guest does before the launch: an ID block with the signatures of an ID key and, if there is one,
/// an author key.
#[must_use]
pub fn sign_id_block(block: &IdBlock, id_key: &SigningKey, author_key: Option<&SigningKey>) -> IdAuth {
    use p384::ecdsa::signature::Signer as _;
    let mut auth = IdAuth::new_zeroed();
    auth.id_key_algo = signature_algo::ECDSA_P384_SHA384;
    auth.id_key = key_to_wire(id_key);
    auth.id_block_sig = to_wire(&id_key.sign(block.as_bytes()));
    if let Some(author_key) = author_key {
        auth.auth_key_algo = signature_algo::ECDSA_P384_SHA384;
        auth.author_key = key_to_wire(author_key);
        auth.id_key_sig = to_wire(&author_key.sign(auth.id_key.as_bytes()));
    }
    auth
}

/// A key in the format of the firmware.
pub(crate) fn key_to_wire(key: &SigningKey) -> EcdsaPublicKey {
    let point = key.verifying_key().to_encoded_point(false);
    let coordinate = |bytes: Option<&p384::FieldBytes>| bytes.map_or([0; 72], |bytes| little_endian(bytes));
    EcdsaPublicKey {
        curve: CURVE_P384,
        qx: coordinate(point.x()),
        qy: coordinate(point.y()),
        reserved: [0; 880],
    }
}
