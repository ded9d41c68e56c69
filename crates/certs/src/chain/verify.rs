//! Whether a chain holds: each certificate is signed by the one above, the root is one that the caller trusts, and the
//! key is the one that signs this chip's reports at its reported TCB.

use super::certificate::{Certificate, CertificateError, Endorsement, Role};
use crate::identity::{ChipId, TcbText, hex};
use exeunt::certs::CheckedTable;
use exeunt_abi::psp::identity::EcdsaSignature;
use exeunt_proto::certs::{Guid, Table};
use exeunt_proto::report::{KnownReport, Report, ReportError, SigningKey, TcbVersion};
use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{Signature, VerifyingKey};
use rsa::RsaPublicKey;
use rsa::traits::PublicKeyParts as _;
use sha2::Sha384;
use std::time::SystemTime;
use thiserror::Error;
use x509_cert::der::Encode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::DecodePublicKey as _;
use zerocopy::transmute;

/// RSASSA-PSS.
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// Bytes of the modulus of an RSA key with 4096 bits.
const RSA_BYTES: usize = 512;
/// Keys of reports, and those above them, of one table.
const MAX_CERTIFICATES: usize = 16;
/// Bytes of a coordinate and of a scalar of P-384.
const SCALAR_BYTES: usize = 48;

/// Why a chain or a report does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChainError {
    /// An entry of the table does not parse.
    #[error("the entry {guid} of the table: {source}")]
    Entry {
        /// Its kind.
        guid: Guid,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// An entry of the table holds another certificate than its kind says.
    #[error("the entry {guid} of the table holds the certificate of the {role}")]
    Misplaced {
        /// Its kind.
        guid: Guid,
        /// What it holds.
        role: Role,
    },
    /// More certificates than a table can need. Entries may name the same bytes as often as they like.
    #[error("the table has more than {MAX_CERTIFICATES} certificates")]
    TooMany,
    /// A certificate is not there, or none that issued the one below.
    #[error("there is no certificate of the {role}")]
    Missing {
        /// What is not there.
        role: Role,
    },
    /// A certificate is simulated.
    #[error("the certificate of the {role} is SIMULATED and vouches for nothing")]
    Simulated {
        /// Which.
        role: Role,
    },
    /// The root is not the one that the caller trusts.
    #[error("the root with the SHA-256 {} is not the trusted one", hex(.fingerprint))]
    Root {
        /// SHA-256 of the root that is there.
        fingerprint: [u8; 32],
    },
    /// The key of a signer is not RSA with 4096 bits.
    #[error("the key of the {role} is not RSA with 4096 bits")]
    Key {
        /// Whose key.
        role: Role,
    },
    /// A certificate is not signed by the one above it, with RSASSA-PSS and SHA-384.
    #[error("the certificate of the {role} is not signed by the one above it, with RSASSA-PSS and SHA-384")]
    Signature {
        /// Which.
        role: Role,
    },
    /// A certificate is not valid at this time.
    #[error("the certificate of the {role} is valid from {from} to {to} only")]
    Date {
        /// Which.
        role: Role,
        /// From when.
        from: String,
        /// To when.
        to: String,
    },
    /// The bytes are no report.
    #[error("no attestation report: {0}")]
    Report(#[from] ReportError),
    /// The report is of a version that is not known here.
    #[error("reports of version {version} are not known here")]
    ReportVersion {
        /// The version.
        version: u32,
    },
    /// The report says that another key signed it, or none.
    #[error("the report is signed by {said:?}, and the certificate is of the {role}")]
    SigningKey {
        /// What the report says.
        said: SigningKey,
        /// What there is.
        role: Role,
    },
    /// The certificate is for another TCB.
    #[error("the certificate is for the TCB {}, the reported one is {}", TcbText(*.certified), TcbText(*.reported))]
    Tcb {
        /// That of the certificate.
        certified: TcbVersion,
        /// That of the report, or of the platform.
        reported: TcbVersion,
    },
    /// The certificate is for another chip.
    #[error("the certificate is for the chip {certified}, the report is from {reported}")]
    Chip {
        /// That of the certificate.
        certified: ChipId,
        /// That of the report.
        reported: ChipId,
    },
    /// The key of the certificate did not sign the report.
    #[error("the report is not signed by the key of the {role}")]
    ReportSignature {
        /// Whose key.
        role: Role,
    },
}

/// Which root is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root<'a> {
    /// This certificate, in DER.
    Certificate(&'a [u8]),
    /// The certificate whose DER has this SHA-256.
    Fingerprint([u8; 32]),
    /// Any. The chain is then consistent, and anybody may have made it.
    Any,
}

/// What a chain is verified against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verifier<'a> {
    /// The root that is trusted.
    pub root: Root<'a>,
    /// Whether simulated certificates are taken. They vouch for nothing, so tests alone have a reason.
    pub allow_simulated: bool,
    /// The time at which all certificates have to be valid, if dates matter. SNP guests have no clock that they can
    /// trust, and an expired certificate has not lost its key.
    pub at: Option<SystemTime>,
}

