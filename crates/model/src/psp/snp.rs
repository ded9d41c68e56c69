//! What the outside can ask of the processor: certificates, versions, and the keys that others would hold.

use super::certificates::{self, Authority, CertificateError};
use super::platform::{Endorser, Version};
use super::{CommandError, Psp, PspConfig};
use exeunt_abi::kvm::sev::platform::{SnpConfig, SnpPlatformStatus, VLEK_HASHSTICK_BYTES};

impl Psp {
    /// How the host was made.
    #[must_use]
    pub fn config(&self) -> PspConfig {
        self.peek(|platform| platform.config)
    }

    /// Certifies with keys of one's own from now on.
    pub fn set_authority(&self, authority: Authority) {
        self.peek(|platform| platform.authority = Some(authority));
    }

    /// ARK, ASK or ASVK, and VCEK or VLEK as the reported TCB has it now; each in DER.
    ///
    /// # Errors
    ///
    /// There is no such key, or a field cannot be encoded.
    pub fn certificates(&self, endorser: Endorser) -> Result<[Vec<u8>; 3], CertificateError> {
        self.peek(|platform| {
            let [ark, ask] = certificates::authority(platform, endorser)?;
            Ok([ark, ask, platform.endorsement_certificate(endorser)?])
        })
    }

    /// The certificate of the platform's Diffie-Hellman key, for those who send to it, and its chain.
    ///
    /// # Errors
    ///
    /// A key cannot be made.
    pub fn pdh_certificates(&self) -> Result<(Vec<u8>, Vec<u8>), CommandError> {
        self.peek(|platform| platform.pdh_chain()).map_err(CommandError::of_firmware)
    }

    /// `SNP_PLATFORM_STATUS`.
    ///
    /// # Errors
    ///
    /// The processor does not answer.
    pub fn snp_platform_status(&self) -> Result<SnpPlatformStatus, CommandError> {
        self.command(|platform| Ok(platform.snp_status()))
    }

    /// `SNP_COMMIT`: never go back behind the current firmware, and report its TCB.
    ///
    /// # Errors
    ///
    /// The processor does not answer.
    pub fn snp_commit(&self) -> Result<(), CommandError> {
        self.command(|platform| {
            platform.commit();
            Ok(())
        })
    }

    /// `SNP_SET_CONFIG`.
    ///
    /// # Errors
    ///
    /// `INVALID_PARAM` for a TCB above the committed one, or reserved bits.
    pub fn snp_set_config(&self, config: &SnpConfig) -> Result<(), CommandError> {
        self.command(|platform| platform.set_config(config))
    }

    /// `SNP_VLEK_LOAD`.
    ///
    /// # Errors
    ///
    /// `BAD_MEASUREMENT` for a key that was not wrapped for this chip.
    pub fn snp_vlek_load(&self, blob: &[u8; VLEK_HASHSTICK_BYTES]) -> Result<(), CommandError> {
        self.command(|platform| platform.load_vlek(blob))
    }

    /// What the key server would answer: a provider's VLEK, wrapped for this chip.
    #[must_use]
    pub fn wrap_vlek(&self, csp_id: [u8; 16]) -> [u8; VLEK_HASHSTICK_BYTES] {
        self.peek(|platform| platform.wrap_vlek(csp_id))
    }

    /// `DOWNLOAD_FIRMWARE_EX`: another firmware runs, and the guests go on.
    ///
    /// # Errors
    ///
    /// `BAD_SVN` or `BAD_VERSION` for a firmware behind the committed one.
    pub fn update_firmware(&self, version: Version) -> Result<(), CommandError> {
        self.command(|platform| platform.update_firmware(version))
    }

    /// An update of the microcode alone: the next version of it, up to 255.
    pub(crate) fn patch(&self) {
        self.peek(|platform| {
            if let Some(microcode) = platform.current.tcb.last_mut() {
                *microcode = microcode.saturating_add(1);
            }
        });
    }
}
