//! Guest requests: what the firmware makes of an opened message.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI" revision 1.58, chapter 7 "Guest Messages" and section 8.26
//! "`SNP_GUEST_REQUEST`". The specification lists the codes; which of them stands for a sequence number that is not the
//! next one it leaves open, and the model answers `INVALID_PARAM`.

use super::Status;
use super::cpuid;
use super::guest::{GuestState, SnpGuest};
use super::message::{HEADER_BYTES, Kind, OpenError, PAYLOAD_BYTES_MAX, header_of};
use super::platform::{Platform, is_at_most};
use super::report::endorser;
use exeunt_abi::ghcb::guest_message::{ReportResponse, msg_type};
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::psp::message::{
    CpuidHead, KeyRequest, KeyResponse, ReportRequest, TSC_INFO_REQUEST_BYTES, TscInfoResponse, guest_field,
};
use exeunt_abi::psp::page::{CPUID_COUNT_MAX, CpuidFunction};
use exeunt_abi::report::REPORT_BYTES;
use std::mem::size_of;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// The scale of a secure TSC that runs as fast as the host's: 1 with 32 bits behind the point.
const TSC_SCALE_ONE: u64 = 1 << 32;
/// The highest privilege level.
const VMPL_MAX: u32 = 3;

/// A response on its way: its bytes and how many of them there are.
struct Response {
    msg_type: u8,
    bytes: [u8; PAYLOAD_BYTES_MAX],
    len: usize,
}

impl Response {
    fn new(msg_type: u8) -> Self {
        Self { msg_type, bytes: [0; PAYLOAD_BYTES_MAX], len: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(to) = self.bytes.get_mut(self.len..end) {
            to.copy_from_slice(bytes);
            self.len = end;
        }
    }

    fn with(mut self, bytes: &[u8]) -> Self {
        self.push(bytes);
        self
    }
}

impl Platform {
    /// `SNP_GUEST_REQUEST`: opens the request, answers it, and seals the response. The request page is consumed. Nothing
    /// is written to the response page unless the command succeeds.
    pub(crate) fn guest_request(
        &mut self,
        number: u64,
        request: &mut [u8; 4096],
        response: &mut [u8; 4096],
    ) -> Result<(), Status> {
        let guest = self.guest_mut(number)?;
        if guest.state != GuestState::Running {
            return Err(firmware::INVALID_GUEST_STATE);
        }
        let header = header_of(request.as_slice()).map_err(|_| firmware::INVALID_PARAM)?;
        let level = usize::from(header.msg_vmpck);
        let vmpck = guest.vmpck.get(level).ok_or(firmware::INVALID_PARAM)?;
        let count = vmpck.count.checked_add(2).ok_or(firmware::AEAD_OFLOW)?;
        let seqno = count.saturating_sub(1);
        if header.msg_seqno != seqno {
            return Err(firmware::INVALID_PARAM);
        }
        let key = vmpck.key.clone();
        let (_, payload) = key.open(request).map_err(|error| match error {
            OpenError::Header => firmware::INVALID_PARAM,
            OpenError::Tag => firmware::BAD_MEASUREMENT,
        })?;
        let kind = Kind { msg_type: header.msg_type, version: header.msg_version, vmpck: header.msg_vmpck };
        let answer = self.answer(number, kind, payload)?;
        let kind = Kind { msg_type: answer.msg_type, version: 1, ..kind };
        let payload = answer.bytes.get(..answer.len).unwrap_or_default();
        key.seal(response, count, kind, payload).ok_or(firmware::INVALID_LEN)?;
        if let Some(vmpck) = self.guest_mut(number)?.vmpck.get_mut(level) {
            vmpck.count = count;
        }
        Ok(())
    }

    fn answer(&mut self, number: u64, kind: Kind, payload: &[u8]) -> Result<Response, Status> {
        match kind.msg_type {
            msg_type::CPUID_REQ => cpuid_response(payload),
            msg_type::KEY_REQ => self.key_response(number, kind, payload),
            msg_type::REPORT_REQ => self.report_response(number, kind, payload),
            msg_type::TSC_INFO_REQ => tsc_info_response(payload),
            // A migration agent's messages come from a guest that is one, and no guest of the model is.
            _ => Err(firmware::INVALID_PARAM),
        }
    }

    fn report_response(&mut self, number: u64, kind: Kind, payload: &[u8]) -> Result<Response, Status> {
        let request = ReportRequest::read_from_bytes(payload).map_err(|_| firmware::INVALID_PARAM)?;
        // The guest is set aside while the platform signs.
        let guest = self.guest(number)?.clone();
        let report = Self::check_report(&request, kind)
            .and_then(|()| endorser(self, &guest, request.key_sel))
            .and_then(|endorser| self.report(&guest, request.vmpl, request.report_data, endorser));
        let mut head = ReportResponse::new_zeroed();
        let response = Response::new(msg_type::REPORT_RSP);
        match report {
            Ok(report) => {
                head.report_size = u32::try_from(REPORT_BYTES).unwrap_or_default();
                Ok(response.with(head.as_bytes()).with(report.as_bytes()))
            }
            Err(status) => {
                head.status = status;
                Ok(response.with(head.as_bytes()).with(&[0; REPORT_BYTES]))
            }
        }
    }

