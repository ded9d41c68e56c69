//! Launching SEV-ES and SNP guests: `/dev/sev`, and the commands of `KVM_MEMORY_ENCRYPT_OP`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use exeunt_abi::kvm::sev::{Init2, LaunchStart, LaunchUpdateData, id, snp};
use exeunt_abi::{Errno, Gfn, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;
use rustix::fs::{Mode, OFlags};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::error::KvmError;
use crate::ioctl_unsafe;
use crate::sev_unsafe::{self, Pair, Refused};
use crate::vm::{Machine, Vm};

/// The launch of an SEV-ES or SNP guest. It keeps `/dev/sev` open, whose number the kernel remembers: keep it for as long
/// as the guest runs, because an SNP guest's requests to the firmware go by that number, and `KVM_RUN` fails with `EBADF`
/// without it.
///
/// Source: Linux v7.2 `Documentation/virt/kvm/x86/amd-memory-encryption.rst`, also for the order of the commands.
#[derive(Debug)]
pub struct SevLaunch {
    sev: OwnedFd,
    machine: Arc<Machine>,
}

impl Vm {
    /// Opens `/dev/sev` for a launch of this VM.
    ///
    /// # Errors
    ///
    /// The device is missing or belongs to others.
    pub fn sev_launch(&self) -> Result<SevLaunch, KvmError> {
        let opened = rustix::fs::open("/dev/sev", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let failed = |error: rustix::io::Errno| KvmError::OpenSev { errno: Errno(error.raw_os_error()) };
        Ok(SevLaunch { sev: opened.map_err(failed)?, machine: Arc::clone(self.machine()) })
    }
}

impl SevLaunch {
    /// `KVM_SEV_INIT2`: makes the VM a guest of its type. Before it there is no vCPU.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub fn init(&self) -> Result<(), KvmError> {
        self.plain("KVM_SEV_INIT2", id::INIT2, &mut Init2::new_zeroed())
    }

    /// `KVM_SEV_ES_INIT`, which is for kernels before 6.10: they make SEV-ES guests of VMs of the default type.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub fn init_es(&self) -> Result<(), KvmError> {
        self.plain("KVM_SEV_ES_INIT", id::ES_INIT, &mut ())
    }

    /// `KVM_SEV_SNP_LAUNCH_START` with this policy of the guest.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub fn start_snp(&self, policy: u64) -> Result<(), KvmError> {
        let mut start = snp::LaunchStart { policy, ..snp::LaunchStart::new_zeroed() };
        self.plain("KVM_SEV_SNP_LAUNCH_START", id::SNP_LAUNCH_START, &mut start)
    }

    /// `KVM_SEV_SNP_LAUNCH_UPDATE`: copies the shared half of private pages into the guest and measures them.
    ///
    /// # Errors
    ///
    /// The range is not in one slot; or the command failed, and some of the pages may be in the guest.
    pub fn update_snp(&self, range: PageRange, page_type: u8) -> Result<(), KvmError> {
        let failed = failed("KVM_SEV_SNP_LAUNCH_UPDATE");
        let mut rest = Some(range);
        while let Some(range) = rest {
            let data = |uaddr| snp::LaunchUpdate {
                gfn_start: range.gfn().0,
                uaddr,
                len: range.bytes(),
                page_type,
                ..snp::LaunchUpdate::new_zeroed()
            };
            let done = self.update_by(id::SNP_LAUNCH_UPDATE, range, data).map_err(&failed)?;
            let pages = done.len / PAGE_SIZE;
            if pages >= range.pages() {
                return Err(failed(Refused::of(Errno::EIO)));
            }
            rest = PageRange::new(Gfn(range.end().0.saturating_sub(pages)), pages);
        }
        Ok(())
    }

    /// `KVM_SEV_SNP_LAUNCH_FINISH`, when the vCPUs are there: the guest may run.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub fn finish_snp(&self) -> Result<(), KvmError> {
        let mut finish = snp::LaunchFinish::new_zeroed();
        self.plain("KVM_SEV_SNP_LAUNCH_FINISH", id::SNP_LAUNCH_FINISH, &mut finish)
    }

    /// `KVM_SEV_SNP_ENABLE_REQ_CERTS`: the guest's extended requests ask this process for certificates.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub fn enable_req_certs(&self) -> Result<(), KvmError> {
        self.plain("KVM_SEV_SNP_ENABLE_REQ_CERTS", id::SNP_ENABLE_REQ_CERTS, &mut ())
    }

    /// `KVM_SEV_LAUNCH_START` with this policy of the guest, and a key of its own.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub fn start(&self, policy: u32) -> Result<(), KvmError> {
        let mut start = LaunchStart { policy, ..LaunchStart::new_zeroed() };
        self.plain("KVM_SEV_LAUNCH_START", id::LAUNCH_START, &mut start)
    }

    /// `KVM_MEMORY_ENCRYPT_REG_REGION`: memory of an SEV-ES guest stays where it is.
    ///
    /// # Errors
    ///
    /// The range is not in one slot, or the ioctl failed.
    pub fn register(&self, range: PageRange) -> Result<(), KvmError> {
        let failed = |errno| KvmError::Ioctl { name: "KVM_MEMORY_ENCRYPT_REG_REGION", errno };
        let table = self.machine.memory.table();
        let (mapping, offset) = table.view(range).map_err(failed)?;
        let vm = ioctl_unsafe::borrowed(&self.machine.fd);
        sev_unsafe::register(vm, mapping, offset, range.bytes()).map_err(failed)
    }

    /// `KVM_SEV_LAUNCH_UPDATE_DATA`: encrypts memory where it is and measures it.
    ///
    /// # Errors
    ///
    /// The range is not in one slot, or not shorter than 4 GiB, or the command failed.
    pub fn update(&self, range: PageRange) -> Result<(), KvmError> {
        let failed = failed("KVM_SEV_LAUNCH_UPDATE_DATA");
        let len = u32::try_from(range.bytes()).map_err(|_| failed(Refused::of(Errno::EINVAL)))?;
        let data = |uaddr| LaunchUpdateData { uaddr, len, pad0: 0 };
        self.update_by(id::LAUNCH_UPDATE_DATA, range, data).map(|_| ()).map_err(failed)
    }

    /// `KVM_SEV_LAUNCH_UPDATE_VMSA`, when the vCPUs are there: encrypts their registers.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub fn update_vmsas(&self) -> Result<(), KvmError> {
        self.plain("KVM_SEV_LAUNCH_UPDATE_VMSA", id::LAUNCH_UPDATE_VMSA, &mut ())
    }

    /// `KVM_SEV_LAUNCH_MEASURE`: nothing is measured after it. The measurement and the nonce of it.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub fn measure(&self) -> Result<Vec<u8>, KvmError> {
        sev_unsafe::measure(self.pair()).map_err(failed("KVM_SEV_LAUNCH_MEASURE"))
    }

    /// `KVM_SEV_LAUNCH_FINISH`: the guest may run.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub fn finish(&self) -> Result<(), KvmError> {
        self.plain("KVM_SEV_LAUNCH_FINISH", id::LAUNCH_FINISH, &mut ())
    }

    fn pair(&self) -> Pair<'_> {
        Pair { vm: ioctl_unsafe::borrowed(&self.machine.fd), sev: self.sev.as_fd() }
    }

    fn plain<T: IntoBytes + FromBytes>(
        &self,
        name: &'static str,
        number: u32,
        data: &mut T,
    ) -> Result<(), KvmError> {
        sev_unsafe::plain(self.pair(), number, data.as_mut_bytes()).map_err(failed(name))
    }

    fn update_by<T: FromBytes + IntoBytes + Immutable + KnownLayout>(
        &self,
        number: u32,
        range: PageRange,
        data: impl FnOnce(u64) -> T,
    ) -> Result<T, Refused> {
        let table = self.machine.memory.table();
        let (mapping, offset) = table.view(range).map_err(Refused::of)?;
        sev_unsafe::update(self.pair(), number, (mapping, offset, range.bytes()), data)
    }
}

fn failed(name: &'static str) -> impl Fn(Refused) -> KvmError {
    move |Refused { errno, firmware }| match firmware {
        0 => KvmError::Ioctl { name, errno },
        firmware => KvmError::Firmware { name, errno, firmware },
    }
}
