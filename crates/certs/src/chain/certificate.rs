//! One certificate and what it says.

use crate::identity::{ChipId, Product, hex};
use exeunt_proto::certs::{self, Guid};
use exeunt_proto::report::TcbVersion;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::time::SystemTime;
use thiserror::Error;
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier, OctetStringRef};
use x509_cert::der::{Decode as _, Encode as _};

/// What the names begin with in certificates that vouch for nothing.
pub const SIMULATED: &str = "SIMULATED";

/// Extensions of a VCEK and a VLEK, below AMD's arc.
mod oid {
    use super::ObjectIdentifier;

    pub(super) const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
    pub(super) const BL_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
    pub(super) const TEE_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
    pub(super) const SNP_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
    pub(super) const UCODE_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
    pub(super) const FMC_SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
    pub(super) const HW_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
    pub(super) const CSP_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");
}

/// What a certificate is in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The versioned chip endorsement key, which signs reports.
    Vcek,
    /// The versioned loaded endorsement key, which signs reports.
    Vlek,
    /// The AMD SEV key, which signs VCEKs.
    Ask,
    /// The AMD SEV VLEK key, which signs VLEKs.
    Asvk,
    /// The AMD root key.
    Ark,
}

impl Role {
    /// The kind in a table. ASK and ASVK share one.
    #[must_use]
    pub const fn guid(self) -> Guid {
        match self {
            Self::Vcek => certs::VCEK,
            Self::Vlek => certs::VLEK,
            Self::Ask | Self::Asvk => certs::ASK,
            Self::Ark => certs::ARK,
        }
    }

    /// The name in specifications.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
            Self::Ask => "ASK",
            Self::Asvk => "ASVK",
            Self::Ark => "ARK",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why bytes are no certificate of this kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// They are not X.509 in DER.
    #[error("not an X.509 certificate in DER: {reason}")]
    Der {
        /// The decoder's word.
        reason: String,
    },
    /// It has AMD's extensions, but one is missing or has no meaning.
    #[error("the extension {name} ({oid}) is missing or has no meaning")]
    Extension {
        /// Its name.
        name: &'static str,
        /// Its identifier.
        oid: String,
    },
    /// It is none of the five.
    #[error("'{subject}' is no ARK, ASK, ASVK, VCEK or VLEK")]
    Role {
        /// Whose it is.
        subject: String,
    },
}

/// What the certificate of a VCEK or a VLEK says about its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// The name of the product as it stands there, such as `Milan-B0`.
    pub product_name: String,
    /// The TCB that the key was derived from.
    pub tcb: TcbVersion,
    /// The chip. A VLEK is not bound to one.
    pub chip: Option<ChipId>,
    /// The cloud service provider of a VLEK.
    pub csp: Option<String>,
}

impl Endorsement {
    /// The product, if it is a known one.
    #[must_use]
    pub fn product(&self) -> Option<Product> {
        self.product_name.parse().ok()
    }
}

/// A certificate, parsed.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: Vec<u8>,
    pub(super) x509: x509_cert::Certificate,
    role: Role,
    endorsement: Option<Endorsement>,
}