    fn check_report(request: &ReportRequest, kind: Kind) -> Result<(), Status> {
        let is_reachable = (u32::from(kind.vmpck)..=VMPL_MAX).contains(&request.vmpl);
        let is_clear = request.key_sel & !3 == 0 && request.rsvd == [0; 24];
        if is_reachable && is_clear { Ok(()) } else { Err(firmware::INVALID_PARAM) }
    }

    fn key_response(&mut self, number: u64, kind: Kind, payload: &[u8]) -> Result<Response, Status> {
        let (request, rest) = KeyRequest::read_from_prefix(payload).map_err(|_| firmware::INVALID_PARAM)?;
        let mitigations = match (kind.version, rest) {
            (1, []) => 0,
            (2, rest) => u64::read_from_bytes(rest).map_err(|_| firmware::INVALID_PARAM)?,
            _ => return Err(firmware::INVALID_PARAM),
        };
        let guest = self.guest(number)?;
        let mut response = KeyResponse::new_zeroed();
        match self.derived_key(guest, kind, &request, mitigations) {
            Ok(key) => response.key = key,
            Err(status) => response.status = status,
        }
        Ok(Response::new(msg_type::KEY_RSP).with(response.as_bytes()))
    }

    /// A key that the same guest on the same chip gets again, and nobody else.
    fn derived_key(
        &self,
        guest: &SnpGuest,
        kind: Kind,
        request: &KeyRequest,
        mitigations: u64,
    ) -> Result<[u8; 32], Status> {
        let known = if kind.version >= 2 { guest_field::KNOWN_V2 } else { guest_field::KNOWN_V1 };
        let fields = request.guest_field_select;
        let svn = guest.identity.map_or(0, |identity| identity.guest_svn);
        let is_valid = request.root_key_select & !7 == 0
            && request.rsvd == 0
            && fields & !known == 0
            && (u32::from(kind.vmpck)..=VMPL_MAX).contains(&request.vmpl)
            && request.guest_svn <= svn
            && is_at_most(request.tcb_version.to_le_bytes(), self.committed.tcb);
        if !is_valid {
            return Err(firmware::INVALID_PARAM);
        }
        let root: [u8; 48] = if request.root_key_select & 1 == 1 {
            self.seed.derive("derived key, VMRK", &[&guest.vmrk])
        } else {
            match endorser(self, guest, request.root_key_select >> 1)? {
                super::Endorser::Vcek => self.seed.derive("derived key, VCEK", &[]),
                super::Endorser::Vlek => {
                    self.seed.derive("derived key, VLEK", &[&self.vlek.ok_or(firmware::INVALID_KEY)?])
                }
            }
        };
        let identity = guest.identity;
        let image_id = identity.map_or([0; 16], |identity| identity.image_id);
        let family_id = identity.map_or([0; 16], |identity| identity.family_id);
        let picked = |bit: u64, bytes: &[u8]| if fields & bit == 0 { Vec::new() } else { bytes.to_vec() };
        Ok(self.seed.derive(
            "derived key",
            &[
                &root,
                // With the selection before them the fields, each of a fixed length, cannot be taken for others.
                &fields.to_le_bytes(),
                &request.vmpl.to_le_bytes(),
                &picked(guest_field::GUEST_POLICY, &guest.policy.to_le_bytes()),
                &picked(guest_field::IMAGE_ID, &image_id),
                &picked(guest_field::FAMILY_ID, &family_id),
                &picked(guest_field::MEASUREMENT, &guest.digest.bytes()),
                &picked(guest_field::GUEST_SVN, &request.guest_svn.to_le_bytes()),
                &picked(guest_field::TCB_VERSION, &request.tcb_version.to_le_bytes()),
                &picked(guest_field::LAUNCH_MIT_VECTOR, &mitigations.to_le_bytes()),
            ],
        ))
    }
}

fn cpuid_response(payload: &[u8]) -> Result<Response, Status> {
    let (head, functions) = CpuidHead::read_from_prefix(payload).map_err(|_| firmware::INVALID_PARAM)?;
    let count = usize::try_from(head.count_or_status).unwrap_or(usize::MAX);
    let is_count = head.count_or_status <= CPUID_COUNT_MAX
        && functions.len() == count.saturating_mul(size_of::<CpuidFunction>());
    if !is_count || head.rsvd_or_count != 0 || head.rsvd != 0 {
        return Err(firmware::INVALID_PARAM);
    }
    let mut functions: Vec<CpuidFunction> = functions
        .chunks_exact(size_of::<CpuidFunction>())
        .filter_map(|bytes| CpuidFunction::read_from_bytes(bytes).ok())
        .collect();
    let status = cpuid::check(functions.iter_mut()).err().unwrap_or(firmware::SUCCESS);
    let answer = CpuidHead { count_or_status: status, rsvd_or_count: head.count_or_status, rsvd: 0 };
    let mut response = Response::new(msg_type::CPUID_RSP).with(answer.as_bytes());
    for function in &functions {
        response.push(function.as_bytes());
    }
    Ok(response)
}

fn tsc_info_response(payload: &[u8]) -> Result<Response, Status> {
    if payload.len() != TSC_INFO_REQUEST_BYTES {
        return Err(firmware::INVALID_PARAM);
    }
    let mut info = TscInfoResponse::new_zeroed();
    info.tsc_scale = TSC_SCALE_ONE;
    Ok(Response::new(msg_type::TSC_INFO_RSP).with(info.as_bytes()))
}

/// A message with a header and no payload fits everywhere.
const _: () = assert!(HEADER_BYTES + PAYLOAD_BYTES_MAX == 4096);
