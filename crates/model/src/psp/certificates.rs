//! The certificates behind a report: ARK, ASK or ASVK, and VCEK or VLEK, in the form of AMD's.
//!
//! Source: AMD 57230 "VCEK Certificate and KDS Interface Specification" revision 1.00, chapter 3.

use super::PspConfig;
use super::platform::{Endorser, Platform};
use super::seed::Seed;
use exeunt_abi::report::tcb::{TcbMilan, TcbTurin};
use p384::PublicKey;
use p384::ecdsa::VerifyingKey;
use p384::pkcs8::EncodePublicKey as _;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::pss::SigningKey;
use rsa::signature::{RandomizedSigner as _, SignatureEncoding as _};
use rsa::{RsaPrivateKey, RsaPublicKey};
use sha2::Sha384;
use std::str::FromStr as _;
use std::sync::{Arc, OnceLock};
use x509_cert::der::asn1::{Any, BitString, Ia5String, ObjectIdentifier, OctetString, UtcTime};
use x509_cert::der::{DateTime, Decode as _, Encode as _};
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};
use x509_cert::{Certificate, TbsCertificate, Version};

/// What the names of issuer and subject begin with.
pub(crate) const SIMULATED: &str = "SIMULATED";

/// RSASSA-PSS.
pub(crate) const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// Its parameters as AMD's certificates have them: SHA-384, MGF1 with SHA-384, a salt of 48 bytes, trailer 1.
const PSS_PARAMETERS: &[u8] = &[
    0x30, 0x39, 0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02,
    0x05, 0x00, 0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08,
    0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa2, 0x03,
    0x02, 0x01, 0x30, 0xa3, 0x03, 0x02, 0x01, 0x01,
];

/// Extensions of a VCEK and a VLEK, below AMD's arc.
pub(crate) mod oid {
    use x509_cert::der::asn1::ObjectIdentifier;

    pub(crate) const STRUCT_VERSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.1");
    pub(crate) const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
    pub(crate) const BL_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
    pub(crate) const TEE_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
    pub(crate) const SNP_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
    pub(crate) const UCODE_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
    pub(crate) const FMC_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
    pub(crate) const HW_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
    pub(crate) const CSP_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");
}

/// Why a certificate cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateError {
    /// A given key is no RSA private key in PKCS #8.
    Key,
    /// There is no key to certify: no VLEK is loaded.
    NoKey,
    /// A field cannot be encoded.
    Encoding,
}

impl From<x509_cert::der::Error> for CertificateError {
    fn from(_: x509_cert::der::Error) -> Self {
        Self::Encoding
    }
}

/// The keys above those of the chip: they stand for AMD's.
#[derive(Clone, Debug)]
pub struct Authority(Arc<Keys>);

#[derive(Debug)]
struct Keys {
    /// The ARK.
    root: RsaPrivateKey,
    /// The ASK, which signs VCEKs.
    vcek: RsaPrivateKey,
    /// The ASVK, which signs VLEKs.
    vlek: RsaPrivateKey,
}

impl Authority {
    /// An authority with keys of one's own, as PEM: root, signer of VCEKs, signer of VLEKs. Its certificates say SIMULATED
    /// all the same.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Key`].
    pub fn from_pem(pem: [&str; 3]) -> Result<Self, CertificateError> {
        let [root, ask, signer_of_vlek] = pem.map(RsaPrivateKey::from_pkcs8_pem);
        let wrong = |_| CertificateError::Key;
        let keys = Keys {
            root: root.map_err(wrong)?,
            vcek: ask.map_err(wrong)?,
            vlek: signer_of_vlek.map_err(wrong)?,
        };
        Ok(Self(Arc::new(keys)))
    }

    /// The keys of this repository, which are public.
    pub(crate) fn simulated() -> Result<Self, CertificateError> {
        static KEYS: OnceLock<Result<Authority, CertificateError>> = OnceLock::new();
        let keys = || {
            Self::from_pem([
                include_str!("simulated/ark.pem"),
                include_str!("simulated/ask.pem"),
                include_str!("simulated/asvk.pem"),
            ])
        };
        KEYS.get_or_init(keys).clone()
    }
}

/// ARK, and ASK or ASVK, in DER.
pub(crate) fn authority(platform: &Platform, endorser: Endorser) -> Result<[Vec<u8>; 2], CertificateError> {
    let keys = keys(platform)?;
    let (config, seed) = (&platform.config, &platform.seed);
    let sign = |subject: &str, key: &RsaPrivateKey| {
        let key_info = SubjectPublicKeyInfoOwned::from_key(RsaPublicKey::from(key));
        let request = Request {
            subject,
            issuer: "ARK",
            key: key_info.map_err(|_| CertificateError::Encoding)?,
            extensions: None,
        };
        request.sign(config, seed, &keys.0.root)
    };
    let (name, key) = signer(&keys, endorser);
    Ok([sign("ARK", &keys.0.root)?, sign(name, key)?])
}

