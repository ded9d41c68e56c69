//! `KVM_MEMORY_ENCRYPT_OP` of SEV, SEV-ES and SNP VMs, from `KVM_SEV_INIT2` to the last launch command.
//!
//! Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_mem_enc_ioctl`.

mod call;
mod context;
mod dev_sev;
mod host;
mod init;
mod migrate;
mod pin;
mod publish;
mod save_area;
mod sev;
mod snp;

pub use host::SevHost;
pub use save_area::{SaveArea, Segment};

use crate::memory::UserMemory;
use crate::psp::sev::{MEASUREMENT_BYTES, SevState};
use crate::psp::{CommandError, PageType, VMSA_GPA};
use crate::state::{PAGE, VmState};
use crate::vm::Vm;
use call::{Call, WithBuffer};
use exeunt_abi::kvm::sev::snp::{LaunchFinish, LaunchStart, LaunchUpdate, page_type, policy};
use exeunt_abi::kvm::sev::{self as sev_abi, Init2, LaunchMeasure, SevCmd, id};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::vmsa;
use exeunt_abi::{CertsForm, Errno, Gpa, PAGE_SIZE};
use host::Asid;
use std::collections::BTreeMap;
use std::sync::Arc;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// `struct kvm_sev_info`, and what else a VM has of SEV.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a field of the kernel's struct, and set on its own"
)]
pub(crate) struct Sev {
    pub(crate) host: SevHost,
    vm_type: VmType,
    pub(crate) need_init: bool,
    pub(crate) active: bool,
    pub(crate) is_es: bool,
    pub(crate) vmsa_features: u64,
    pub(crate) policy: u64,
    /// The `/dev/sev` of the launch, by number.
    pub(crate) file: u32,
    pub(crate) asid: Option<Asid>,
    /// An SNP guest in the firmware.
    pub(crate) context: Option<snp::Context>,
    /// An SEV or SEV-ES guest in the firmware.
    pub(crate) handle: Option<sev::Handle>,
    /// The context is another VM's, with this handle.
    is_mirror: bool,
    mirrored: u32,
    owner: Option<Vm>,
    /// Regions that are registered: address in the process and bytes.
    regions: Vec<(u64, u64)>,
    pub(crate) vcpus: BTreeMap<u64, VcpuState>,
    /// The vCPU at which the firmware refuses the VMSA, and its status.
    vmsa_fault: Option<(u64, u32)>,
    /// vCPUs that are made after the launch can run too.
    lenient: bool,
    /// The page that the firmware answers guest requests in. It keeps the last answer.
    pub(crate) response: Box<[u8; PAGE]>,
}

/// What a launch knows of a vCPU.
#[derive(Clone, Debug, Default)]
pub(crate) struct VcpuState {
    /// The registers before they are encrypted.
    area: SaveArea,
    /// `guest_state_protected`: the registers are encrypted.
    protected: bool,
    /// `KVM_SET_GUEST_DEBUG` is in force.
    debugged: bool,
}

impl Sev {
    pub(crate) fn new(vm_type: VmType) -> Self {
        Self {
            host: SevHost::default(),
            vm_type,
            need_init: matches!(vm_type, VmType::Sev | VmType::SevEs | VmType::Snp),
            active: false,
            is_es: false,
            vmsa_features: 0,
            policy: 0,
            file: SevHost::FILE,
            asid: None,
            context: None,
            handle: None,
            is_mirror: false,
            mirrored: 0,
            owner: None,
            regions: Vec::new(),
            vcpus: BTreeMap::new(),
            vmsa_fault: None,
            lenient: false,
            response: Box::new([0; PAGE]),
        }
    }

    /// `sev_snp_guest`.
    pub(crate) fn is_snp(&self) -> bool {
        self.active && self.vm_type == VmType::Snp
    }