/// A certificate of a VCEK or a VLEK with those above it.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The VCEK or the VLEK.
    pub vek: Certificate,
    /// The ASK or the ASVK.
    pub signer: Certificate,
    /// The ARK.
    pub root: Certificate,
}

/// What is known of a chain that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// VCEK or VLEK.
    pub role: Role,
    /// What its certificate says.
    pub endorsement: Endorsement,
    /// SHA-256 of the root.
    pub root: [u8; 32],
}

impl Chain {
    /// The chains of a table: one for each VCEK and VLEK in it.
    ///
    /// # Errors
    ///
    /// An entry does not parse or is not what its kind says; there are more than any host has; there is no VCEK and no VLEK, or none of those above. Kinds
    /// that are not known are left alone, as are revocation lists.
    pub fn all_of(table: &CheckedTable) -> Result<Vec<Self>, ChainError> {
        // A checked table parses.
        let Ok(parsed) = Table::parse(table.as_bytes()) else { return Ok(Vec::new()) };
        let roles = [Role::Vcek, Role::Vlek, Role::Ask, Role::Ark];
        let mut certificates = Vec::new();
        for entry in parsed.certificates().filter(|entry| roles.iter().any(|role| role.guid() == entry.guid))
        {
            if certificates.len() >= MAX_CERTIFICATES {
                return Err(ChainError::TooMany);
            }
            let guid = entry.guid;
            let certificate =
                Certificate::from_der(entry.bytes).map_err(|source| ChainError::Entry { guid, source })?;
            let role = certificate.role();
            if role.guid() != guid {
                return Err(ChainError::Misplaced { guid, role });
            }
            certificates.push(certificate);
        }
        Self::all_from(&certificates)
    }

    /// The chains of these certificates: one for each VCEK and VLEK.
    ///
    /// # Errors
    ///
    /// [`ChainError::Missing`].
    pub fn all_from(certificates: &[Certificate]) -> Result<Vec<Self>, ChainError> {
        let mut chains = Vec::new();
        for vek in certificates.iter().filter(|certificate| certificate.endorsement().is_some()) {
            let signer_role = if vek.role() == Role::Vlek { Role::Asvk } else { Role::Ask };
            let above = |below: &Certificate, role| {
                let is_above = |one: &&Certificate| {
                    one.role() == role
                        && one.x509.tbs_certificate.subject == below.x509.tbs_certificate.issuer
                };
                certificates.iter().find(is_above).cloned().ok_or(ChainError::Missing { role })
            };
            let signer = above(vek, signer_role)?;
            let root = above(&signer, Role::Ark)?;
            chains.push(Self { vek: vek.clone(), signer, root });
        }
        if chains.is_empty() { Err(ChainError::Missing { role: Role::Vcek }) } else { Ok(chains) }
    }

    /// The three, from the root down.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        [&self.root, &self.signer, &self.vek].into_iter()
    }

    /// What the certificate of the key says.
    ///
    /// # Errors
    ///
    /// It says nothing, because it is no VCEK and no VLEK.
    pub fn endorsement(&self) -> Result<&Endorsement, ChainError> {
        self.vek.endorsement().ok_or(ChainError::Missing { role: Role::Vcek })
    }
}

impl Verifier<'_> {
    /// Verifies a chain up to the trusted root.
    ///
    /// # Errors
    ///
    /// The first check that fails: simulation, root, signatures from the root down, dates.
    pub fn verify(&self, chain: &Chain) -> Result<Verified, ChainError> {
        if let Some(simulated) = chain.certificates().find(|certificate| certificate.is_simulated()) {
            if !self.allow_simulated {
                return Err(ChainError::Simulated { role: simulated.role() });
            }
        }
        let fingerprint = chain.root.fingerprint();
        let is_trusted = match self.root {
            Root::Certificate(der) => chain.root.der() == der,
            Root::Fingerprint(trusted) => trusted == fingerprint,
            Root::Any => true,
        };
        if !is_trusted {
            return Err(ChainError::Root { fingerprint });
        }
        for (certificate, signer) in
            [(&chain.root, &chain.root), (&chain.signer, &chain.root), (&chain.vek, &chain.signer)]
        {
            check_signature(certificate, signer)?;
        }
        for certificate in chain.certificates() {
            let [from, to] = certificate.validity();
            if self.at.is_some_and(|at| at < from || at > to) {
                let [from, to] = certificate.validity_text();
                return Err(ChainError::Date { role: certificate.role(), from, to });
            }
        }
        let endorsement = chain.endorsement()?.clone();
        Ok(Verified { role: chain.vek.role(), endorsement, root: fingerprint })
    }
}

