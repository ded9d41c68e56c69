//! What makes a VM a guest of its type.

use crate::arguments::Piece;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::sev::snp::{page_type, policy};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_linux::{Effects, KvmError, SevLaunch, Vm};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::host::{Action, Host as _};

/// SEV's own policy for a guest: it is an SEV-ES guest, and nobody debugs it.
///
/// Source: AMD 55766 "Secure Encrypted Virtualization API" revision 3.24, table 2.
const SEV_ES_POLICY: u32 = 1 << 2 | 1 << 0;

/// A launch under way.
pub(crate) struct Launch {
    sev: SevLaunch,
    is_snp: bool,
}

impl Launch {
    /// Makes the VM a guest of its type, if it is an encrypted one. An old kernel makes SEV-ES guests of other VMs.
    pub(crate) fn begin(vm: &Vm, vm_type: VmType, is_old: bool) -> Result<Option<Self>, KvmError> {
        if !vm_type.has_ghcb() {
            return Ok(None);
        }
        let sev = vm.sev_launch()?;
        if is_old { sev.init_es() } else { sev.init() }?;
        Ok(Some(Self { sev, is_snp: vm_type == VmType::Snp }))
    }

    /// `KVM_SEV_SNP_ENABLE_REQ_CERTS`.
    pub(crate) fn enable_req_certs(&self) -> Result<(), KvmError> {
        self.sev.enable_req_certs()
    }

    /// Encrypts the image. All memory that can be private is so from now on.
    pub(crate) fn load(
        &self,
        memory: &[Piece],
        image: PageRange,
        effects: &mut Effects,
    ) -> Result<(), String> {
        let text = |error: KvmError| error.to_string();
        if !self.is_snp {
            self.sev.start(SEV_ES_POLICY).map_err(text)?;
            for piece in memory {
                self.sev.register(piece.range).map_err(text)?;
            }
            return self.sev.update(image).map_err(text);
        }
        self.sev.start_snp(policy::RSVD | policy::SMT).map_err(text)?;
        for piece in memory.iter().filter(|piece| piece.has_private) {
            let action = Action::SetAttributes { range: piece.range, to: PageState::Private };
            effects.apply(&action).map_err(|errno| {
                format!("KVM_SET_MEMORY_ATTRIBUTES to {MEMORY_ATTRIBUTE_PRIVATE:#x} failed with {errno}")
            })?;
        }
        self.sev.update_snp(image, page_type::NORMAL).map_err(text)
    }

    /// Encrypts the registers of the vCPUs. The guest may run.
    pub(crate) fn finish(&self) -> Result<(), KvmError> {
        if self.is_snp {
            return self.sev.finish_snp();
        }
        self.sev.update_vmsas()?;
        self.sev.measure()?;
        self.sev.finish()
    }
}
