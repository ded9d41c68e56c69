//! Certificates from files of any form, put together to a table.

use super::certificate::{Certificate, CertificateError, Role};
use exeunt::certs::CheckedTable;
use exeunt_proto::certs::{self, TableError};
use thiserror::Error;
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode as _, pem};

/// The label of a certificate in PEM.
const CERTIFICATE: &str = "CERTIFICATE";
/// The label of a revocation list in PEM.
const CRL: &str = "X509 CRL";
/// How a part begins and ends.
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
/// More certificates than a bundle can need.
const MAX_PARTS: usize = 16;

/// Why certificates make no table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A certificate has no meaning here.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The PEM is broken, or has something else in it.
    #[error("no certificates in PEM: {reason}")]
    Pem {
        /// What is wrong.
        reason: String,
    },
    /// The same kind twice, with different content.
    #[error("there are two certificates of the {role}")]
    Twice {
        /// Which.
        role: Role,
    },
    /// Two revocation lists, with different content.
    #[error("there are two revocation lists")]
    TwoLists,
    /// More than one file can need.
    #[error("more than {MAX_PARTS} certificates")]
    TooMany,
    /// The table cannot be laid out.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Certificates for one table.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    certificates: Vec<Certificate>,
    crl: Option<Vec<u8>>,
}

impl Bundle {
    /// Adds what is in these bytes: a certificate or a revocation list in DER, or any number of them in PEM. What each
    /// is, is seen from itself.
    ///
    /// # Errors
    ///
    /// It is neither, or there is one of its kind already that is not the same.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(bytes.len());
        if !bytes.get(start..).is_some_and(|rest| rest.starts_with(b"-----")) {
            return self.add_der(bytes);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| broken("it is no text"))?;
        for part in text.split(BEGIN).skip(1) {
            // The end has a label as well, and text may follow it.
            let end = part.find(END).and_then(|at| Some((at, part.get(at.saturating_add(END.len())..)?)));
            let (at, behind) = end.ok_or_else(|| broken("an END is missing"))?;
            let label = behind.find("-----").ok_or_else(|| broken("an END has no end"))?;
            let length = at.saturating_add(END.len()).saturating_add(label).saturating_add(5);
            self.add_pem(&format!("{BEGIN}{}\n", part.get(..length).unwrap_or(part)))?;
        }
        Ok(())
    }

    fn add_pem(&mut self, text: &str) -> Result<(), BundleError> {
        let decode = || {
            let width = text.lines().nth(1).map_or(64, |line| line.trim_end().len());
            let mut decoder = pem::Decoder::new_wrapped(text.as_bytes(), width)?;
            let label = decoder.type_label().to_string();
            let mut der = Vec::new();
            decoder.decode_to_end(&mut der)?;
            Ok((label, der))
        };
        let (label, der) = decode().map_err(|error: pem::Error| broken(&error.to_string()))?;
        if label == CERTIFICATE || label == CRL {
            self.add_der(&der)
        } else {
            Err(broken(&format!("it holds a {label}")))
        }
    }

    fn add_der(&mut self, der: &[u8]) -> Result<(), BundleError> {
        if CertificateList::from_der(der).is_ok() {
            if self.crl.as_deref().is_some_and(|crl| crl != der) {
                return Err(BundleError::TwoLists);
            }
            self.crl = Some(der.to_vec());
            return Ok(());
        }
        self.push(Certificate::from_der(der)?)
    }

    /// Adds a certificate.
    ///
    /// # Errors
    ///
    /// There is one of its kind already that is not the same.
    pub fn push(&mut self, certificate: Certificate) -> Result<(), BundleError> {
        let role = certificate.role();
        match self.certificates.iter().find(|one| one.role() == role) {
            Some(same) if same.der() == certificate.der() => return Ok(()),
            Some(_) => return Err(BundleError::Twice { role }),
            None => {}
        }
        if self.certificates.len() >= MAX_PARTS {
            return Err(BundleError::TooMany);
        }
        self.certificates.push(certificate);
        Ok(())
    }

    /// The certificates.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The table: the keys of reports first, those above them, the root, the revocation list.
    ///
    /// # Errors
    ///
    /// [`BundleError::Table`].
    pub fn table(&self) -> Result<CheckedTable, BundleError> {
        let mut sorted: Vec<_> = self.certificates.iter().collect();
        sorted.sort_by_key(|certificate| certificate.role());
        let entry = |guid, bytes| certs::Certificate { guid, bytes };
        let mut entries: Vec<_> =
            sorted.iter().map(|certificate| entry(certificate.role().guid(), certificate.der())).collect();
        entries.extend(self.crl.as_deref().map(|crl| entry(certs::CRL, crl)));
        Ok(CheckedTable::build(&entries)?)
    }
}

fn broken(reason: &str) -> BundleError {
    BundleError::Pem { reason: reason.into() }
}
