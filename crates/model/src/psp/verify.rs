//! Whether a report holds: its signature, and the chain of certificates up to a root that the caller trusts.

use super::certificates::{RSASSA_PSS, SIMULATED, oid, parts};
use super::identity::signature_of;
use exeunt_abi::psp::identity::EcdsaSignature;
use exeunt_abi::report::tcb::FAMILY_ZEN5;
use exeunt_proto::report::{KnownReport, Report, SigningKey};
use p384::ecdsa::VerifyingKey;
use p384::ecdsa::signature::Verifier as _;
use rsa::RsaPublicKey;
use sha2::Sha384;
use std::fmt;
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::spki::DecodePublicKey as _;
use zerocopy::transmute;

/// What a report is verified against.
#[derive(Clone, Copy, Debug)]
pub struct Verifier<'a> {
    /// The root that is trusted, in DER: the ARK.
    pub ark: &'a [u8],
    /// Whether certificates of the model are taken. They vouch for nothing, so tests alone have a reason.
    pub allow_simulated: bool,
}

/// Why a report does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// The bytes are no report of a known version.
    Report,
    /// A certificate does not parse: the ARK, the ASK or the VEK.
    Certificate(&'static str),
    /// A certificate was made by the model.
    Simulated,
    /// A certificate is not signed by the one above it, with RSASSA-PSS and SHA-384.
    Chain(&'static str),
    /// The report says that another key signed it, or none.
    SigningKey,
    /// The certificate is for another TCB than the report gives.
    Tcb,
    /// The certificate is for another chip than the report gives.
    Chip,
    /// The key of the certificate did not sign the report.
    Signature,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Report => f.write_str("the bytes are no report of a known version"),
            Self::Certificate(which) => write!(f, "the certificate of the {which} does not parse"),
            Self::Simulated => f.write_str("the certificates are SIMULATED and vouch for nothing"),
            Self::Chain(which) => {
                write!(f, "the certificate of the {which} is not signed by the one above it")
            }
            Self::SigningKey => f.write_str("the report says that another key signed it, or none"),
            Self::Tcb => f.write_str("the certificate is for another TCB"),
            Self::Chip => f.write_str("the certificate is for another chip"),
            Self::Signature => f.write_str("the report is not signed by the key of the certificate"),
        }
    }
}

impl std::error::Error for VerifyError {}

impl Verifier<'_> {
    /// Verifies a report with the ASK (or ASVK) and the VCEK (or VLEK) that came with it, in DER. Certificates have no
    /// clock to be held against here: validity is the caller's to check, as revocation is.
    ///
    /// # Errors
    ///
    /// The first check that fails, in the order of the variants.
    pub fn verify<'r>(
        &self,
        report: &'r [u8],
        ask: &[u8],
        vek: &[u8],
    ) -> Result<KnownReport<'r>, VerifyError> {
        let report = Report::parse(report).ok().and_then(Report::known).ok_or(VerifyError::Report)?;
        let parse = |der, which| Certificate::from_der(der).map_err(|_| VerifyError::Certificate(which));
        let (ark, ask, vek) = (parse(self.ark, "ARK")?, parse(ask, "ASK")?, parse(vek, "VEK")?);
        if !self.allow_simulated && [&ark, &ask, &vek].into_iter().any(is_simulated) {
            return Err(VerifyError::Simulated);
        }
        is_signed(&ark, &ark).ok_or(VerifyError::Chain("ARK"))?;
        is_signed(&ask, &ark).ok_or(VerifyError::Chain("ASK"))?;
        is_signed(&vek, &ask).ok_or(VerifyError::Chain("VEK"))?;
        let is_vlek = extension(&vek, oid::CSP_ID).is_some();
        let expected = if is_vlek { SigningKey::Vlek } else { SigningKey::Vcek };
        if report.signing_key() != expected {
            return Err(VerifyError::SigningKey);
        }
        check_tcb(&report, &vek)?;
        if !is_vlek {
            check_chip(&report, &vek)?;
        }
        let signature: EcdsaSignature = transmute!(report.wire.signature);
        let signature = signature_of(&signature).ok_or(VerifyError::Signature)?;
        let key = vek.tbs_certificate.subject_public_key_info.subject_public_key.raw_bytes();
        VerifyingKey::from_sec1_bytes(key)
            .and_then(|key| key.verify(report.signed_bytes(), &signature))
            .map_err(|_| VerifyError::Signature)?;
        Ok(report)
    }
}

fn is_simulated(certificate: &Certificate) -> bool {
    let names = [&certificate.tbs_certificate.issuer, &certificate.tbs_certificate.subject];
    names.into_iter().any(|name| name.to_string().contains(SIMULATED))
}

/// `Some` if the key of `signer` signed `certificate`.
fn is_signed(certificate: &Certificate, signer: &Certificate) -> Option<()> {
    let (tbs, signer) = (&certificate.tbs_certificate, &signer.tbs_certificate);
    if certificate.signature_algorithm.oid != RSASSA_PSS || tbs.issuer != signer.subject {
        return None;
    }
    let key = signer.subject_public_key_info.to_der().ok()?;
    let key = rsa::pss::VerifyingKey::<Sha384>::new(RsaPublicKey::from_public_key_der(&key).ok()?);
    let signature = rsa::pss::Signature::try_from(certificate.signature.as_bytes()?).ok()?;
    key.verify(&tbs.to_der().ok()?, &signature).ok()
}

fn extension(certificate: &Certificate, id: ObjectIdentifier) -> Option<&[u8]> {
    let extensions = certificate.tbs_certificate.extensions.as_ref()?;
    extensions
        .iter()
        .find(|extension| extension.extn_id == id)
        .map(|extension| extension.extn_value.as_bytes())
}

fn check_tcb(report: &KnownReport<'_>, vek: &Certificate) -> Result<(), VerifyError> {
    let is_turin = report.cpuid().is_some_and(|cpuid| cpuid.family >= FAMILY_ZEN5);
    for (id, version) in parts(report.wire.reported_tcb, is_turin) {
        let certified = extension(vek, id).and_then(|value| u8::from_der(value).ok());
        if certified != Some(version) {
            return Err(VerifyError::Tcb);
        }
    }
    Ok(())
}

/// A host that hides its chip leaves nothing to compare.
fn check_chip(report: &KnownReport<'_>, vek: &Certificate) -> Result<(), VerifyError> {
    let Some(chip) = report.chip_id() else { return Ok(()) };
    let certified = extension(vek, oid::HW_ID).unwrap_or_default();
    let same = !certified.is_empty() && chip.starts_with(certified);
    let rest_is_zero = chip.iter().skip(certified.len()).all(|byte| *byte == 0);
    if same && rest_is_zero { Ok(()) } else { Err(VerifyError::Chip) }
}
