//! The certificates of the SEV platform: PDH, PEK, OCA and CEK.
//!
//! Source: AMD 55766 "SEV API Specification" revision 3.24, appendix C.1 "SEV Certificates".

use super::Status;
use super::identity::{key_to_wire, public_key, signature_of, to_wire};
use super::platform::Platform;
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::psp::identity::{EcdsaPublicKey, EcdsaSignature};
use p384::PublicKey;
use p384::ecdsa::signature::hazmat::{PrehashSigner as _, PrehashVerifier as _};
use p384::ecdsa::{Signature, SigningKey};
use sha2::{Digest as _, Sha256};
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Usage of a key: the owner's authority.
pub(crate) const OCA: u32 = 0x1001;
/// Usage of a key: the platform's endorsement key.
pub(crate) const PEK: u32 = 0x1002;
/// Usage of a key: the platform's Diffie-Hellman key.
pub(crate) const PDH: u32 = 0x1003;
/// Usage of a key: the chip's endorsement key.
pub(crate) const CEK: u32 = 0x1004;
/// Usage of a signature that is not there.
const NONE: u32 = 0x1000;
/// Algorithm: ECDSA with SHA-256.
const ECDSA_SHA256: u32 = 2;
/// Algorithm: ECDH with SHA-256.
const ECDH_SHA256: u32 = 3;
/// Bytes that the signatures cover.
const SIGNED_BYTES: usize = offset_of!(SevCertificate, sig1_usage);

/// A certificate.
///
/// Layout: AMD 55766 revision 3.24, appendix C.1, which has no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SevCertificate {
    /// 1.
    pub version: U32,
    /// Major version of the API.
    pub api_major: u8,
    /// Minor version of the API.
    pub api_minor: u8,
    /// Reserved.
    pub reserved: [u8; 2],
    /// What the key is for.
    pub pubkey_usage: U32,
    /// How it is used.
    pub pubkey_algo: U32,
    /// The key.
    pub pubkey: EcdsaPublicKey,
    /// Whose signature the first one is.
    pub sig1_usage: U32,
    /// How it was made.
    pub sig1_algo: U32,
    /// The first signature.
    pub sig1: EcdsaSignature,
    /// Whose signature the second one is.
    pub sig2_usage: U32,
    /// How it was made.
    pub sig2_algo: U32,
    /// The second signature.
    pub sig2: EcdsaSignature,
}
const _: () = assert!(size_of::<SevCertificate>() == 2084 && SIGNED_BYTES == 1044);

impl SevCertificate {
    /// The key, if it is one of P-384.
    #[must_use]
    pub fn public_key(&self) -> Option<PublicKey> {
        public_key(&self.pubkey).map(PublicKey::from)
    }

    /// Whether the key of this certificate made one of the signatures of another.
    #[must_use]
    pub fn signs(&self, other: &Self) -> bool {
        let digest = Sha256::digest(other.as_bytes().get(..SIGNED_BYTES).unwrap_or_default());
        let Some(key) = public_key(&self.pubkey) else { return false };
        [(other.sig1_usage, &other.sig1), (other.sig2_usage, &other.sig2)].into_iter().any(|(usage, wire)| {
            let signature = signature_of(wire).filter(|_| usage == self.pubkey_usage);
            signature.is_some_and(|signature| key.verify_prehash(&digest, &signature).is_ok())
        })
    }

    /// A certificate of an owner for a platform's PEK, made from the platform's request, and the owner's own.
    #[must_use]
    pub fn own(request: &Self, owner: &SigningKey) -> Option<[Self; 2]> {
        let mut oca = Self::new_zeroed();
        (oca.version, oca.pubkey_usage, oca.pubkey_algo) = (1.into(), OCA.into(), ECDSA_SHA256.into());
        oca.pubkey = key_to_wire(owner);
        oca.sign(OCA, owner)?;
        let mut pek = *request;
        pek.sign(OCA, owner)?;
        Some([pek, oca])
    }

    /// Puts a first signature in.
    fn sign(&mut self, usage: u32, key: &SigningKey) -> Option<()> {
        let digest = Sha256::digest(self.as_bytes().get(..SIGNED_BYTES)?);
        let made: Signature = key.sign_prehash(&digest).ok()?;
        (self.sig1_usage, self.sig1_algo, self.sig1) = (usage.into(), ECDSA_SHA256.into(), to_wire(&made));
        Some(())
    }
}

impl Platform {
    /// A key of the platform. Making a new one moves its generation on.
    pub(crate) fn sev_key(&self, usage: u32) -> Result<SigningKey, Status> {
        let generation = match usage {
            PEK | OCA => self.sev.pek_generation,
            PDH => self.sev.pdh_generation,
            _ => 0,
        };
        let key = self.seed.signing_key("sev platform", &[&usage.to_le_bytes(), &generation.to_le_bytes()]);
        key.ok_or(firmware::HWSEV_RET_PLATFORM)
    }

    /// The public half of a key of the platform.
    pub(crate) fn sev_wire_key(&self, usage: u32) -> Result<EcdsaPublicKey, Status> {
        Ok(key_to_wire(&self.sev_key(usage)?))
    }

    fn sev_certificate(&self, usage: u32, signers: &[u32]) -> Result<SevCertificate, Status> {
        let mut certificate = SevCertificate::new_zeroed();
        certificate.version = 1.into();
        (certificate.api_major, certificate.api_minor) = (self.current.major, self.current.minor);
        certificate.pubkey_usage = usage.into();
        certificate.pubkey_algo = if usage == PDH { ECDH_SHA256 } else { ECDSA_SHA256 }.into();
        certificate.pubkey = key_to_wire(&self.sev_key(usage)?);
        let digest = Sha256::digest(certificate.as_bytes().get(..SIGNED_BYTES).unwrap_or_default());
        let sign = |signer: u32| -> Result<EcdsaSignature, Status> {
            let made: Signature =
                self.sev_key(signer)?.sign_prehash(&digest).map_err(|_| firmware::HWSEV_RET_PLATFORM)?;
            Ok(to_wire(&made))
        };
        (certificate.sig1_usage, certificate.sig2_usage) = (NONE.into(), NONE.into());
        if let [first, rest @ ..] = signers {
            certificate.sig1_usage = (*first).into();
            certificate.sig1_algo = ECDSA_SHA256.into();
            certificate.sig1 = sign(*first)?;
            if let [second, ..] = rest {
                certificate.sig2_usage = (*second).into();
                certificate.sig2_algo = ECDSA_SHA256.into();
                certificate.sig2 = sign(*second)?;
            }
        }
        Ok(certificate)
    }

    /// The PDH's certificate, and its chain: PEK, OCA, CEK.
    pub(crate) fn pdh_chain(&self) -> Result<(Vec<u8>, Vec<u8>), Status> {
        let pdh = self.sev_certificate(PDH, &[PEK])?;
        let mut chain = self.sev_certificate(PEK, &[OCA, CEK])?.as_bytes().to_vec();
        chain.extend_from_slice(self.sev_certificate(OCA, &[OCA])?.as_bytes());
        chain.extend_from_slice(self.sev_certificate(CEK, &[])?.as_bytes());
        Ok((pdh.as_bytes().to_vec(), chain))
    }

    /// The request to sign the PEK.
    pub(crate) fn pek_csr(&self) -> Result<Vec<u8>, Status> {
        Ok(self.sev_certificate(PEK, &[])?.as_bytes().to_vec())
    }
}
