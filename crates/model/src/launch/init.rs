//! `KVM_SEV_INIT`, `KVM_SEV_ES_INIT`, `KVM_SEV_INIT2` and `KVM_SEV_SNP_ENABLE_REQ_CERTS`.

use super::call::Call;
use crate::psp::Platform;
use crate::state::VmState;
use exeunt_abi::kvm::sev::{Init2, id};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::vmsa::sev_features;
use exeunt_abi::{Dialect, Errno};
use zerocopy::FromZeros as _;

/// The highest version of the GHCB protocol.
const GHCB_VERSION_MAX: u16 = 2;
/// The version that `KVM_SEV_ES_INIT` has.
const GHCB_VERSION_MIN: u16 = 1;

/// `sev_supported_vmsa_features`.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_hardware_setup`.
pub(crate) fn supported_vmsa_features(dialect: Dialect) -> u64 {
    let secure_tsc = if dialect.has_secure_tsc() { sev_features::SECURE_TSC } else { 0 };
    sev_features::DEBUG_SWAP | secure_tsc
}

/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_guest_init`.
pub(super) fn init(state: &mut VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    if state.vm_type != VmType::Default {
        return Err(Errno::EINVAL);
    }
    let mut params = Init2::new_zeroed();
    let vm_type = if call.cmd.id == id::INIT { VmType::Sev } else { VmType::SevEs };
    if vm_type == VmType::SevEs {
        params.ghcb_version = GHCB_VERSION_MIN;
    }
    begin(state, call, &params, vm_type)
}

/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_guest_init2`.
pub(super) fn init2(state: &mut VmState, call: &mut Call<'_>) -> Result<(), Errno> {
    if !state.sev.need_init || !matches!(state.vm_type, VmType::Sev | VmType::SevEs | VmType::Snp) {
        return Err(Errno::EINVAL);
    }
    let params: Init2 = call.params()?;
    begin(state, call, &params, state.vm_type)
}

/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `__sev_guest_init`.
fn begin(state: &mut VmState, call: &mut Call<'_>, params: &Init2, vm_type: VmType) -> Result<(), Errno> {
    let (is_es, is_snp) = (vm_type != VmType::Sev, vm_type == VmType::Snp);
    let mut valid = if is_es { supported_vmsa_features(state.kernel.dialect) } else { 0 };
    if !is_snp {
        valid &= !sev_features::SECURE_TSC;
    }
    let version = params.ghcb_version;
    if state.vcpus > 0 || params.flags != 0 || params.vmsa_features & !valid != 0 {
        return Err(Errno::EINVAL);
    }
    if version > GHCB_VERSION_MAX || (!is_es && version != 0) || (is_snp && version == 1) || state.sev.active
    {
        return Err(Errno::EINVAL);
    }
    let asid = call.host.new_asid(vm_type)?;
    // The processor may have to be initialised, which its driver does without a file.
    call.host.psp().command(Platform::sev_init).map_err(|failed| {
        call.cmd.error = failed.error;
        failed.errno
    })?;
    let sev = &mut state.sev;
    (sev.active, sev.is_es, sev.need_init) = (true, is_es, false);
    sev.vmsa_features = params.vmsa_features | if is_snp { sev_features::SNP_ACTIVE } else { 0 };
    state.memory.asid = u16::try_from(asid.number).unwrap_or(u16::MAX);
    sev.asid = Some(asid);
    let newest = if version == 0 && is_es { GHCB_VERSION_MAX } else { version };
    state.ghcb_version = newest.into();
    state.initialised = true;
    Ok(())
}

/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_enable_certs`.
pub(super) fn enable_req_certs(state: &mut VmState) -> Result<(), Errno> {
    if state.vcpus > 0 || !state.is_snp() || !state.sev.active {
        return Err(Errno::EINVAL);
    }
    state.certs_enabled = true;
    Ok(())
}
