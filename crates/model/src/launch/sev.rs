//! Launching, watching and debugging an SEV or SEV-ES guest.
//!
//! Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, the function that each of these names.

use super::call::{BLOB_BYTES_MAX, Call};
use super::{Sev, pin};
use crate::psp::Psp;
use crate::psp::sev::{MEASUREMENT_BYTES, SEV_REPORT_BYTES};
use crate::state::VmState;
use exeunt_abi::kvm::sev::{
    AttestationReport, Dbg, GuestStatus, LaunchMeasure, LaunchSecret, LaunchStart, LaunchUpdateData, firmware,
};
use exeunt_abi::{Errno, PAGE_SIZE};

/// Bytes that go to the firmware at once: KVM sends runs of pages that follow one another, up to a large page.
const CHUNK_BYTES: u64 = 2 << 20;

/// The guest's handle in the firmware. It goes with the VM.
#[derive(Debug)]
pub(crate) struct Handle {
    psp: Psp,
    pub(crate) number: u32,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.psp.peek(|platform| platform.sev.decommission(self.number));
    }
}

/// `sev_launch_start`.
pub(super) fn launch_start(state: &mut VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    state.sev.check_guest()?;
    let mut params: LaunchStart = call.params()?;
    let blob = |call: &Call<'_>, uaddr, len| {
        if uaddr == 0 { Ok(None) } else { call.blob(uaddr, len, BLOB_BYTES_MAX).map(Some) }
    };
    let certificate = blob(call, params.dh_uaddr, params.dh_len)?;
    let session = blob(call, params.session_uaddr, params.session_len)?;
    let session = certificate.as_deref().zip(session.as_deref());
    let number = call.issue(|platform| platform.sev_launch_start(params.handle, params.policy, session))?;
    bind(&mut state.sev, call, number)?;
    params.handle = number;
    state.sev.policy = params.policy.into();
    call.set_params(&params).inspect_err(|_| state.sev.handle = None)
}

/// `sev_bind_asid`. The handle that the VM had before is given up.
pub(super) fn bind(sev: &mut Sev, call: &mut Call<'_>, number: u32) -> Result<(), Errno> {
    let handle = Handle { psp: call.host.psp().clone(), number };
    sev.handle = None;
    let asid = sev.asid.as_ref().map_or(0, |asid| asid.number);
    call.issue(|platform| platform.sev.activate(number, asid))?;
    sev.file = call.cmd.sev_fd;
    sev.handle = Some(handle);
    Ok(())
}

/// `sev_launch_update_data`.
pub(super) fn launch_update_data(state: &VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    state.sev.check_guest()?;
    let params: LaunchUpdateData = call.params()?;
    let len = u64::from(params.len);
    pin::check(params.uaddr, len)?;
    pin::check_writable(call.user, params.uaddr, len)?;
    let handle = state.sev.number();
    let mut done = 0;
    while done < len {
        let part = len.saturating_sub(done).min(CHUNK_BYTES);
        let data = pin::read(call.user, params.uaddr.wrapping_add(done), part)?;
        call.issue_by(state.sev.file, |platform| platform.sev.launch_update(handle, &data))?;
        done = done.saturating_add(part);
    }
    Ok(())
}

/// `sev_launch_update_vmsa`. A failure leaves the vCPUs before protected.
pub(super) fn launch_update_vmsa(state: &mut VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    if !state.sev.active || !state.sev.is_es {
        return Err(Errno::ENOTTY);
    }
    let ids: Vec<u64> = state.sev.vcpus.keys().copied().collect();
    for id in ids {
        let page = Box::new(state.sev.sync_vmsa(id)?);
        let handle = state.sev.number();
        call.issue_by(state.sev.file, |platform| platform.sev.launch_update(handle, page.as_slice()))?;
        state.sev.protect(id);
    }
    Ok(())
}

/// `sev_launch_measure`.
pub(super) fn launch_measure(state: &VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    state.sev.check_guest()?;
    let mut params: LaunchMeasure = call.params()?;
    let handle = state.sev.number();
    let needed = MEASUREMENT_BYTES;
    let answered = answer(state, call, params.uaddr, &mut params.len, needed, |platform| {
        platform.sev_launch_measure(handle).map(|bytes| bytes.to_vec())
    });
    finish_answer(call, answered, &params)
}

/// `sev_get_attestation_report`.
pub(super) fn attestation_report(state: &VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    state.sev.check_guest()?;
    let mut params: AttestationReport = call.params()?;
    let (handle, nonce) = (state.sev.number(), params.mnonce);
    let needed = SEV_REPORT_BYTES;
    let answered = answer(state, call, params.uaddr, &mut params.len, needed, |platform| {
        platform.sev_report(handle, nonce)
    });
    finish_answer(call, answered, &params)
}

