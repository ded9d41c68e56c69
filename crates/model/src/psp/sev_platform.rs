//! Platform commands of the SEV API.
//!
//! Source: AMD 55766 "SEV API Specification" revision 3.24, chapter 5.

use super::Status;
use super::platform::Platform;
use super::sev_certs::{PEK, SevCertificate};
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::kvm::sev::platform::PlatformStatus;
use zerocopy::FromBytes as _;

/// `SEV_STATUS_FLAGS_OWNED`.
const OWNED: u32 = 1 << 0;
/// Bit 8 of the flags: SEV-ES is configured.
const CONFIG_ES: u32 = 1 << 8;

impl Platform {
    /// `PLATFORM_STATUS`.
    pub(crate) fn sev_status(&self) -> PlatformStatus {
        let count = self.sev.count();
        let state = match (self.sev.initialised, count) {
            (false, _) => 0,
            (true, 0) => 1,
            (true, _) => 2,
        };
        let owned = if self.sev.is_owned { OWNED } else { 0 };
        PlatformStatus {
            api_major: self.current.major,
            api_minor: self.current.minor,
            state,
            flags: (owned | CONFIG_ES).into(),
            build: self.current.build,
            guest_count: count.into(),
        }
    }

    /// `FACTORY_RESET`, which the driver sends to a platform that it has shut down: new keys, no owner.
    pub(crate) fn factory_reset(&mut self) -> Result<(), Status> {
        self.sev.is_owned = false;
        self.pek_gen()?;
        self.sev.initialised = false;
        Ok(())
    }

    /// `PEK_GEN`: a new PEK, certified by the platform itself, and a new PDH.
    pub(crate) fn pek_gen(&mut self) -> Result<(), Status> {
        if self.sev.count() > 0 {
            return Err(firmware::INVALID_PLATFORM_STATE);
        }
        self.sev.is_owned = false;
        self.sev.pek_generation = self.sev.pek_generation.saturating_add(1);
        self.pdh_gen();
        Ok(())
    }

    /// `PDH_GEN`.
    pub(crate) fn pdh_gen(&mut self) {
        self.sev.pdh_generation = self.sev.pdh_generation.saturating_add(1);
    }

    /// `PEK_CERT_IMPORT`: the signer of the PEK becomes the owner.
    pub(crate) fn pek_import(&mut self, pek: &[u8], oca: &[u8]) -> Result<(), Status> {
        if self.sev.count() > 0 {
            return Err(firmware::INVALID_PLATFORM_STATE);
        }
        if self.sev.is_owned {
            return Err(firmware::ALREADY_OWNED);
        }
        let parse = |bytes| SevCertificate::read_from_bytes(bytes).map_err(|_| firmware::INVALID_CERTIFICATE);
        let (pek, oca) = (parse(pek)?, parse(oca)?);
        let is_ours = pek.pubkey_usage.get() == PEK && pek.pubkey == self.sev_wire_key(PEK)?;
        if !is_ours || !oca.signs(&oca) || !oca.signs(&pek) {
            return Err(firmware::INVALID_CERTIFICATE);
        }
        self.sev.is_owned = true;
        Ok(())
    }

    /// `GET_ID`: an identity for each of two sockets, of which the model has one.
    pub(crate) fn socket_ids(&self) -> Vec<u8> {
        let mut ids = self.chip_id().to_vec();
        ids.resize(128, 0);
        ids
    }
}
