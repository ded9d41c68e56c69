//! The context of an SNP guest in the firmware, from its creation to its end.

use super::Status;
use super::cpuid;
use super::digest::{LaunchDigest, PageType, VMSA_GPA};
use super::identity::Identity;
use super::message::MessageKey;
use super::platform::Version;
use super::seed::Seed;
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::kvm::sev::snp::policy;
use exeunt_abi::psp::identity::{IdAuth, IdBlock};
use exeunt_abi::psp::page::SecretsPage;
use zerocopy::{FromZeros, IntoBytes};

/// Version of the secrets page: the one with `tsc_factor`.
const SECRETS_VERSION: u32 = 4;

/// `GSTATE`, as `SNP_GUEST_STATUS` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestState {
    /// The context exists.
    Init = 0,
    /// Pages are added.
    Launch = 1,
    /// The guest may run and ask.
    Running = 2,
}

/// A key of a privilege level, and the messages that it was used for.
#[derive(Clone, Debug)]
pub(crate) struct Vmpck {
    bytes: [u8; 32],
    pub(crate) key: MessageKey,
    /// The sequence number of the last message under this key.
    pub(crate) count: u64,
}

impl Vmpck {
    fn new(bytes: [u8; 32]) -> Self {
        Self { bytes, key: MessageKey::new(&bytes), count: 0 }
    }
}

/// What `SNP_LAUNCH_FINISH` is given.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Finish<'a> {
    /// The ID block, its authentication, and whether that has an author key.
    pub(crate) id: Option<(&'a IdBlock, &'a IdAuth, bool)>,
    pub(crate) host_data: [u8; 32],
    pub(crate) vcek_disabled: bool,
}

/// A guest context.
#[derive(Clone, Debug)]
pub(crate) struct SnpGuest {
    pub(crate) state: GuestState,
    pub(crate) asid: Option<u32>,
    pub(crate) policy: u64,
    gosvw: [u8; 16],
    pub(crate) digest: LaunchDigest,
    pub(crate) vmpck: [Vmpck; 4],
    pub(crate) vmrk: [u8; 32],
    pub(crate) report_id: [u8; 32],
    pub(crate) identity: Option<Identity>,
    pub(crate) host_data: [u8; 32],
    pub(crate) vcek_disabled: bool,
    pub(crate) launch: Version,
}

impl SnpGuest {
    /// `SNP_GCTX_CREATE`, with the keys that the guest will have.
    pub(crate) fn new(seed: &Seed, number: u64, version: Version) -> Self {
        let guest = number.to_le_bytes();
        Self {
            state: GuestState::Init,
            asid: None,
            policy: 0,
            gosvw: [0; 16],
            digest: LaunchDigest::new(),
            vmpck: [0u8, 1, 2, 3].map(|vmpl| Vmpck::new(seed.derive("vmpck", &[&guest, &[vmpl]]))),
            vmrk: seed.derive("vmrk", &[&guest]),
            report_id: seed.derive("report id", &[&guest]),
            identity: None,
            host_data: [0; 32],
            vcek_disabled: false,
            launch: version,
        }
    }

    /// `SNP_LAUNCH_START`. `fits` says whether the platform meets the policy.
    pub(crate) fn launch_start(&mut self, policy: u64, gosvw: [u8; 16], fits: bool) -> Result<(), Status> {
        if self.state != GuestState::Init {
            return Err(firmware::INVALID_GUEST_STATE);
        }
        if policy & policy::RSVD == 0 || policy & !policy::KNOWN_MASK != 0 {
            return Err(firmware::INVALID_PARAM);
        }
        if !fits {
            return Err(firmware::POLICY_FAILURE);
        }
        self.policy = policy;
        self.gosvw = gosvw;
        self.state = GuestState::Launch;
        Ok(())
    }

    /// `SNP_LAUNCH_UPDATE` of one page: what the firmware fills or corrects is changed in place.
    pub(crate) fn launch_update(
        &mut self,
        page_type: PageType,
        gpa: u64,
        page: &mut [u8; 4096],
        fms: u32,
    ) -> Result<(), Status> {
        if self.state != GuestState::Launch {
            return Err(firmware::INVALID_GUEST_STATE);
        }
        match page_type {
            PageType::Zero => page.fill(0),
            PageType::Secrets => page.copy_from_slice(self.secrets(fms).as_bytes()),
            PageType::Cpuid => cpuid::check_page(page)?,
            PageType::Normal | PageType::Vmsa | PageType::Unmeasured => {}
        }
        let gpa = if page_type == PageType::Vmsa { VMSA_GPA } else { gpa };
        self.digest.add_page(page_type, gpa, page);
        Ok(())
    }

    fn secrets(&self, fms: u32) -> SecretsPage {
        let mut page = SecretsPage::new_zeroed();
        page.version = SECRETS_VERSION;
        page.fms = fms;
        page.gosvw = self.gosvw;
        for (to, from) in page.vmpck.iter_mut().zip(&self.vmpck) {
            *to = from.bytes;
        }
        page
    }

    /// `SNP_LAUNCH_FINISH`.
    pub(crate) fn launch_finish(&mut self, finish: &Finish<'_>) -> Result<(), Status> {
        if self.state != GuestState::Launch {
            return Err(firmware::INVALID_GUEST_STATE);
        }
        if let Some((block, auth, has_author)) = finish.id {
            let digest = self.digest.bytes();
            self.identity = Some(Identity::check(block, auth, has_author, digest, self.policy)?);
        }
        self.host_data = finish.host_data;
        self.vcek_disabled = finish.vcek_disabled;
        self.state = GuestState::Running;
        Ok(())
    }
}
