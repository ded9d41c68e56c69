//! SEV and SEV-ES guests: their states, their measurement, their packets.
//!
//! Source: AMD 55766 "SEV API Specification" revision 3.24, chapters 5 and 6.

use super::Status;
use super::platform::Platform;
use super::session::{PacketHeader, PacketKind, Session, TransportKeys, mac};
use super::sev_certs::{PDH, PEK, SevCertificate};
use exeunt_abi::kvm::sev::firmware;
use p384::ecdsa::Signature;
use p384::ecdsa::signature::hazmat::PrehashSigner as _;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use zerocopy::FromBytes as _;

/// Bits of an SEV guest's policy.
pub mod policy {
    /// Bit 0: no debugging.
    pub const NODBG: u32 = 1 << 0;
    /// Bit 1: no other guest shares the key.
    pub const NOKS: u32 = 1 << 1;
    /// Bit 2: SEV-ES is required.
    pub const ES: u32 = 1 << 2;
    /// Bit 3: the guest must not be sent.
    pub const NOSEND: u32 = 1 << 3;
}

/// `GSTATE`, as `KVM_SEV_GUEST_STATUS` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SevState {
    /// Memory is added and measured.
    LaunchUpdate = 1,
    /// Measured: secrets can be put in.
    LaunchSecret = 2,
    /// The guest may run.
    Running = 3,
    /// The guest is sent.
    SendUpdate = 4,
    /// The guest is received.
    ReceiveUpdate = 5,
    /// The guest has been sent.
    Sent = 6,
}

/// Bytes of a measurement: the MAC and the nonce.
pub const MEASUREMENT_BYTES: usize = 48;
/// Bytes of an SEV attestation report.
pub const SEV_REPORT_BYTES: usize = 208;

/// A guest.
#[derive(Clone, Debug)]
pub(crate) struct SevGuest {
    pub(crate) state: SevState,
    pub(crate) policy: u32,
    asid: Option<u32>,
    keys: TransportKeys,
    digest: Sha256,
    measurement: [u8; 32],
    packets: u64,
}

/// The guests, and the platform's own keys.
#[derive(Debug, Default)]
pub(crate) struct SevGuests {
    pub(crate) initialised: bool,
    pub(crate) pek_generation: u64,
    pub(crate) pdh_generation: u64,
    /// The PEK was certified by an owner.
    pub(crate) is_owned: bool,
    guests: BTreeMap<u32, SevGuest>,
    asids: BTreeSet<u32>,
    next: u32,
}

