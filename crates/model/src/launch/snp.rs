//! `KVM_SEV_SNP_LAUNCH_START`, `_UPDATE` and `_FINISH`.

use super::call::Call;
use super::host::SevHost;
use crate::faults::Point;
use crate::psp::{Finish, PageType, VMSA_GPA};
use crate::state::{PAGE, VmState};
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::kvm::sev::snp::{
    ID_AUTH_BYTES, ID_BLOCK_BYTES, LaunchFinish, LaunchStart, LaunchUpdate, page_type, policy,
};
use exeunt_abi::psp::identity::{IdAuth, IdBlock};
use exeunt_abi::{Dialect, Errno, Gfn, PAGE_SIZE};
use zerocopy::FromBytes as _;

/// Policy bits that KVM takes whatever the firmware is.
const POLICY_BASE: u64 = policy::ABI_MINOR_MASK
    | policy::ABI_MAJOR_MASK
    | policy::SMT
    | policy::RSVD
    | policy::DEBUG
    | policy::SINGLE_SOCKET;
/// Policy bits that KVM takes with a firmware that knows them.
const POLICY_OF_FEATURES: u64 = policy::CXL_ALLOW
    | policy::MEM_AES_256_XTS
    | policy::RAPL_DIS
    | policy::CIPHERTEXT_HIDING
    | policy::PAGE_SWAP_DISABLE;
/// The first firmware that knows them.
const FEATURES_SINCE: (u8, u8) = (1, 58);

/// Pages that one call adds, after which it ends as if a signal had come, so that none takes for ever: 256 MiB.
const PAGES_AT_ONCE: u64 = 1 << 16;

/// `snp_policy_mask`.
///
/// Source: Linux v7.2 `drivers/crypto/ccp/sev-dev.c`, `sev_get_snp_policy_bits`.
pub(super) fn policy_mask(host: &SevHost, dialect: Dialect) -> u64 {
    let version = host.psp().config().version;
    let features = (version.major, version.minor) >= FEATURES_SINCE;
    if features && dialect.has_snp_policy_bits() { POLICY_BASE | POLICY_OF_FEATURES } else { POLICY_BASE }
}

/// The guest's context in the firmware. It goes with the VM, as `SNP_DECOMMISSION` has it.
#[derive(Debug)]
pub(crate) struct Context {
    psp: crate::psp::Psp,
    pub(crate) guest: u64,
}

impl Drop for Context {
    fn drop(&mut self) {
        // A guest that is gone already is no reason to complain.
        let _ = self.psp.peek(|platform| platform.decommission(self.guest));
    }
}

/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_launch_start`.
pub(super) fn start(state: &mut VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    if !state.sev.is_snp() {
        return Err(Errno::ENOTTY);
    }
    let params: LaunchStart = call.params()?;
    let mask = policy_mask(&call.host, state.kernel.dialect);
    if state.sev.context.is_some() || params.flags != 0 || params.policy & !mask != 0 {
        return Err(Errno::EINVAL);
    }
    if params.policy & policy::RSVD == 0 {
        return Err(Errno::EINVAL);
    }
    // Whatever the reason is that there is no context, KVM has one number for it.
    let guest = call.issue(|platform| Ok(platform.gctx_create())).map_err(|_| Errno::ENOTTY)?;
    let context = Context { psp: call.host.psp().clone(), guest };
    call.issue(|platform| platform.launch_start(guest, params.policy, params.gosvw))?;
    let asid = state.sev.asid.as_ref().map_or(0, |asid| asid.number);
    state.sev.policy = params.policy;
    state.sev.file = call.cmd.sev_fd;
    call.issue_by(state.sev.file, |platform| platform.activate(guest, asid))?;
    state.sev.context = Some(context);
    Ok(())
}

/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_launch_update`, and `virt/kvm/guest_memfd.c`, `kvm_gmem_populate`.
pub(super) fn update(state: &mut VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    let Some(guest) = state.sev.snp_guest() else { return Err(Errno::EINVAL) };
    let mut params: LaunchUpdate = call.params()?;
    let page_type = match params.page_type {
        page_type::NORMAL => PageType::Normal,
        page_type::ZERO => PageType::Zero,
        page_type::UNMEASURED => PageType::Unmeasured,
        page_type::SECRETS => PageType::Secrets,
        page_type::CPUID => PageType::Cpuid,
        _ => return Err(Errno::EINVAL),
    };
    let is_aligned = |number: u64| number & (PAGE_SIZE - 1) == 0;
    if params.len == 0 || !is_aligned(params.len) || params.flags != 0 {
        return Err(Errno::EINVAL);
    }
    let source = (page_type != PageType::Zero).then_some(params.uaddr);
    if !is_aligned(source.unwrap_or(0)) {
        return Err(Errno::EINVAL);
    }
    let slot = state.memory.slot_of(Gfn(params.gfn_start)).filter(|slot| slot.guest_memfd.is_some());
    let end = slot.ok_or(Errno::EINVAL)?.range.end();
    let pages = (params.len / PAGE_SIZE).min(end.0.saturating_sub(params.gfn_start)).min(PAGES_AT_ONCE);
    // `error` is the firmware's only if no page gets done; until then it stays what the caller put there.
    let error = std::mem::take(&mut call.cmd.error);
    let mut done = 0;
    while done < pages {
        let gfn = Gfn(params.gfn_start.saturating_add(done));
        let from = source.map(|uaddr| uaddr.wrapping_add(done.saturating_mul(PAGE_SIZE)));
        if add_page(state, call, guest, page_type, gfn, from).is_err() {
            break;
        }
        done = done.saturating_add(1);
    }
    if done == 0 {
        // Whatever the reason is. What the firmware said is in `error`.
        return Err(Errno::EIO);
    }
    call.cmd.error = error;
    let bytes = done.saturating_mul(PAGE_SIZE);
    params.gfn_start = params.gfn_start.saturating_add(done);
    params.len = params.len.saturating_sub(bytes);
    if source.is_some() {
        params.uaddr = params.uaddr.wrapping_add(bytes);
    }
    call.set_params(&params)
}

