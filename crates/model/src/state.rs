//! What the vCPUs of a VM share.

use crate::ghcb::Compiler;
use crate::host::Host;
use crate::launch::Sev;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::psp::Firmware;
use crate::system_event::HypervCrash;
use crate::tdx::Td;
use crate::vcpu::MsrFilter;
use crate::vcpu::peer::Peer;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Kernel, PAGE_SIZE};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The C-bit that the model's hosts report.
pub(crate) const C_BIT: u64 = 51;

/// The state of a VM.
#[derive(Debug)]
pub(crate) struct VmState {
    pub(crate) kernel: Kernel,
    pub(crate) host: Host,
    pub(crate) vm_type: VmType,
    pub(crate) memory: Memory,
    pub(crate) compiler: Compiler,
    caps: BTreeMap<Cap, u64>,
    /// `KVM_SEV_INIT2` has been done, if the type needs it.
    pub(crate) initialised: bool,
    /// The guest has been launched, if the type needs it.
    pub(crate) launched: bool,
    pub(crate) td: Td,
    pub(crate) ghcb_version: u64,
    /// `KVM_SEV_SNP_ENABLE_REQ_CERTS` has been done.
    pub(crate) certs_enabled: bool,
    pub(crate) sev: Sev,
    pub(crate) firmware: Firmware,
    /// Guest requests that the firmware was given.
    pub(crate) firmware_requests: u64,
    pub(crate) platform: Platform,
    /// Which model-specific registers the guest may touch; `None` for all.
    pub(crate) msr_filter: Option<MsrFilter>,
    /// The jump table of the application processors, as the guest stored it.
    pub(crate) ap_jump_table: u64,
    pub(crate) vcpus: u64,
    /// The vCPUs by number, as they see each other.
    pub(crate) peers: BTreeMap<u64, Arc<Peer>>,
    /// `kvm->arch.psci_version`: a number of `exeunt_abi::psci::version`, or 0 for the newest.
    pub(crate) psci_version: u32,
    pub(crate) hyperv_crash: HypervCrash,
}

impl VmState {
    pub(crate) fn new(kernel: Kernel, host: Host, vm_type: VmType, memory: Memory) -> Self {
        Self {
            kernel,
            host,
            vm_type,
            memory,
            compiler: Compiler::default(),
            caps: BTreeMap::new(),
            initialised: !vm_type.has_protected_state(),
            launched: !vm_type.has_protected_state(),
            td: Td::default(),
            ghcb_version: 0,
            certs_enabled: false,
            sev: Sev::new(vm_type),
            firmware: Firmware::default(),
            firmware_requests: 0,
            platform: Platform::default(),
            msr_filter: None,
            ap_jump_table: 0,
            vcpus: 0,
            peers: BTreeMap::new(),
            psci_version: 0,
            hyperv_crash: HypervCrash::default(),
        }
    }

    /// The argument that a capability was enabled with, 0 if it was not.
    pub(crate) fn cap(&self, cap: Cap) -> u64 {
        self.caps.get(&cap).copied().unwrap_or(0)
    }

    pub(crate) fn set_cap(&mut self, cap: Cap, argument: u64) {
        self.caps.insert(cap, argument);
    }

    /// The host's KVM can make SEV guests.
    pub(crate) fn has_sev(&self) -> bool {
        self.kernel.arch == Arch::X86 && !self.host.is_intel()
    }

    /// The guest is one of SEV-ES or SNP.
    pub(crate) fn is_es(&self) -> bool {
        self.vm_type.has_ghcb() || self.sev.is_es
    }

    pub(crate) fn is_snp(&self) -> bool {
        self.vm_type == VmType::Snp
    }
}

/// Bytes of a page as a length.
pub(crate) const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_SIZE);
