//! The attestation report of an SNP guest: what it says. Whether its signature holds is not decided here.

use core::fmt;
use core::mem::size_of;
use exeunt_abi::ghcb::guest_message::ReportResponse;
use exeunt_abi::report::tcb::{FAMILY_ZEN5, TcbMilan, TcbTurin};
use exeunt_abi::report::{AttestationReport, REPORT_BYTES, SIGNED_BYTES, flags, signing_key};
use zerocopy::FromBytes;

/// Bytes that are long enough for a report, and the version that they claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    version: u32,
    bytes: &'a [u8],
}

/// A report of version 2 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownReport<'a> {
    /// The fields that all versions have. Those of later versions are reserved bytes in earlier ones: take
    /// [`KnownReport::cpuid`] and [`KnownReport::mitigations`].
    pub wire: AttestationReport,
    signed: &'a [u8],
}

/// Why bytes are no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportError {
    /// There are fewer bytes than a report, or its response, has.
    Short {
        /// Bytes that there are.
        bytes: usize,
        /// Bytes that are needed.
        needed: usize,
    },
    /// The firmware answered the request with an error.
    Refused {
        /// `status` of the response: 0x16 for a parameter, 0x27 for a key that is not there.
        status: u32,
    },
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { bytes, needed } => write!(f, "{bytes} bytes are no report of {needed} bytes"),
            Self::Refused { status } => write!(f, "the firmware refused the report with status {status:#x}"),
        }
    }
}

impl core::error::Error for ReportError {}

/// The CPU that a report of version 3 and above names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpuid {
    /// Family, extended and base together: 0x19 for Milan and Genoa, 0x1a for Turin.
    pub family: u8,
    /// Model, extended and base together.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

/// The mitigations that a report of version 5 names, a bit each. What a bit means depends on the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mitigations {
    /// Verified at the launch.
    pub launch: u64,
    /// Verified when the report was made.
    pub current: u64,
}

/// The security versions of the parts of a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcbVersion {
    /// The firmware that runs first on the secure processor; Turin only.
    pub fmc: Option<u8>,
    /// The secure processor's boot loader.
    pub boot_loader: u8,
    /// The secure processor's operating system.
    pub tee: u8,
    /// The SNP firmware.
    pub snp: u8,
    /// The lowest microcode level of all cores.
    pub microcode: u8,
}

impl fmt::Display for TcbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc}, ")?;
        }
        let Self { boot_loader, tee, snp, microcode, .. } = self;
        write!(f, "boot loader {boot_loader}, tee {tee}, snp {snp}, microcode {microcode}")
    }
}

impl TcbVersion {
    /// Decodes the eight bytes of a CPU family. Families before Turin's share a layout; those after it are taken to
    /// share Turin's.
    #[must_use]
    pub fn decode(bytes: [u8; 8], family: u8) -> Self {
        if family >= FAMILY_ZEN5 {
            let TcbTurin { fmc, boot_loader, tee, snp, microcode, .. } = zerocopy::transmute!(bytes);
            Self { fmc: Some(fmc), boot_loader, tee, snp, microcode }
        } else {
            let TcbMilan { boot_loader, tee, snp, microcode, .. } = zerocopy::transmute!(bytes);
            Self { fmc: None, boot_loader, tee, snp, microcode }
        }
    }
}

/// Who signed a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// The versioned chip endorsement key.
    Vcek,
    /// The versioned loaded endorsement key.
    Vlek,
    /// Nobody.
    None,
    /// A number without a meaning here.
    Unknown(u32),
}

impl<'a> Report<'a> {
    /// Takes the bytes of a report, and what follows it. A report of any version is taken.
    ///
    /// # Errors
    ///
    /// There are too few bytes for a version that is known here.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ReportError> {
        match bytes.first_chunk() {
            Some(version) if bytes.len() >= REPORT_BYTES => {
                Ok(Self { version: u32::from_le_bytes(*version), bytes })
            }
            _ => Err(ReportError::Short { bytes: bytes.len(), needed: REPORT_BYTES }),
        }
    }

    /// Parses a decrypted `MSG_REPORT_RSP`, which is also what `/dev/sev-guest` hands out.
    ///
    /// # Errors
    ///
    /// There are too few bytes, or the firmware refused the request.
    pub fn parse_response(bytes: &'a [u8]) -> Result<Self, ReportError> {
        let needed = REPORT_BYTES.saturating_add(size_of::<ReportResponse>());
        let short = ReportError::Short { bytes: bytes.len(), needed };
        let (response, report) = ReportResponse::read_from_prefix(bytes).map_err(|_| short)?;
        if response.status != 0 {
            return Err(ReportError::Refused { status: response.status });
        }
        Self::parse(report.get(..response.report_size as usize).ok_or(short)?)
    }

    /// The version of the structure.
    #[must_use]
    pub const fn version(self) -> u32 {
        self.version
    }

    /// The bytes as they came. Of a version that is not known here nothing else can be said.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// What the report says, if its version is one of those that are known here.
    #[must_use]
    pub fn known(self) -> Option<KnownReport<'a>> {
        if !(2..=5).contains(&self.version) {
            return None;
        }
        let (wire, _) = AttestationReport::read_from_prefix(self.bytes).ok()?;
        Some(KnownReport { wire, signed: self.bytes.get(..SIGNED_BYTES)? })
    }
}

impl<'a> KnownReport<'a> {
    /// The bytes that the signature covers, as they came.
    #[must_use]
    pub const fn signed_bytes(&self) -> &'a [u8] {
        self.signed
    }

    /// The CPU. A report of version 2 does not name it.
    #[must_use]
    pub const fn cpuid(&self) -> Option<Cpuid> {
        let AttestationReport { version, cpuid_fam_id, cpuid_mod_id, cpuid_step, .. } = self.wire;
        if version < 3 {
            return None;
        }
        Some(Cpuid { family: cpuid_fam_id, model: cpuid_mod_id, stepping: cpuid_step })
    }

    /// The mitigations. A report before version 5 does not name them.
    #[must_use]
    pub const fn mitigations(&self) -> Option<Mitigations> {
        let AttestationReport { version, launch_mit_vector, current_mit_vector, .. } = self.wire;
        if version < 5 {
            return None;
        }
        Some(Mitigations { launch: launch_mit_vector, current: current_mit_vector })
    }

    /// Decodes one of the report's own `*_tcb` fields. Version 2 comes from Milan and Genoa only.
    #[must_use]
    pub fn tcb(&self, bytes: [u8; 8]) -> TcbVersion {
        TcbVersion::decode(bytes, self.cpuid().map_or(0, |cpuid| cpuid.family))
    }

    /// Who signed the report.
    #[must_use]
    pub const fn signing_key(&self) -> SigningKey {
        match (self.wire.flags & flags::SIGNING_KEY_MASK) >> flags::SIGNING_KEY_SHIFT {
            signing_key::VCEK => SigningKey::Vcek,
            signing_key::VLEK => SigningKey::Vlek,
            signing_key::NONE => SigningKey::None,
            number => SigningKey::Unknown(number),
        }
    }

    /// The digest of the author key, if the guest has one.
    #[must_use]
    pub const fn author_key_digest(&self) -> Option<[u8; 48]> {
        if self.wire.flags & flags::AUTHOR_KEY_EN == 0 { None } else { Some(self.wire.author_key_digest) }
    }

    /// The chip, unless the host hides it.
    #[must_use]
    pub fn chip_id(&self) -> Option<[u8; 64]> {
        (self.wire.chip_id != [0; 64]).then_some(self.wire.chip_id)
    }
}

#[cfg(test)]
mod tests;
