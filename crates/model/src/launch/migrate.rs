//! Sending and receiving an SEV guest.
//!
//! Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, the function that each of these names.

use super::call::{BLOB_BYTES_MAX, Call};
use super::{pin, sev};
use crate::psp::session::{PacketHeader, Session};
use crate::psp::sev::SevState;
use crate::state::VmState;
use exeunt_abi::kvm::sev::{ReceiveStart, ReceiveUpdateData, SendStart, SendUpdateData, firmware};
use exeunt_abi::{Errno, PAGE_SIZE};
use std::mem::size_of;
use zerocopy::IntoBytes as _;

/// Bytes of the session data, as a length of the structs.
const SESSION_BYTES: u32 = 128;
const _: () = assert!(size_of::<Session>() == SESSION_BYTES as usize);
/// Bytes of a packet's header, as a length of the structs.
const HEADER_BYTES: u32 = 52;
const _: () = assert!(size_of::<PacketHeader>() == HEADER_BYTES as usize);

/// `sev_send_start`.
pub(super) fn send_start(state: &mut VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    state.sev.check_guest()?;
    let mut params: SendStart = call.params()?;
    let (handle, file) = (state.sev.number(), state.sev.file);
    if params.session_len == 0 {
        let refused = call.issue_by(file, |_| Err::<(), _>(firmware::INVALID_LEN));
        params.session_len = SESSION_BYTES;
        return call.set_params(&params).and(refused);
    }
    let has_all = params.pdh_cert_uaddr != 0 && params.pdh_cert_len != 0 && params.session_uaddr != 0;
    if !has_all || params.session_len > BLOB_BYTES_MAX {
        return Err(Errno::EINVAL);
    }
    let pdh = call.blob(params.pdh_cert_uaddr, params.pdh_cert_len, BLOB_BYTES_MAX)?;
    call.blob(params.plat_certs_uaddr, params.plat_certs_len, BLOB_BYTES_MAX)?;
    call.blob(params.amd_certs_uaddr, params.amd_certs_len, BLOB_BYTES_MAX)?;
    let room = params.session_len;
    let sent = call.issue_by(file, |platform| {
        if room < SESSION_BYTES { Err(firmware::INVALID_LEN) } else { platform.sev_send_start(handle, &pdh) }
    });
    let result = match &sent {
        Ok((policy, session)) => {
            params.policy = *policy;
            // The whole buffer is copied, zeros behind the session.
            let mut bytes = session.as_bytes().to_vec();
            bytes.resize(usize::try_from(room).unwrap_or_default(), 0);
            call.user.write(params.session_uaddr, &bytes)
        }
        Err(errno) => Err(*errno),
    };
    params.session_len = SESSION_BYTES;
    call.set_params(&params).and(result)
}

fn is_in_a_page(uaddr: u64, len: u32) -> bool {
    u64::from(len).saturating_add(uaddr & (PAGE_SIZE - 1)) <= PAGE_SIZE
}

/// `sev_send_update_data`.
pub(super) fn send_update_data(state: &mut VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    state.sev.check_guest()?;
    let mut params: SendUpdateData = call.params()?;
    let (handle, file) = (state.sev.number(), state.sev.file);
    if params.trans_len == 0 || params.hdr_len == 0 {
        let refused = call.issue_by(file, |_| Err::<(), _>(firmware::INVALID_LEN));
        (params.hdr_len, params.trans_len) = (HEADER_BYTES, params.guest_len);
        return call.set_params(&params).and(refused);
    }
    let has_all =
        params.trans_uaddr != 0 && params.guest_uaddr != 0 && params.guest_len != 0 && params.hdr_uaddr != 0;
    if !has_all || !is_in_a_page(params.guest_uaddr, params.guest_len) {
        return Err(Errno::EINVAL);
    }
    let mut data = pin::read(call.user, params.guest_uaddr, params.guest_len.into())?;
    let header = call.issue_by(file, |platform| {
        if params.hdr_len < HEADER_BYTES || params.trans_len < params.guest_len {
            return Err(firmware::INVALID_LEN);
        }
        platform.sev.send_update(handle, &mut data)
    })?;
    call.user.write(params.trans_uaddr, &data)?;
    call.user.write(params.hdr_uaddr, header.as_bytes())
}

/// `sev_send_finish`, `sev_send_cancel` and `sev_receive_finish`.
pub(super) fn step(
    state: &mut VmState,
    call: &mut Call<'_>,
    from: SevState,
    to: SevState,
) -> Result<(), Errno> {
    state.sev.check_guest()?;
    let handle = state.sev.number();
    call.issue_by(state.sev.file, |platform| platform.sev.step(handle, from, to))?;
    state.launched |= to == SevState::Running;
    Ok(())
}

/// `sev_receive_start`.
pub(super) fn receive_start(state: &mut VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    state.sev.check_guest()?;
    let mut params: ReceiveStart = call.params()?;
    if params.pdh_uaddr == 0 || params.pdh_len == 0 || params.session_uaddr == 0 || params.session_len == 0 {
        return Err(Errno::EINVAL);
    }
    let pdh = call.blob(params.pdh_uaddr, params.pdh_len, BLOB_BYTES_MAX)?;
    let session = call.blob(params.session_uaddr, params.session_len, BLOB_BYTES_MAX)?;
    let number = call.issue(|platform| platform.sev_receive_start(params.policy, &pdh, &session))?;
    sev::bind(&mut state.sev, call, number)?;
    params.handle = number;
    state.sev.policy = params.policy.into();
    call.set_params(&params).inspect_err(|_| state.sev.handle = None)
}

/// `sev_receive_update_data`.
pub(super) fn receive_update_data(state: &mut VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    // Not the number that the others have for a VM that is no guest.
    state.sev.check_guest().map_err(|_| Errno::EINVAL)?;
    let params: ReceiveUpdateData = call.params()?;
    let addresses = [params.hdr_uaddr, params.guest_uaddr, params.trans_uaddr];
    let lengths = [params.hdr_len, params.guest_len, params.trans_len];
    let is_in_a_page = is_in_a_page(params.guest_uaddr, params.guest_len);
    if addresses.contains(&0) || lengths.contains(&0) || !is_in_a_page {
        return Err(Errno::EINVAL);
    }
    let header = call.blob(params.hdr_uaddr, params.hdr_len, BLOB_BYTES_MAX)?;
    let mut data = call.blob(params.trans_uaddr, params.trans_len, BLOB_BYTES_MAX)?;
    pin::check_writable(call.user, params.guest_uaddr, params.guest_len.into())?;
    let handle = state.sev.number();
    call.issue_by(state.sev.file, |platform| {
        if params.guest_len != params.trans_len {
            return Err(firmware::INVALID_LEN);
        }
        platform.sev.receive_update(handle, &header, &mut data)
    })?;
    call.user.write(params.guest_uaddr, &data).map_err(|_| Errno::ENOMEM)
}
