//! The platform: versions, configuration, keys of the chip, and the guests that the firmware manages.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI" revision 1.58, chapters 3 and 8.

use super::certificates::{self, Authority, CertificateError};
use super::digest::PageType;
use super::guest::{Finish, GuestState, SnpGuest};
use super::seed::Seed;
use super::sev::SevGuests;
use super::{PspConfig, Status};
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::kvm::sev::platform::{SnpConfig, SnpPlatformStatus};
use exeunt_abi::kvm::sev::snp::policy;
use exeunt_abi::report::platform_info;
use p384::ecdsa::SigningKey;
use std::collections::{BTreeMap, BTreeSet};

/// The version of a firmware and of what runs below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Major version of the ABI.
    pub major: u8,
    /// Minor version of the ABI.
    pub minor: u8,
    /// Build.
    pub build: u8,
    /// Security versions, as in [`exeunt_abi::report::tcb`].
    pub tcb: [u8; 8],
}

/// Bits of `SNP_SET_CONFIG`'s flags.
const MASK_CHIP_ID: u32 = 1 << 0;
const MASK_CHIP_KEY: u32 = 1 << 1;
/// The bit of `SNP_PLATFORM_STATUS`'s flags for a loaded VLEK.
const VLEK_EN: u32 = 1 << 2;

/// The state behind the firmware's mailbox.
#[derive(Debug)]
pub(crate) struct Platform {
    pub(crate) config: PspConfig,
    pub(crate) seed: Seed,
    pub(crate) authority: Option<Authority>,
    pub(crate) current: Version,
    pub(crate) committed: Version,
    pub(crate) reported_tcb: [u8; 8],
    pub(crate) mask_chip_id: bool,
    pub(crate) mask_chip_key: bool,
    /// The identity of the cloud service provider whose VLEK is loaded.
    pub(crate) vlek: Option<[u8; 16]>,
    guests: BTreeMap<u64, SnpGuest>,
    next_guest: u64,
    asids: BTreeSet<u32>,
    /// The key made last, with what it was made for: reports come in series.
    signing: Option<(Endorser, [u8; 8], SigningKey)>,
    pub(crate) sev: SevGuests,
}

/// Which key signs a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endorser {
    /// The versioned chip endorsement key.
    Vcek,
    /// The versioned loaded endorsement key.
    Vlek,
}

impl Platform {
    pub(crate) fn new(config: PspConfig) -> Self {
        Self {
            seed: Seed::new(config.seed),
            authority: None,
            current: config.version,
            committed: config.version,
            reported_tcb: config.version.tcb,
            mask_chip_id: false,
            mask_chip_key: false,
            vlek: None,
            guests: BTreeMap::new(),
            next_guest: 0,
            asids: BTreeSet::new(),
            signing: None,
            sev: SevGuests::default(),
            config,
        }
    }

    /// The identity of the chip: 64 bytes, of which Turin has 8.
    pub(crate) fn chip_id(&self) -> [u8; 64] {
        let mut id = self.seed.derive::<64>("chip id", &[]);
        if self.config.product.is_turin() {
            id.iter_mut().skip(8).for_each(|byte| *byte = 0);
        }
        id
    }

    /// `INIT`, which the driver sends before the first guest.
    pub(crate) fn sev_init(&mut self) -> Result<(), Status> {
        if self.current.major == 0 {
            return Err(firmware::UNSUPPORTED);
        }
        self.sev.init();
        Ok(())
    }

    /// `SNP_GCTX_CREATE`.
    pub(crate) fn gctx_create(&mut self) -> u64 {
        let number = self.next_guest;
        self.next_guest = number.saturating_add(1);
        self.guests.insert(number, SnpGuest::new(&self.seed, number, self.current));
        number
    }

    /// `SNP_DECOMMISSION`.
    pub(crate) fn decommission(&mut self, guest: u64) -> Result<(), Status> {
        let gone = self.guests.remove(&guest).ok_or(firmware::INVALID_GUEST)?;
        if let Some(asid) = gone.asid {
            self.asids.remove(&asid);
        }
        Ok(())
    }

    pub(crate) fn guest(&self, guest: u64) -> Result<&SnpGuest, Status> {
        self.guests.get(&guest).ok_or(firmware::INVALID_GUEST)
    }

    pub(crate) fn guest_mut(&mut self, guest: u64) -> Result<&mut SnpGuest, Status> {
        self.guests.get_mut(&guest).ok_or(firmware::INVALID_GUEST)
    }

    /// `SNP_LAUNCH_START`.
    pub(crate) fn launch_start(&mut self, guest: u64, policy: u64, gosvw: [u8; 16]) -> Result<(), Status> {
        let fits = self.meets(policy);
        self.guest_mut(guest)?.launch_start(policy, gosvw, fits)
    }

    /// Whether the platform is what a policy asks for.
    fn meets(&self, policy: u64) -> bool {
        let least = policy & (policy::ABI_MAJOR_MASK | policy::ABI_MINOR_MASK);
        let abi = u64::from(self.current.major) << 8 | u64::from(self.current.minor);
        let asks = |bit: u64| policy & bit != 0;
        abi >= least
            && (asks(policy::SMT) || !self.config.smt)
            && (asks(policy::CXL_ALLOW) || !self.config.cxl)
            && (!asks(policy::MEM_AES_256_XTS) || self.config.aes_256_xts)
            && (!asks(policy::RAPL_DIS) || self.config.rapl_dis)
            && (!asks(policy::CIPHERTEXT_HIDING) || self.config.ciphertext_hiding)
    }