impl Certificate {
    /// Parses DER and says what it is, by AMD's extensions and names.
    ///
    /// # Errors
    ///
    /// It is no certificate, or none of the five.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let x509 = x509_cert::Certificate::from_der(der)
            .map_err(|error| CertificateError::Der { reason: error.to_string() })?;
        let mut this = Self { der: der.to_vec(), x509, role: Role::Ark, endorsement: None };
        this.endorsement = this.read_endorsement()?;
        this.role = this.read_role()?;
        Ok(this)
    }

    /// The bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// What it is.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// What it says about its key. Those of a VCEK and a VLEK do.
    #[must_use]
    pub const fn endorsement(&self) -> Option<&Endorsement> {
        self.endorsement.as_ref()
    }

    /// Whose it is.
    #[must_use]
    pub fn subject(&self) -> String {
        self.x509.tbs_certificate.subject.to_string()
    }

    /// Who signed it.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.x509.tbs_certificate.issuer.to_string()
    }

    /// The serial number, hex digits.
    #[must_use]
    pub fn serial(&self) -> String {
        hex(self.x509.tbs_certificate.serial_number.as_bytes())
    }

    /// From when to when it is valid.
    #[must_use]
    pub fn validity(&self) -> [SystemTime; 2] {
        let validity = &self.x509.tbs_certificate.validity;
        [validity.not_before.to_system_time(), validity.not_after.to_system_time()]
    }

    /// The same for people: `2020-01-01T00:00:00Z`.
    #[must_use]
    pub fn validity_text(&self) -> [String; 2] {
        let validity = &self.x509.tbs_certificate.validity;
        [validity.not_before, validity.not_after].map(|time| time.to_date_time().to_string())
    }

    /// SHA-256 of the DER.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// Whether it says of itself that it vouches for nothing.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.subject().contains(SIMULATED) || self.issuer().contains(SIMULATED)
    }

    fn read_role(&self) -> Result<Role, CertificateError> {
        if let Some(endorsement) = &self.endorsement {
            return Ok(if endorsement.csp.is_some() { Role::Vlek } else { Role::Vcek });
        }
        let tbs = &self.x509.tbs_certificate;
        let subject = tbs.subject.to_string();
        // AMD's names are CN=ARK-Milan, CN=SEV-Milan and CN=SEV-VLEK-Milan.
        if tbs.subject == tbs.issuer && subject.contains("ARK-") {
            Ok(Role::Ark)
        } else if subject.contains("SEV-VLEK-") {
            Ok(Role::Asvk)
        } else if subject.contains("SEV-") {
            Ok(Role::Ask)
        } else {
            Err(CertificateError::Role { subject: subject.chars().take(100).collect() })
        }
    }

    fn read_endorsement(&self) -> Result<Option<Endorsement>, CertificateError> {
        let Some(product_name) = self.extension(oid::PRODUCT_NAME) else { return Ok(None) };
        let product_name = text(product_name).ok_or_else(|| missing("productName", oid::PRODUCT_NAME))?;
        let part = |name, id| {
            let value = self.extension(id).and_then(|value| u8::from_der(value).ok());
            value.ok_or_else(|| missing(name, id))
        };
        let fmc = self.extension(oid::FMC_SPL).map(|_| part("fmcSPL", oid::FMC_SPL)).transpose()?;
        let tcb = TcbVersion {
            fmc,
            boot_loader: part("blSPL", oid::BL_SPL)?,
            tee: part("teeSPL", oid::TEE_SPL)?,
            snp: part("snpSPL", oid::SNP_SPL)?,
            microcode: part("ucodeSPL", oid::UCODE_SPL)?,
        };
        let csp =
            self.extension(oid::CSP_ID).map(|value| text(value).ok_or_else(|| missing("cspID", oid::CSP_ID)));
        let csp = csp.transpose()?;
        let chip = self.extension(oid::HW_ID).and_then(chip);
        if csp.is_none() && chip.is_none() {
            return Err(missing("hwID", oid::HW_ID));
        }
        Ok(Some(Endorsement { product_name, tcb, chip, csp }))
    }

    fn extension(&self, id: ObjectIdentifier) -> Option<&[u8]> {
        let extensions = self.x509.tbs_certificate.extensions.as_ref()?;
        let found = extensions.iter().find(|extension| extension.extn_id == id)?;
        Some(found.extn_value.as_bytes())
    }

    /// The bytes that the signature covers.
    pub(super) fn signed_bytes(&self) -> Option<Vec<u8>> {
        self.x509.tbs_certificate.to_der().ok()
    }
}

fn missing(name: &'static str, oid: ObjectIdentifier) -> CertificateError {
    CertificateError::Extension { name, oid: oid.to_string() }
}

/// A name. One with control characters, such as those of terminals, would be more than a name wherever it is printed.
fn text(value: &[u8]) -> Option<String> {
    let text = Ia5StringRef::from_der(value).ok()?.to_string();
    (!text.chars().any(char::is_control)).then_some(text)
}

/// AMD's certificates have the identity as it is; a wrapped one is understood as well.
fn chip(value: &[u8]) -> Option<ChipId> {
    let wrapped = || OctetStringRef::from_der(value).ok().and_then(|value| ChipId::new(value.as_bytes()));
    ChipId::new(value).or_else(wrapped)
}