/// The certificate of a VCEK or a VLEK, in DER.
pub(crate) fn endorsement(
    platform: &Platform,
    endorser: Endorser,
    key: &VerifyingKey,
) -> Result<Vec<u8>, CertificateError> {
    let key = PublicKey::from(key).to_public_key_der().map_err(|_| CertificateError::Encoding)?;
    let subject = if endorser == Endorser::Vcek { "VCEK" } else { "VLEK" };
    let keys = keys(platform)?;
    let (issuer, signer) = signer(&keys, endorser);
    let request = Request {
        subject,
        issuer,
        key: SubjectPublicKeyInfoOwned::from_der(key.as_bytes())?,
        extensions: Some(extensions(platform, endorser)?),
    };
    request.sign(&platform.config, &platform.seed, signer)
}

fn keys(platform: &Platform) -> Result<Authority, CertificateError> {
    platform.authority.clone().map_or_else(Authority::simulated, Ok)
}

fn signer(keys: &Authority, endorser: Endorser) -> (&'static str, &RsaPrivateKey) {
    match endorser {
        Endorser::Vcek => ("SEV", &keys.0.vcek),
        Endorser::Vlek => ("SEV-VLEK", &keys.0.vlek),
    }
}

struct Request<'a> {
    subject: &'a str,
    issuer: &'a str,
    key: SubjectPublicKeyInfoOwned,
    extensions: Option<Vec<Extension>>,
}

impl Request<'_> {
    fn sign(self, config: &PspConfig, seed: &Seed, key: &RsaPrivateKey) -> Result<Vec<u8>, CertificateError> {
        let algorithm =
            AlgorithmIdentifierOwned { oid: RSASSA_PSS, parameters: Some(Any::from_der(PSS_PARAMETERS)?) };
        let tbs = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&[1])?,
            signature: algorithm.clone(),
            issuer: name(self.issuer, config)?,
            validity: validity()?,
            subject: name(self.subject, config)?,
            subject_public_key_info: self.key,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: self.extensions,
        };
        let message = tbs.to_der()?;
        let mut salt = seed.stream("certificate salt", &[&message]);
        let signature = SigningKey::<Sha384>::new(key.clone())
            .try_sign_with_rng(&mut salt, &message)
            .map_err(|_| CertificateError::Encoding)?;
        let certificate = Certificate {
            tbs_certificate: tbs,
            signature_algorithm: algorithm,
            signature: BitString::from_bytes(&signature.to_bytes())?,
        };
        Ok(certificate.to_der()?)
    }
}

/// The names of AMD's certificates, with SIMULATED before each and nobody's name as the organisation.
fn name(common: &str, config: &PspConfig) -> Result<Name, CertificateError> {
    let product = config.product.name();
    let text = format!("CN={SIMULATED} {common}-{product},O={SIMULATED} by exeunt,OU={SIMULATED}");
    Ok(Name::from_str(&text)?)
}

/// From 2020 to 2049, which is the last year that `UTCTime` has.
fn validity() -> Result<Validity, CertificateError> {
    let at = |year| {
        Ok::<_, CertificateError>(Time::UtcTime(UtcTime::from_date_time(DateTime::new(
            year, 1, 1, 0, 0, 0,
        )?)?))
    };
    Ok(Validity { not_before: at(2020)?, not_after: at(2049)? })
}

fn extensions(platform: &Platform, endorser: Endorser) -> Result<Vec<Extension>, CertificateError> {
    let mut list = vec![integer(oid::STRUCT_VERSION, 1)?];
    let product = Ia5String::new(platform.config.product.name())?.to_der()?;
    list.push(extension(oid::PRODUCT_NAME, product)?);
    for (id, value) in parts(platform.reported_tcb, platform.config.product.is_turin()) {
        list.push(integer(id, value)?);
    }
    if endorser == Endorser::Vlek {
        let csp = format!("{SIMULATED} {:02x?}", platform.vlek.unwrap_or_default());
        list.push(extension(oid::CSP_ID, Ia5String::new(&csp)?.to_der()?)?);
    } else {
        // The bytes as they are: AMD's certificates do not wrap them once more.
        let chip = platform.chip_id();
        let bytes = if platform.config.product.is_turin() { 8 } else { chip.len() };
        list.push(extension(oid::HW_ID, chip.get(..bytes).unwrap_or_default().to_vec())?);
    }
    Ok(list)
}

/// The security versions of a TCB, each with the extension that holds it.
pub(crate) fn parts(tcb: [u8; 8], is_turin: bool) -> Vec<(ObjectIdentifier, u8)> {
    if is_turin {
        let TcbTurin { fmc, boot_loader, tee, snp, microcode, .. } = zerocopy::transmute!(tcb);
        let parts = [boot_loader, tee, snp, microcode, fmc];
        return [oid::BL_SPL, oid::TEE_SPL, oid::SNP_SPL, oid::UCODE_SPL, oid::FMC_SPL]
            .into_iter()
            .zip(parts)
            .collect();
    }
    let TcbMilan { boot_loader, tee, snp, microcode, .. } = zerocopy::transmute!(tcb);
    let parts = [boot_loader, tee, snp, microcode];
    [oid::BL_SPL, oid::TEE_SPL, oid::SNP_SPL, oid::UCODE_SPL].into_iter().zip(parts).collect()
}

fn integer(id: ObjectIdentifier, value: u8) -> Result<Extension, CertificateError> {
    extension(id, value.to_der()?)
}

fn extension(id: ObjectIdentifier, value: Vec<u8>) -> Result<Extension, CertificateError> {
    Ok(Extension { extn_id: id, critical: false, extn_value: OctetString::new(value)? })
}