/// What became of a command whose answer has a length.
#[derive(Clone, Copy)]
enum Answered {
    /// Nothing is to be written back.
    Failed(Errno),
    /// The struct is to be written back with the length.
    Done(Result<(), Errno>),
}

/// A command that answers into a buffer, or says how long that has to be: the firmware refuses a short one and leaves the
/// length that it needs.
fn answer(
    state: &VmState,
    call: &mut Call<'_>,
    uaddr: u64,
    len: &mut u32,
    needed: usize,
    run: impl FnOnce(&mut crate::psp::Platform) -> Result<Vec<u8>, u32>,
) -> Answered {
    let asks = *len == 0;
    if !asks && uaddr != 0 && *len > BLOB_BYTES_MAX {
        return Answered::Failed(Errno::EINVAL);
    }
    // Without an address the firmware is given no length either.
    let room = if uaddr == 0 { 0 } else { usize::try_from(*len).unwrap_or_default() };
    let result =
        call.issue_by(
            state.sev.file,
            |platform| {
                if room < needed { Err(firmware::INVALID_LEN) } else { run(platform) }
            },
        );
    let result = match result {
        Err(errno) if !asks => return Answered::Failed(errno),
        Err(errno) => Err(errno),
        Ok(mut bytes) => {
            // The whole buffer is copied, zeros behind the answer.
            bytes.resize(room, 0);
            call.user.write(uaddr, &bytes)
        }
    };
    *len = u32::try_from(needed).unwrap_or_default();
    Answered::Done(result)
}

fn finish_answer<T>(call: &Call<'_>, answered: Answered, params: &T) -> Result<(), Errno>
where
    T: zerocopy::IntoBytes + zerocopy::Immutable,
{
    match answered {
        Answered::Failed(errno) => Err(errno),
        Answered::Done(result) => call.set_params(params).and(result),
    }
}

/// `sev_launch_finish`.
pub(super) fn launch_finish(state: &mut VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    state.sev.check_guest()?;
    let handle = state.sev.number();
    call.issue_by(state.sev.file, |platform| platform.sev.launch_finish(handle))?;
    state.launched = true;
    Ok(())
}

/// `sev_guest_status`.
pub(super) fn guest_status(state: &VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    state.sev.check_guest()?;
    let handle = state.sev.number();
    let (policy, guest_state) = call.issue_by(state.sev.file, |platform| {
        let guest = platform.sev.get(handle)?;
        Ok((guest.policy, guest.state))
    })?;
    call.set_params(&GuestStatus { handle, policy, state: guest_state as u32 })
}

/// `sev_dbg_crypt`. The model keeps the memory of SEV guests in the clear, so both commands copy.
pub(super) fn debug(state: &VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    state.sev.check_guest()?;
    let params: Dbg = call.params()?;
    let (from, to, len) = (params.src_uaddr, params.dst_uaddr, u64::from(params.len));
    if len == 0 || from.checked_add(len).is_none() || to == 0 {
        return Err(Errno::EINVAL);
    }
    let handle = state.sev.number();
    let mut done = 0;
    while done < len {
        let (from, to) = (from.wrapping_add(done), to.wrapping_add(done));
        let room = |uaddr: u64| PAGE_SIZE.saturating_sub(uaddr & (PAGE_SIZE - 1));
        let part = room(from).min(room(to)).min(len.saturating_sub(done));
        let bytes = pin::read(call.user, from, part)?;
        pin::check_writable(call.user, to, part)?;
        call.issue_by(state.sev.file, |platform| platform.sev.debug_allowed(handle))?;
        call.user.write(to, &bytes).map_err(|_| Errno::ENOMEM)?;
        done = done.saturating_add(part);
    }
    Ok(())
}

/// `sev_launch_secret`.
pub(super) fn launch_secret(state: &VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    state.sev.check_guest()?;
    let params: LaunchSecret = call.params()?;
    pin::check_writable(call.user, params.guest_uaddr, params.guest_len.into())?;
    let mut data = call.blob(params.trans_uaddr, params.trans_len, BLOB_BYTES_MAX)?;
    let header = call.blob(params.hdr_uaddr, params.hdr_len, BLOB_BYTES_MAX)?;
    let handle = state.sev.number();
    call.issue_by(state.sev.file, |platform| {
        if params.guest_len != params.trans_len || params.guest_len % 16 != 0 {
            return Err(firmware::INVALID_LEN);
        }
        platform.sev.launch_secret(handle, &header, &mut data)
    })?;
    call.user.write(params.guest_uaddr, &data).map_err(|_| Errno::ENOMEM)
}