impl SevGuests {
    /// `INIT`. The driver does not send it twice.
    pub(crate) fn init(&mut self) {
        self.initialised = true;
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.guests.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn get(&self, handle: u32) -> Result<&SevGuest, Status> {
        self.guests.get(&handle).ok_or(firmware::INVALID_GUEST)
    }

    fn in_state(&mut self, handle: u32, state: SevState) -> Result<&mut SevGuest, Status> {
        let guest = self.guests.get_mut(&handle).ok_or(firmware::INVALID_GUEST)?;
        if guest.state == state { Ok(guest) } else { Err(firmware::INVALID_GUEST_STATE) }
    }

    fn add(&mut self, guest: SevGuest) -> u32 {
        self.next = self.next.saturating_add(1);
        self.guests.insert(self.next, guest);
        self.next
    }

    /// `ACTIVATE`.
    pub(crate) fn activate(&mut self, handle: u32, asid: u32) -> Result<(), Status> {
        let guest = self.guests.get_mut(&handle).ok_or(firmware::INVALID_GUEST)?;
        if asid == 0 {
            return Err(firmware::INVALID_ASID);
        }
        if !self.asids.insert(asid) {
            return Err(firmware::ASID_OWNED);
        }
        guest.asid = Some(asid);
        Ok(())
    }

    /// `DEACTIVATE` and `DECOMMISSION`.
    pub(crate) fn decommission(&mut self, handle: u32) {
        if let Some(asid) = self.guests.remove(&handle).and_then(|guest| guest.asid) {
            self.asids.remove(&asid);
        }
    }

    /// `LAUNCH_UPDATE_DATA` and `LAUNCH_UPDATE_VMSA`.
    pub(crate) fn launch_update(&mut self, handle: u32, data: &[u8]) -> Result<(), Status> {
        let guest = self.in_state(handle, SevState::LaunchUpdate)?;
        if data.len() % 16 != 0 {
            return Err(firmware::INVALID_LEN);
        }
        guest.digest.update(data);
        Ok(())
    }

    /// `LAUNCH_FINISH`.
    pub(crate) fn launch_finish(&mut self, handle: u32) -> Result<(), Status> {
        self.in_state(handle, SevState::LaunchSecret)?.state = SevState::Running;
        Ok(())
    }

    /// `LAUNCH_UPDATE_SECRET`: decrypts in place.
    pub(crate) fn launch_secret(
        &mut self,
        handle: u32,
        header: &[u8],
        data: &mut [u8],
    ) -> Result<(), Status> {
        let guest = self.in_state(handle, SevState::LaunchSecret)?;
        let header = PacketHeader::read_from_bytes(header).map_err(|_| firmware::INVALID_LEN)?;
        let opened = guest.keys.open(PacketKind::Secret, &header, &guest.measurement, data);
        opened.ok_or(firmware::BAD_MEASUREMENT)
    }

    /// `DBG_DECRYPT` and `DBG_ENCRYPT`: whether the policy allows it.
    pub(crate) fn debug_allowed(&self, handle: u32) -> Result<(), Status> {
        if self.get(handle)?.policy & policy::NODBG == 0 { Ok(()) } else { Err(firmware::POLICY_FAILURE) }
    }

    /// `SEND_UPDATE_DATA`: encrypts in place.
    pub(crate) fn send_update(&mut self, handle: u32, data: &mut [u8]) -> Result<PacketHeader, Status> {
        let guest = self.in_state(handle, SevState::SendUpdate)?;
        guest.packets = guest.packets.saturating_add(1);
        let mut iv = [0; 16];
        iv.iter_mut().zip(guest.packets.to_be_bytes()).for_each(|(to, from)| *to = from);
        Ok(guest.keys.seal(PacketKind::Data, iv, &[], data))
    }

    /// `RECEIVE_UPDATE_DATA`: decrypts in place.
    pub(crate) fn receive_update(
        &mut self,
        handle: u32,
        header: &[u8],
        data: &mut [u8],
    ) -> Result<(), Status> {
        let guest = self.in_state(handle, SevState::ReceiveUpdate)?;
        let header = PacketHeader::read_from_bytes(header).map_err(|_| firmware::INVALID_LEN)?;
        guest.keys.open(PacketKind::Data, &header, &[], data).ok_or(firmware::BAD_MEASUREMENT)
    }

    /// `SEND_FINISH`, `SEND_CANCEL`, `RECEIVE_FINISH`.
    pub(crate) fn step(&mut self, handle: u32, from: SevState, to: SevState) -> Result<(), Status> {
        self.in_state(handle, from)?.state = to;
        Ok(())
    }
}

impl Platform {
    fn new_sev_guest(&self, state: SevState, policy: u32, keys: Option<TransportKeys>) -> SevGuest {
        let number = self.sev.next.to_le_bytes();
        let own = || TransportKeys {
            tek: self.seed.derive("sev tek", &[&number]),
            tik: self.seed.derive("sev tik", &[&number]),
        };
        SevGuest {
            state,
            policy,
            asid: None,
            keys: keys.unwrap_or_else(own),
            digest: Sha256::new(),
            measurement: [0; 32],
            packets: 0,
        }
    }

    /// The keys of a session that somebody made for this platform.
    fn session_keys(&self, certificate: &[u8], session: &[u8], policy: u32) -> Result<TransportKeys, Status> {
        let certificate =
            SevCertificate::read_from_bytes(certificate).map_err(|_| firmware::INVALID_CERTIFICATE)?;
        let peer = certificate.public_key().ok_or(firmware::INVALID_CERTIFICATE)?;
        let session = Session::read_from_bytes(session).map_err(|_| firmware::INVALID_LEN)?;
        let secret = self.sev_key(PDH)?;
        session.open(policy, &secret.into(), &peer).ok_or(firmware::BAD_MEASUREMENT)
    }