impl Verified {
    /// Checks the TCB of the certificate against the reported one.
    ///
    /// # Errors
    ///
    /// [`ChainError::Tcb`].
    pub fn check_tcb(&self, reported: TcbVersion) -> Result<(), ChainError> {
        let certified = self.endorsement.tcb;
        if certified == reported { Ok(()) } else { Err(ChainError::Tcb { certified, reported }) }
    }
}

/// Parses a report: the bytes of one, or the response of the firmware with one in it, as `/dev/sev-guest` gives it.
///
/// # Errors
///
/// [`ChainError::Report`], [`ChainError::ReportVersion`].
pub fn parse_report(bytes: &[u8]) -> Result<KnownReport<'_>, ChainError> {
    let known = |report: Report<'_>| report.known().is_some();
    let report = match Report::parse_response(bytes).ok().filter(|report| known(*report)) {
        Some(report) => report,
        None => Report::parse(bytes)?,
    };
    let version = report.version();
    // The report is borrowed from the bytes, and so is what it says.
    report.known().ok_or(ChainError::ReportVersion { version })
}

impl Chain {
    /// Checks a report against the key of this chain, which has been verified: who signed it, for which TCB, on which
    /// chip, and the signature.
    ///
    /// # Errors
    ///
    /// The first check that fails, in this order.
    pub fn check_report(&self, report: &KnownReport<'_>) -> Result<(), ChainError> {
        let role = self.vek.role();
        let said = report.signing_key();
        let expected = if role == Role::Vlek { SigningKey::Vlek } else { SigningKey::Vcek };
        if said != expected {
            return Err(ChainError::SigningKey { said, role });
        }
        let endorsement = self.endorsement()?;
        let (certified, reported) = (endorsement.tcb, report.tcb(report.wire.reported_tcb));
        if certified != reported {
            return Err(ChainError::Tcb { certified, reported });
        }
        // A host that hides its chip leaves nothing to compare.
        if let (Some(certified), Some(reported)) = (&endorsement.chip, ChipId::of_report(report)) {
            if *certified != reported {
                return Err(ChainError::Chip { certified: certified.clone(), reported });
            }
        }
        is_signed_by(report, &self.vek).ok_or(ChainError::ReportSignature { role })
    }
}

/// Checks that a certificate is signed by the key of another one, with RSASSA-PSS and SHA-384.
///
/// # Errors
///
/// [`ChainError::Key`], [`ChainError::Signature`].
pub fn check_signature(certificate: &Certificate, signer: &Certificate) -> Result<(), ChainError> {
    let (role, by) = (certificate.role(), signer.role());
    let key = public_key(signer).filter(|key| key.size() == RSA_BYTES).ok_or(ChainError::Key { role: by })?;
    let (tbs, above) = (&certificate.x509.tbs_certificate, &signer.x509.tbs_certificate);
    let named = tbs.issuer == above.subject
        && certificate.x509.signature_algorithm.oid == RSASSA_PSS
        && certificate.x509.signature_algorithm == tbs.signature;
    let verify = || {
        let signature = certificate.x509.signature.as_bytes()?;
        let signature = rsa::pss::Signature::try_from(signature).ok()?;
        let key = rsa::pss::VerifyingKey::<Sha384>::new(key);
        key.verify(&certificate.signed_bytes()?, &signature).ok()
    };
    if named && verify().is_some() { Ok(()) } else { Err(ChainError::Signature { role }) }
}

fn public_key(certificate: &Certificate) -> Option<RsaPublicKey> {
    let key = certificate.x509.tbs_certificate.subject_public_key_info.to_der().ok()?;
    RsaPublicKey::from_public_key_der(&key).ok()
}

fn is_signed_by(report: &KnownReport<'_>, vek: &Certificate) -> Option<()> {
    let wire: EcdsaSignature = transmute!(report.wire.signature);
    let signature = Signature::from_scalars(big_endian(&wire.r)?, big_endian(&wire.s)?).ok()?;
    let key = vek.x509.tbs_certificate.subject_public_key_info.subject_public_key.as_bytes()?;
    VerifyingKey::from_sec1_bytes(key).ok()?.verify(report.signed_bytes(), &signature).ok()
}

/// A number of 72 bytes in little endian that has to fit into 48.
fn big_endian(little: &[u8; 72]) -> Option<[u8; SCALAR_BYTES]> {
    let (low, high) = little.split_first_chunk::<SCALAR_BYTES>()?;
    let mut big = *low;
    big.reverse();
    high.iter().all(|byte| *byte == 0).then_some(big)
}