    /// `sev_guest`.
    ///
    /// # Errors
    ///
    /// `ENOTTY` for a VM that is none.
    fn check_guest(&self) -> Result<(), Errno> {
        if self.active { Ok(()) } else { Err(Errno::ENOTTY) }
    }

    /// The handle of an SEV or SEV-ES guest; 0, which is no guest's, without one.
    fn number(&self) -> u32 {
        if self.is_mirror { self.mirrored } else { self.handle.as_ref().map_or(0, |handle| handle.number) }
    }

    /// The guest's number in the firmware, between `LAUNCH_START` and the end.
    pub(crate) fn snp_guest(&self) -> Option<u64> {
        self.context.as_ref().map(|context| context.guest)
    }

    /// A vCPU was made.
    pub(crate) fn add_vcpu(&mut self, id: u64, launched: bool) {
        let protected = self.lenient && launched;
        self.vcpus.insert(id, VcpuState { protected, ..VcpuState::default() });
    }

    /// `guest_state_protected` of a vCPU.
    pub(crate) fn is_protected(&self, id: u64) -> bool {
        self.vcpus.get(&id).is_some_and(|vcpu| vcpu.protected)
    }

    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_es_sync_vmsa`.
    fn sync_vmsa(&self, id: u64) -> Result<[u8; PAGE], Errno> {
        let vcpu = self.vcpus.get(&id).ok_or(Errno::EINVAL)?;
        if vcpu.debugged || vcpu.protected {
            return Err(Errno::EINVAL);
        }
        let mut area = vcpu.area.clone();
        area.set(vmsa::SEV_FEATURES, self.vmsa_features);
        Ok(*area.bytes())
    }

    /// The vCPU's registers are these now. Encrypted ones do not change.
    fn publish(&mut self, id: u64, area: SaveArea, debugged: bool) {
        if let Some(vcpu) = self.vcpus.get_mut(&id).filter(|vcpu| !vcpu.protected) {
            (vcpu.area, vcpu.debugged) = (area, debugged);
        }
    }

    fn protect(&mut self, id: u64) {
        if let Some(vcpu) = self.vcpus.get_mut(&id) {
            vcpu.protected = true;
        }
    }
}

/// Commands that a VM may do whose context is another's.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `is_cmd_allowed_from_mirror`.
const ALLOWED_FROM_MIRROR: [u32; 4] =
    [id::LAUNCH_UPDATE_VMSA, id::DBG_DECRYPT, id::DBG_ENCRYPT, id::GUEST_STATUS];

/// What became of a command, and whether its struct is copied back.
struct Done {
    result: Result<(), Errno>,
    write_back: bool,
}

/// Whether this kernel has the command. `INIT2` is younger than the types it is for, but the model makes these in every
/// dialect.
fn is_known(state: &VmState, id: u32) -> bool {
    let dialect = state.kernel.dialect;
    match id {
        id::INIT2 => dialect.has_snp() || state.vm_type != VmType::Default,
        id::SNP_LAUNCH_START..=id::SNP_LAUNCH_FINISH => dialect.has_snp(),
        id::SNP_ENABLE_REQ_CERTS => dialect.certs_form() != CertsForm::None,
        _ => true,
    }
}

fn run(state: &mut VmState, call: &mut Call<'_>) -> Done {
    let refused = |errno| Done { result: Err(errno), write_back: false };
    let id = call.cmd.id;
    if state.sev.is_mirror && !ALLOWED_FROM_MIRROR.contains(&id) {
        return refused(Errno::EINVAL);
    }
    if state.sev.is_snp() && id < id::SNP_LAUNCH_START {
        return refused(Errno::EPERM);
    }
    if !is_known(state, id) {
        return refused(Errno::EINVAL);
    }
    let result = match id {
        id::INIT | id::ES_INIT => init::init(state, call),
        id::INIT2 => init::init2(state, call),
        id::LAUNCH_START => sev::launch_start(state, call),
        id::LAUNCH_UPDATE_DATA => sev::launch_update_data(state, call),
        id::LAUNCH_UPDATE_VMSA => sev::launch_update_vmsa(state, call),
        id::LAUNCH_MEASURE => sev::launch_measure(state, call),
        id::LAUNCH_SECRET => sev::launch_secret(state, call),
        id::LAUNCH_FINISH => sev::launch_finish(state, call),
        id::GUEST_STATUS => sev::guest_status(state, call),
        id::DBG_DECRYPT | id::DBG_ENCRYPT => sev::debug(state, call),
        id::GET_ATTESTATION_REPORT => sev::attestation_report(state, call),
        id::SEND_START => migrate::send_start(state, call),
        id::SEND_UPDATE_DATA => migrate::send_update_data(state, call),
        id::SEND_FINISH => migrate::step(state, call, SevState::SendUpdate, SevState::Sent),
        id::SEND_CANCEL => migrate::step(state, call, SevState::SendUpdate, SevState::Running),
        id::RECEIVE_START => migrate::receive_start(state, call),
        id::RECEIVE_UPDATE_DATA => migrate::receive_update_data(state, call),
        id::RECEIVE_FINISH => migrate::step(state, call, SevState::ReceiveUpdate, SevState::Running),
        id::SNP_LAUNCH_START => snp::start(state, call),
        id::SNP_LAUNCH_UPDATE => snp::update(state, call),
        id::SNP_LAUNCH_FINISH => snp::finish(state, call),
        id::SNP_ENABLE_REQ_CERTS => init::enable_req_certs(state),
        _ => return refused(Errno::EINVAL),
    };
    Done { result, write_back: true }
}

/// `KVM_SEV_LAUNCH_MEASURE` with room for its answer behind it.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct Measured {
    params: LaunchMeasure,
    measurement: [u8; MEASUREMENT_BYTES],
}

/// `KVM_SEV_SNP_LAUNCH_UPDATE` with the contents of its page behind it, in the next page.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct WithPage {
    params: LaunchUpdate,
    room: [u8; PAGE - call::CMD_BYTES - size_of::<LaunchUpdate>()],
    content: [u8; PAGE],
}

impl Vm {
    /// `KVM_MEMORY_ENCRYPT_OP` on an SEV, SEV-ES or SNP VM or a TD, with its argument in the memory of the process.
    ///
    /// # Errors
    ///
    /// `ENOTTY` where the host has no SEV and the VM is no TD, else what the command fails with. The struct is copied back, with what the
    /// firmware said in `error`, unless there is no such command or the VM may not use it.
    pub fn memory_encrypt_op(&self, arg: u64) -> Result<(), Errno> {
        let (user, vm_type) = {
            let state = self.lock();
            (state.memory.user(), state.vm_type)
        };
        match vm_type {
            VmType::Tdx => self.tdx_command(arg, user.as_ref()),
            _ => self.sev_ioctl(arg, user.as_ref()),
        }
    }

    fn sev_ioctl(&self, arg: u64, user: &dyn UserMemory) -> Result<(), Errno> {
        let mut state = self.lock();
        if !state.has_sev() {
            return Err(Errno::ENOTTY);
        }
        if arg == 0 {
            return Ok(());
        }
        let mut cmd = SevCmd::new_zeroed();
        user.read(arg, cmd.as_mut_bytes())?;
        let mut call = Call { cmd, user, host: state.sev.host.clone() };
        let done = run(&mut state, &mut call);
        if done.write_back {
            user.write(arg, call.cmd.as_bytes())?;
        }
        done.result
    }

    /// A command of `KVM_MEMORY_ENCRYPT_OP` by its number, with its struct or `()`. What KVM writes back is written back.
    ///
    /// # Errors
    ///
    /// What the command fails with.
    pub fn sev_command<T>(&self, id: u32, data: &mut T) -> Result<(), CommandError>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        self.sev_command_with(id, SevHost::FILE, data)
    }

    /// As [`Vm::sev_command`], with a `/dev/sev` of one's own.
    ///
    /// # Errors
    ///
    /// What the command fails with.
    pub fn sev_command_with<T>(&self, id: u32, sev_fd: u32, data: &mut T) -> Result<(), CommandError>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        let at = WithBuffer::AT.saturating_add(call::CMD_BYTES as u64);
        let has_data = size_of::<T>() != 0;
        let cmd = SevCmd { id, pad0: 0, data: if has_data { at } else { 0 }, error: 0, sev_fd };
        let bytes = [cmd.as_bytes(), data.as_bytes()].concat();
        let user = WithBuffer::new(self.lock().memory.user(), &bytes);
        let result = self.sev_ioctl(WithBuffer::AT, &user);
        let bytes = user.take();
        let error = SevCmd::read_from_prefix(&bytes).map_or(0, |(cmd, _)| cmd.error);
        if let Some(written) = bytes.get(call::CMD_BYTES..).and_then(|bytes| T::read_from_bytes(bytes).ok()) {
            *data = written;
        }
        result.map_err(|errno| CommandError { errno, error })
    }

    /// The host whose processor launches this VM. Before it is initialised another can be chosen, which VMs then share.
    #[must_use]
    pub fn sev_host(&self) -> SevHost {
        self.lock().sev.host.clone()
    }

    /// Chooses the host, before the VM is initialised.
    ///
    /// # Errors
    ///
    /// `EBUSY` after that.
    pub fn set_sev_host(&self, host: SevHost) -> Result<(), Errno> {
        let sev = &mut self.lock().sev;
        if sev.active {
            return Err(Errno::EBUSY);
        }
        sev.host = host;
        Ok(())
    }

    /// The registers that a vCPU's VMSA will be made from.
    ///
    /// # Errors
    ///
    /// `EINVAL` without such a vCPU, or if they are encrypted already.
    pub fn set_save_area(&self, vcpu: u64, area: SaveArea) -> Result<(), Errno> {
        let mut state = self.lock();
        let vcpu = state.sev.vcpus.get_mut(&vcpu).filter(|vcpu| !vcpu.protected).ok_or(Errno::EINVAL)?;
        vcpu.area = area;
        Ok(())
    }

    /// The launch digest so far. The host can compute it too, so nothing is given away.
    #[must_use]
    pub fn launch_digest(&self) -> Option<[u8; 48]> {
        let state = self.lock();
        let guest = state.sev.snp_guest()?;
        state.sev.host.psp().peek(|platform| Some(platform.guest(guest).ok()?.digest.bytes()))
    }

    /// What the digest will be after `LAUNCH_FINISH` has added the vCPUs as they are now. An ID block names it.
    #[must_use]
    pub fn digest_with_vmsas(&self) -> Option<[u8; 48]> {
        let state = self.lock();
        let guest = state.sev.snp_guest()?;
        let mut digest = state.sev.host.psp().peek(|platform| Some(platform.guest(guest).ok()?.digest))?;
        for id in state.sev.vcpus.keys() {
            digest.add_page(PageType::Vmsa, VMSA_GPA, &state.sev.sync_vmsa(*id).ok()?);
        }
        Some(digest.bytes())
    }

    /// The memory of the process, in which the slots and the arguments of commands lie.
    #[must_use]
    pub fn user_memory(&self) -> Arc<dyn UserMemory> {
        self.lock().memory.user()
    }

    /// The firmware is going to refuse the VMSA of this vCPU once, with this status.
    pub fn fail_launch_vmsa(&self, vcpu: u64, status: u32) {
        self.lock().sev.vmsa_fault = Some((vcpu, status));
    }

    /// `KVM_SEV_INIT2` without features. Version 0 means the newest, 2.
    ///
    /// # Errors
    ///
    /// What the command fails with.
    pub fn sev_init2(&self, ghcb_version: u16) -> Result<(), Errno> {
        let mut params = Init2::new_zeroed();
        params.ghcb_version = ghcb_version;
        self.sev_command(id::INIT2, &mut params).map_err(|failed| failed.errno)
    }

    /// A whole launch: start, the vCPUs, finish. No page is added, so an SNP guest has to validate its memory itself.
    ///
    /// vCPUs that are made later can run too, as if they had been there. KVM leaves their VMSAs unencrypted, and with
    /// the commands themselves such a vCPU fails to enter.
    ///
    /// # Errors
    ///
    /// `EINVAL` before `KVM_SEV_INIT2`, or a second time.
    pub fn launch(&self) -> Result<(), Errno> {
        self.launch_with(|_| Ok(()))
    }

    /// As [`Vm::launch`] for an SNP guest with a secrets page, without which it cannot talk to the firmware.
    ///
    /// # Errors
    ///
    /// As [`Vm::launch`]; `EIO` if the page is not private memory of the guest, `EINVAL` on another type.
    pub fn launch_with_secrets(&self, secrets: Gpa) -> Result<(), Errno> {
        if !self.lock().sev.is_snp() {
            return Err(Errno::EINVAL);
        }
        self.launch_with(|vm| {
            let mut page = WithPage::new_zeroed();
            page.params.gfn_start = secrets.gfn().0;
            page.params.len = PAGE_SIZE;
            page.params.page_type = page_type::SECRETS;
            page.params.uaddr = WithBuffer::AT.saturating_add(PAGE_SIZE);
            vm.sev_command(id::SNP_LAUNCH_UPDATE, &mut page).map_err(|failed| failed.errno)
        })
    }

    fn launch_with(&self, add_pages: impl FnOnce(&Self) -> Result<(), Errno>) -> Result<(), Errno> {
        {
            let mut state = self.lock();
            if !state.initialised || state.launched {
                return Err(Errno::EINVAL);
            }
            state.sev.lenient = true;
        }
        let errno = |failed: CommandError| failed.errno;
        if self.lock().sev.is_snp() {
            let mut start = LaunchStart::new_zeroed();
            start.policy = policy::RSVD | policy::SMT;
            self.sev_command(id::SNP_LAUNCH_START, &mut start).map_err(errno)?;
            add_pages(self)?;
            return self.sev_command(id::SNP_LAUNCH_FINISH, &mut LaunchFinish::new_zeroed()).map_err(errno);
        }
        let mut start = sev_abi::LaunchStart::new_zeroed();
        start.policy = if self.lock().sev.is_es { crate::psp::sev::policy::ES } else { 0 };
        self.sev_command(id::LAUNCH_START, &mut start).map_err(errno)?;
        if self.lock().sev.is_es {
            self.sev_command(id::LAUNCH_UPDATE_VMSA, &mut ()).map_err(errno)?;
        }
        let mut measured = Measured::new_zeroed();
        let behind = call::CMD_BYTES.saturating_add(size_of::<LaunchMeasure>()) as u64;
        measured.params.uaddr = WithBuffer::AT.saturating_add(behind);
        measured.params.len = u32::try_from(MEASUREMENT_BYTES).unwrap_or_default();
        self.sev_command(id::LAUNCH_MEASURE, &mut measured).map_err(errno)?;
        self.sev_command(id::LAUNCH_FINISH, &mut ()).map_err(errno)
    }

    /// `KVM_SEV_SNP_ENABLE_REQ_CERTS`.
    ///
    /// # Errors
    ///
    /// `EINVAL` where the kernel lacks it, before `KVM_SEV_INIT2`, on another type, or after the first vCPU.
    pub fn snp_enable_req_certs(&self) -> Result<(), Errno> {
        self.sev_command(id::SNP_ENABLE_REQ_CERTS, &mut ()).map_err(|failed| failed.errno)
    }
}