    /// `LAUNCH_START`. Without a session the keys are the firmware's own, and the owner has to trust the host.
    pub(crate) fn sev_launch_start(
        &mut self,
        shared_with: u32,
        policy: u32,
        session: Option<(&[u8], &[u8])>,
    ) -> Result<u32, Status> {
        let (major, minor) = (policy >> 16 & 0xff, policy >> 24);
        if (major, minor) > (u32::from(self.current.major), u32::from(self.current.minor)) {
            return Err(firmware::POLICY_FAILURE);
        }
        if shared_with != 0 {
            let other = self.sev.get(shared_with)?;
            if (other.policy | policy) & policy::NOKS != 0 || other.policy != policy {
                return Err(firmware::POLICY_FAILURE);
            }
        }
        let keys = session.map(|(cert, data)| self.session_keys(cert, data, policy)).transpose()?;
        let guest = self.new_sev_guest(SevState::LaunchUpdate, policy, keys);
        Ok(self.sev.add(guest))
    }

    /// `LAUNCH_MEASURE`: the MAC over what was added, and the nonce in it.
    pub(crate) fn sev_launch_measure(&mut self, handle: u32) -> Result<[u8; MEASUREMENT_BYTES], Status> {
        let nonce: [u8; 16] = self.seed.derive("sev measurement nonce", &[&handle.to_le_bytes()]);
        let version = [self.current.major, self.current.minor, self.current.build];
        let guest = self.sev.in_state(handle, SevState::LaunchUpdate)?;
        let digest = guest.digest.clone().finalize();
        let policy = guest.policy.to_le_bytes();
        guest.measurement = mac(&guest.keys.tik, &[&[4], &version, &policy, &digest, &nonce]);
        guest.state = SevState::LaunchSecret;
        let mut answer = [0; MEASUREMENT_BYTES];
        answer.iter_mut().zip(guest.measurement.iter().chain(&nonce)).for_each(|(to, from)| *to = *from);
        Ok(answer)
    }

    /// `ATTESTATION`: nonce, digest and policy, signed with the PEK.
    pub(crate) fn sev_report(&self, handle: u32, nonce: [u8; 16]) -> Result<Vec<u8>, Status> {
        let guest = self.sev.get(handle)?;
        let digest: [u8; 32] = guest.digest.clone().finalize().into();
        let mut report = [nonce.as_slice(), &digest, &guest.policy.to_le_bytes()].concat();
        let signature: Signature = self
            .sev_key(PEK)?
            .sign_prehash(&Sha256::digest(&report))
            .map_err(|_| firmware::HWSEV_RET_PLATFORM)?;
        // Usage and algorithm of the signature, reserved.
        report.extend([PEK, 2, 0].map(u32::to_le_bytes).concat());
        let wire = super::identity::to_wire(&signature);
        report.extend_from_slice(&wire.r);
        report.extend_from_slice(&wire.s);
        Ok(report)
    }

    /// `SEND_START`: the keys go with a session for the receiver's PDH. The chains of certificates are not looked into:
    /// the model's platforms have no authority in common.
    pub(crate) fn sev_send_start(&mut self, handle: u32, receiver: &[u8]) -> Result<(u32, Session), Status> {
        let receiver =
            SevCertificate::read_from_bytes(receiver).map_err(|_| firmware::INVALID_CERTIFICATE)?;
        let peer = receiver.public_key().ok_or(firmware::INVALID_CERTIFICATE)?;
        let secret = self.sev_key(PDH)?;
        let fresh = |name| self.seed.derive(name, &[&handle.to_le_bytes()]);
        let [nonce, iv] = [fresh("sev send nonce"), fresh("sev send iv")];
        let guest = self.sev.in_state(handle, SevState::Running)?;
        if guest.policy & policy::NOSEND != 0 {
            return Err(firmware::POLICY_FAILURE);
        }
        guest.state = SevState::SendUpdate;
        Ok((guest.policy, Session::wrap(guest.keys, guest.policy, [nonce, iv], &secret.into(), &peer)))
    }

    /// `RECEIVE_START`.
    pub(crate) fn sev_receive_start(
        &mut self,
        policy: u32,
        sender: &[u8],
        session: &[u8],
    ) -> Result<u32, Status> {
        let keys = self.session_keys(sender, session, policy)?;
        let guest = self.new_sev_guest(SevState::ReceiveUpdate, policy, Some(keys));
        Ok(self.sev.add(guest))
    }
}
