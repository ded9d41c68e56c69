//! Which root is trusted, on the command line.

use crate::Failure;
use exeunt_certs::chain::{Bundle, Chain, Role, Root, Verifier};
use exeunt_certs::file::read_bounded;
use exeunt_certs::identity::unhex;
use std::path::PathBuf;
use std::time::SystemTime;

/// What a chain has to lead to.
#[derive(clap::Args)]
pub(super) struct Trust {
    /// The root that is trusted: AMD's ARK certificate, PEM or DER
    #[arg(long, value_name = "FILE", group = "trusted")]
    root: Option<PathBuf>,

    /// SHA-256 of the trusted root's DER, 64 hex digits
    #[arg(long, value_name = "HEX", group = "trusted")]
    root_sha256: Option<String>,

    /// Take the root that comes with the certificates: anybody may have made them
    #[arg(long, group = "trusted")]
    any_root: bool,

    /// Take certificates that say SIMULATED, as the software processor issues them for tests
    #[arg(long)]
    allow_simulated: bool,

    /// Fail for certificates that are not valid today
    #[arg(long)]
    check_dates: bool,
}

/// The same with the file read.
pub(super) struct Trusted {
    root: Option<Vec<u8>>,
    fingerprint: [u8; 32],
    allow_simulated: bool,
    at: Option<SystemTime>,
    is_any: bool,
}

impl Trust {
    /// Reads the root.
    ///
    /// # Errors
    ///
    /// None is given, or it is none.
    pub(super) fn read(&self) -> Result<Trusted, Failure> {
        let mut trusted = Trusted {
            root: None,
            fingerprint: [0; 32],
            allow_simulated: self.allow_simulated,
            at: self.check_dates.then(SystemTime::now),
            is_any: self.any_root,
        };
        if let Some(path) = &self.root {
            let bytes = read_bounded(path).map_err(|error| error.to_string())?;
            let mut bundle = Bundle::default();
            bundle.add(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
            let ark = bundle.certificates().iter().find(|certificate| certificate.role() == Role::Ark);
            let ark = ark.ok_or_else(|| format!("{}: there is no ARK in it", path.display()))?;
            trusted.root = Some(ark.der().to_vec());
        } else if let Some(digits) = &self.root_sha256 {
            let bytes = unhex(&digits.replace(':', "")).and_then(|bytes| bytes.try_into().ok());
            trusted.fingerprint = bytes.ok_or("--root-sha256 wants 64 hex digits")?;
        } else if !self.any_root {
            return Err("which root is trusted? Give AMD's ARK by --root FILE or --root-sha256 HEX, or say --any-root \
                        to see only whether the chain is consistent"
                .into());
        }
        Ok(trusted)
    }
}

impl Trusted {
    pub(super) fn verifier(&self) -> Verifier<'_> {
        let root = match &self.root {
            Some(der) => Root::Certificate(der),
            None if self.is_any => Root::Any,
            None => Root::Fingerprint(self.fingerprint),
        };
        Verifier { root, allow_simulated: self.allow_simulated, at: self.at }
    }

    /// What a caller should know of chains that hold, one line each.
    pub(super) fn warnings(&self, chains: &[Chain]) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.is_any {
            warnings.push("any root was taken, so the chain is consistent and no more".into());
        }
        let now = SystemTime::now();
        for certificate in chains.iter().flat_map(Chain::certificates) {
            let [from, to] = certificate.validity();
            let text = if certificate.is_simulated() {
                format!("the certificate of the {} is SIMULATED and vouches for nothing", certificate.role())
            } else if now < from || now > to {
                let [from, to] = certificate.validity_text();
                format!("the certificate of the {} is valid from {from} to {to} only", certificate.role())
            } else {
                continue;
            };
            if !warnings.contains(&text) {
                warnings.push(text);
            }
        }
        warnings
    }
}