    /// `SNP_ACTIVATE`.
    pub(crate) fn activate(&mut self, guest: u64, asid: u32) -> Result<(), Status> {
        let state = self.guest(guest)?.state;
        if state == GuestState::Init {
            return Err(firmware::INVALID_GUEST_STATE);
        }
        if asid == 0 {
            return Err(firmware::INVALID_ASID);
        }
        if !self.asids.insert(asid) {
            return Err(firmware::ASID_OWNED);
        }
        self.guest_mut(guest)?.asid = Some(asid);
        Ok(())
    }

    /// `SNP_LAUNCH_UPDATE`.
    pub(crate) fn launch_update(
        &mut self,
        guest: u64,
        page_type: PageType,
        gpa: u64,
        page: &mut [u8; 4096],
    ) -> Result<(), Status> {
        let fms = self.config.product.fms();
        self.guest_mut(guest)?.launch_update(page_type, gpa, page, fms)
    }

    /// `SNP_LAUNCH_FINISH`.
    pub(crate) fn launch_finish(&mut self, guest: u64, finish: &Finish<'_>) -> Result<(), Status> {
        self.guest_mut(guest)?.launch_finish(finish)
    }

    /// `SNP_PLATFORM_STATUS`.
    pub(crate) fn snp_status(&self) -> SnpPlatformStatus {
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        SnpPlatformStatus {
            api_major: self.current.major,
            api_minor: self.current.minor,
            state: 1,
            is_rmp_initialized: 1,
            build_id: u32::from(self.current.build).into(),
            flags: (flag(self.mask_chip_id, MASK_CHIP_ID)
                | flag(self.mask_chip_key, MASK_CHIP_KEY)
                | flag(self.vlek.is_some(), VLEK_EN))
            .into(),
            guest_count: u32::try_from(self.guests.len()).unwrap_or(u32::MAX).into(),
            current_tcb_version: u64::from_le_bytes(self.current.tcb).into(),
            reported_tcb_version: u64::from_le_bytes(self.reported_tcb).into(),
        }
    }

    /// `SNP_COMMIT`: reports give the versions of what runs, and there is no way back.
    pub(crate) fn commit(&mut self) {
        self.committed = self.current;
        self.reported_tcb = self.current.tcb;
    }

    /// `SNP_CONFIG`. A reported TCB of 0 means the committed one.
    pub(crate) fn set_config(&mut self, config: &SnpConfig) -> Result<(), Status> {
        let flags = config.flags.get();
        if flags & !(MASK_CHIP_ID | MASK_CHIP_KEY) != 0 || config.rsvd != [0; 52] {
            return Err(firmware::INVALID_PARAM);
        }
        let tcb = config.reported_tcb.get().to_le_bytes();
        if !is_at_most(tcb, self.committed.tcb) {
            return Err(firmware::INVALID_PARAM);
        }
        self.reported_tcb = if tcb == [0; 8] { self.committed.tcb } else { tcb };
        self.mask_chip_id = flags & MASK_CHIP_ID != 0;
        self.mask_chip_key = flags & MASK_CHIP_KEY != 0;
        Ok(())
    }

    /// `DOWNLOAD_FIRMWARE_EX`: another firmware runs, and the guests go on.
    pub(crate) fn update_firmware(&mut self, version: Version) -> Result<(), Status> {
        if !is_at_most(self.committed.tcb, version.tcb) {
            return Err(firmware::BAD_SVN);
        }
        if (version.major, version.minor) < (self.committed.major, self.committed.minor) {
            return Err(firmware::BAD_VERSION);
        }
        self.current = version;
        Ok(())
    }

    /// The key that signs reports now. It is derived from the reported TCB.
    pub(crate) fn endorsement_key(&mut self, endorser: Endorser) -> Option<SigningKey> {
        if let Some((of, tcb, key)) = &self.signing {
            if *of == endorser && *tcb == self.reported_tcb {
                return Some(key.clone());
            }
        }
        let key = match endorser {
            Endorser::Vcek => self.seed.signing_key("vcek", &[&self.reported_tcb]),
            Endorser::Vlek => self.seed.signing_key("vlek", &[&self.vlek?, &self.reported_tcb]),
        }?;
        self.signing = Some((endorser, self.reported_tcb, key.clone()));
        Some(key)
    }

    /// The certificate of a key, in DER.
    pub(crate) fn endorsement_certificate(
        &mut self,
        endorser: Endorser,
    ) -> Result<Vec<u8>, CertificateError> {
        let key = self.endorsement_key(endorser).ok_or(CertificateError::NoKey)?;
        certificates::endorsement(self, endorser, key.verifying_key())
    }

    /// What reports say of the platform.
    pub(crate) fn info(&self) -> u64 {
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        platform_info::ECC_EN
            | platform_info::ALIAS_CHECK_COMPLETE
            | flag(self.config.smt, platform_info::SMT_EN)
            | flag(self.config.rapl_dis, platform_info::RAPL_DIS)
            | flag(self.config.ciphertext_hiding, platform_info::CIPHERTEXT_HIDING_DRAM_EN)
    }
}

/// Whether no part of a TCB is above that of another.
pub(crate) fn is_at_most(tcb: [u8; 8], limit: [u8; 8]) -> bool {
    tcb.iter().zip(limit).all(|(part, limit)| *part <= limit)
}
