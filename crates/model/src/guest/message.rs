//! What an SNP guest's driver does to talk to the firmware: seal a request, hand it over, open the response.
//!
//! Source: Linux v7.2 `arch/x86/coco/sev/core.c`, `snp_send_guest_request`; AMD 56860 revision 1.58, chapter 7.

use super::snp::{Answer, Ghcb};
use super::{Access, Cpu, GuestFault};
use crate::psp::{Kind, MessageKey};
use exeunt_abi::ghcb::guest_message::msg_type;
use exeunt_abi::ghcb::{exit_code, page};
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::psp::message::{KeyRequest, KeyResponse, ReportRequest};
use exeunt_abi::psp::page::SecretsPage;
use exeunt_abi::{Gpa, PAGE_SIZE};
use std::mem::offset_of;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a page as a length.
const PAGE: usize = 4096;

/// The guest's end of one VMPCK.
#[derive(Clone, Debug)]
pub struct Channel {
    key: MessageKey,
    vmpck: u8,
    /// The sequence number of the last message under the key.
    seqno: u64,
}

/// The pages of a request: both shared, and different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// The request.
    pub request: Gpa,
    /// The response.
    pub response: Gpa,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The payload of the response, and what the GHCB said.
    Payload(Vec<u8>, Answer),
    /// The firmware or the VMM refused it: `SW_EXITINFO2` says who.
    Refused(Answer),
    /// What the response page holds is no response to this request. A real guest gives the key up.
    NotAuthentic(Answer),
}

/// Room for certificates: the first page, and how many pages.
pub type CertificateBuffer = (Gpa, u64);

impl Channel {
    /// The channel of a key.
    #[must_use]
    pub fn new(key: &[u8; 32], vmpck: u8) -> Self {
        Self { key: MessageKey::new(key), vmpck, seqno: 0 }
    }

    /// The channel of a privilege level, with the key that the secrets page at `gpa` has for it.
    ///
    /// # Errors
    ///
    /// The exception of an access to the page.
    pub async fn from_secrets(cpu: &Cpu, gpa: Gpa, vmpl: u8) -> Result<Self, GuestFault> {
        let offset =
            (offset_of!(SecretsPage, vmpck) as u64).saturating_add(u64::from(vmpl).saturating_mul(32));
        let bytes = cpu.read(Gpa(gpa.0.saturating_add(offset)), 32, Access::Private).await?;
        Ok(Self::new(bytes.first_chunk().unwrap_or(&[0; 32]), vmpl))
    }

    /// The sequence number of the last message under the key.
    #[must_use]
    pub const fn seqno(&self) -> u64 {
        self.seqno
    }

    /// The page of the next request. Sealing it again gives the same page, and a new one only when a response was opened.
    #[must_use]
    pub fn seal(&self, msg_type: u8, payload: &[u8]) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        let kind = Kind { msg_type, version: 1, vmpck: self.vmpck };
        // A payload that does not fit leaves the page without a message, which the firmware refuses.
        let _ = self.key.seal(&mut page, self.seqno.saturating_add(1), kind, payload);
        page
    }

    /// Opens the response to the last request. `None` if it is none: another sequence number, type, key or tag.
    pub fn open(&mut self, request_type: u8, mut page: Vec<u8>) -> Option<Vec<u8>> {
        let next = self.seqno.checked_add(2)?;
        let (header, payload) = self.key.open(&mut page).ok()?;
        let is_answer = header.msg_type == request_type.wrapping_add(1)
            && header.msg_seqno == next
            && header.msg_vmpck == self.vmpck;
        if !is_answer {
            return None;
        }
        let payload = payload.to_vec();
        self.seqno = next;
        Some(payload)
    }

    /// Makes a request by `GUEST_REQUEST`, or by `EXT_GUEST_REQUEST` with room for certificates.
    ///
    /// # Errors
    ///
    /// The exception of an access to the pages.
    pub async fn request(
        &mut self,
        cpu: &Cpu,
        ghcb: &Ghcb,
        pages: Pages,
        certificates: Option<CertificateBuffer>,
        (msg_type, payload): (u8, &[u8]),
    ) -> Result<Reply, GuestFault> {
        cpu.write(pages.request, &self.seal(msg_type, payload), Access::Shared).await?;
        let info = [pages.request.0, pages.response.0];
        let answer = match certificates {
            None => ghcb.request(cpu, exit_code::GUEST_REQUEST, info, &[]).await?,
            Some((buffer, count)) => {
                let fields = [(page::RAX, buffer.0), (page::RBX, count)];
                ghcb.request(cpu, exit_code::EXT_GUEST_REQUEST, info, &fields).await?
            }
        };
        if answer.info_1 != 0 || answer.info_2 != 0 {
            return Ok(Reply::Refused(answer));
        }
        let bytes = usize::try_from(PAGE_SIZE).unwrap_or(PAGE);
        let response = cpu.read(pages.response, bytes, Access::Shared).await?;
        Ok(match self.open(msg_type, response) {
            Some(payload) => Reply::Payload(payload, answer),
            None => Reply::NotAuthentic(answer),
        })
    }

    /// Asks for an attestation report over `report_data`. The payload of the reply is what
    /// `exeunt_proto::report::Report::parse_response` takes.
    ///
    /// # Errors
    ///
    /// The exception of an access to the pages.
    pub async fn report(
        &mut self,
        cpu: &Cpu,
        ghcb: &Ghcb,
        pages: Pages,
        certificates: Option<CertificateBuffer>,
        report_data: [u8; 64],
    ) -> Result<Reply, GuestFault> {
        let vmpl = u32::from(self.vmpck);
        let request = ReportRequest { report_data, vmpl, key_sel: 0, rsvd: [0; 24] };
        let message = (msg_type::REPORT_REQ, request.as_bytes());
        self.request(cpu, ghcb, pages, certificates, message).await
    }

    /// Asks for a derived key. `None` if the request or the key was refused.
    ///
    /// # Errors
    ///
    /// The exception of an access to the pages.
    pub async fn derive_key(
        &mut self,
        cpu: &Cpu,
        ghcb: &Ghcb,
        pages: Pages,
        request: &KeyRequest,
    ) -> Result<Option<[u8; 32]>, GuestFault> {
        let message = (msg_type::KEY_REQ, request.as_bytes());
        let Reply::Payload(payload, _) = self.request(cpu, ghcb, pages, None, message).await? else {
            return Ok(None);
        };
        let response = KeyResponse::read_from_bytes(&payload).ok();
        Ok(response.filter(|response| response.status == firmware::SUCCESS).map(|response| response.key))
    }
}