/// Source: Linux v7.2 `virt/kvm/guest_memfd.c`, `kvm_gmem_populate`, and `arch/x86/kvm/svm/sev.c`,
/// `sev_gmem_post_populate`.
fn add_page(
    state: &mut VmState,
    call: &mut Call<'_>,
    guest: u64,
    page_type: PageType,
    gfn: Gfn,
    source: Option<u64>,
) -> Result<(), Errno> {
    state.memory.faults.signal_at(Point::LaunchPage)?;
    let mut bytes = Box::new([0; PAGE]);
    if let Some(source) = source {
        if source == 0 {
            return Err(Errno::EINVAL);
        }
        call.user.read(source, bytes.as_mut_slice())?;
        // A table that the firmware corrects is written back, so its page has to be writable before anything is done.
        if page_type == PageType::Cpuid {
            call.user.write(source, bytes.as_slice())?;
        }
    }
    state.memory.prepare_launch_page(gfn, source.is_some().then_some(&bytes))?;
    let gpa = gfn.gpa().0;
    if let Err(errno) = call.issue(|platform| platform.launch_update(guest, page_type, gpa, &mut bytes)) {
        state.memory.reclaim_launch_page(gfn);
        if page_type == PageType::Cpuid && call.cmd.error == firmware::INVALID_PARAM {
            if let Some(source) = source {
                call.user.write(source, bytes.as_slice())?;
            }
        }
        return Err(errno);
    }
    state.memory.write_private(gfn, 0, bytes.as_slice());
    // KVM asks for no permissions of the weaker levels.
    state.memory.finish_launch_page(gfn, [0; 3]);
    Ok(())
}

/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_launch_finish`.
pub(super) fn finish(state: &mut VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    if !state.sev.is_snp() {
        return Err(Errno::ENOTTY);
    }
    let guest = state.sev.snp_guest().ok_or(Errno::EINVAL)?;
    let params: LaunchFinish = call.params()?;
    if params.flags != 0 {
        return Err(Errno::EINVAL);
    }
    update_vmsas(state, call, guest)?;
    let id = if params.id_block_en == 0 { None } else { Some(id_blobs(call, &params)?) };
    let finish = Finish {
        id: id.as_ref().map(|(block, auth)| (block, auth.as_ref(), params.auth_key_en != 0)),
        host_data: params.host_data,
        vcek_disabled: params.vcek_disabled != 0,
    };
    call.issue_by(state.sev.file, |platform| platform.launch_finish(guest, &finish))?;
    state.launched = true;
    Ok(())
}

/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_launch_update_vmsa`. A failure leaves the vCPUs before protected.
fn update_vmsas(state: &mut VmState, call: &mut Call<'_>, guest: u64) -> Result<(), Errno> {
    let ids: Vec<u64> = state.sev.vcpus.keys().copied().collect();
    for id in ids {
        let mut page = Box::new(state.sev.sync_vmsa(id)?);
        let fault = state.sev.vmsa_fault.take_if(|(vcpu, _)| *vcpu == id);
        call.issue(|platform| match fault {
            Some((_, status)) => Err(status),
            None => platform.launch_update(guest, PageType::Vmsa, VMSA_GPA, &mut page),
        })?;
        state.sev.protect(id);
    }
    Ok(())
}

type IdBlobs = (IdBlock, Box<IdAuth>);

fn id_blobs(call: &Call<'_>, params: &LaunchFinish) -> Result<IdBlobs, Errno> {
    let blob = |uaddr, bytes: usize| {
        let bytes = u32::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        call.blob(uaddr, bytes, bytes)
    };
    let block = blob(params.id_block_uaddr, ID_BLOCK_BYTES)?;
    let auth = blob(params.id_auth_uaddr, ID_AUTH_BYTES)?;
    let block = IdBlock::read_from_bytes(&block).map_err(|_| Errno::EINVAL)?;
    let auth = IdAuth::read_from_bytes(&auth).map_err(|_| Errno::EINVAL)?;
    Ok((block, Box::new(auth)))
}
