//! Which kernel wrote these bytes.

mod x86;

use core::fmt;

/// A kernel, named by the release whose behaviour is meant, or a proposal of the kernel's lists that was never merged.
///
/// A dialect is not a feature test: a VMM asks its kernel with `KVM_CHECK_EXTENSION`. It says how the *bytes* of an
/// exit are to be read and answered where no capability tells, and it is what the model imitates. A proposal is chosen
/// by name only: no real kernel is ever taken for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// Linux 5.10: `system_event` is `{u32 type; u64 flags}`, hypercalls do not exit.
    Linux5_10,
    /// Linux 5.17: as 5.10, and `KVM_CAP_EXIT_HYPERCALL` exists (5.14).
    Linux5_17,
    /// Linux 6.1: `system_event.ndata` and `data` (5.18), `SEV_TERM` (5.19), the triple-fault event (6.0).
    Linux6_1,
    /// Linux 6.12: memory faults, attributes and `guest_memfd` (6.8), SNP guests (6.11).
    Linux6_12,
    /// Linux 7.2: the kernel presets and checks `hypercall.ret` (7.1), `KVM_EXIT_SNP_REQ_CERTS` (7.0).
    #[default]
    Linux7_2,
    /// "KVM, SEV: Add `KVM_EXIT_SHUTDOWN` metadata for SEV-ES", v4.1 as it was queued in April 2022, on 5.17: bit 31 of
    /// the type says that `data` is valid. The documentation has `flags` before `data` and the value in `data[0]`; the
    /// header had no `flags` and the code wrote `data[1]`, which is the same place.
    SevTermV4_1,
    /// The alternative of the same month, on 5.17: no `flags`, `data` in their place, bit 31 for new types only and an
    /// implicit word for RESET and SHUTDOWN.
    SevTermAlternative,
    /// "KVM: X86: Extend `KVM_SET_VCPU_EVENTS` to inject a SHUTDOWN event", v4 of March 2022, on 5.17: bit 5 of the
    /// flags raises a triple fault, without a capability, and nothing reports one.
    ShutdownFlagV4,
    /// "KVM: SEV: Add `KVM_EXIT_VMGEXIT`", v10 of October 2023, with the private memory of its tree: page-state changes
    /// come to userspace undecoded as exit 50, memory faults as exit 38.
    VmgexitV10,
    /// "KVM: Introduce `KVM_EXIT_COCO` exit type", v1 of June 2024: requests for certificates come as exit 40.
    CocoV1,
}

/// How a kernel lays out and fills `kvm_run.system_event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SystemEventForm {
    /// `{type; flags}`.
    Flags,
    /// `{type with bit 31; ndata; flags; data[16]}`.
    Queued,
    /// `{type with bit 31; ndata; data[16]}`; RESET and SHUTDOWN without bit 31 carry one word that `ndata` does not count.
    Alternative,
    /// `{type; ndata; data[16]}`.
    Shipped,
}

/// What the vCPU events say of triple faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TripleFaultForm {
    /// Nothing.
    None,
    /// Userspace can raise one; a pending one is not reported.
    OneWay,
    /// Both ways, once capability 218 is enabled.
    TwoWay,
}

/// How a guest's request for a page-state change reaches userspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConversionForm {
    /// As `KVM_HC_MAP_GPA_RANGE`, decoded by KVM.
    MapGpaRange,
    /// As `KVM_EXIT_VMGEXIT`, with nothing but the GHCB MSR.
    Vmgexit,
}

/// How a guest's request for certificates reaches userspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertsForm {
    /// Not at all.
    None,
    /// As `KVM_EXIT_COCO`.
    Coco,
    /// As `KVM_EXIT_SNP_REQ_CERTS`.
    SnpReqCerts,
}

impl Dialect {
    /// The releases, oldest first.
    pub const RELEASES: [Self; 5] =
        [Self::Linux5_10, Self::Linux5_17, Self::Linux6_1, Self::Linux6_12, Self::Linux7_2];

    /// The proposals, oldest first.
    pub const PROPOSALS: [Self; 5] =
        [Self::ShutdownFlagV4, Self::SevTermV4_1, Self::SevTermAlternative, Self::VmgexitV10, Self::CocoV1];

    /// Every dialect: the releases, then the proposals.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::RELEASES.into_iter().chain(Self::PROPOSALS)
    }

    /// The name on the command line and in scenario files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linux5_10 => "linux-5.10",
            Self::Linux5_17 => "linux-5.17",
            Self::Linux6_1 => "linux-6.1",
            Self::Linux6_12 => "linux-6.12",
            Self::Linux7_2 => "linux-7.2",
            Self::SevTermV4_1 => "sev-term-v4.1",
            Self::SevTermAlternative => "sev-term-alternative",
            Self::ShutdownFlagV4 => "shutdown-flag-v4",
            Self::VmgexitV10 => "vmgexit-v10",
            Self::CocoV1 => "coco-v1",
        }
    }

    /// The dialect with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|dialect| dialect.name() == name)
    }

    /// Whether the dialect is, or is built on, a release at least as new as version `major.minor`.
    #[must_use]
    pub fn since(self, major: u16, minor: u16) -> bool {
        let release = match self {
            Self::Linux5_10 => (5, 10),
            Self::Linux5_17 | Self::SevTermV4_1 | Self::SevTermAlternative | Self::ShutdownFlagV4 => (5, 17),
            Self::Linux6_1 => (6, 1),
            Self::Linux6_12 | Self::VmgexitV10 | Self::CocoV1 => (6, 12),
            Self::Linux7_2 => (7, 2),
        };
        release >= (major, minor)
    }

    /// `KVM_CAP_EXIT_HYPERCALL` (201) can be enabled. Linux 5.14.
    #[must_use]
    pub fn has_exit_hypercall(self) -> bool {
        self.since(5, 14)
    }

    /// How `system_event` is laid out and filled.
    #[must_use]
    pub fn system_event_form(self) -> SystemEventForm {
        match self {
            Self::SevTermV4_1 => SystemEventForm::Queued,
            Self::SevTermAlternative => SystemEventForm::Alternative,
            _ if self.since(5, 18) => SystemEventForm::Shipped,
            _ => SystemEventForm::Flags,
        }
    }

    /// Capability 215 is there, which says that `system_event` carries `ndata` and `data`. Linux 5.18.
    #[must_use]
    pub fn has_system_event_data(self) -> bool {
        self.system_event_form() == SystemEventForm::Shipped
    }

    /// An SEV-ES guest's termination request exits as `KVM_SYSTEM_EVENT_SEV_TERM`. Linux 5.19; `KVM_RUN` failed
    /// with `EINVAL` before.
    #[must_use]
    pub fn has_sev_term(self) -> bool {
        matches!(self, Self::SevTermV4_1 | Self::SevTermAlternative) || self.since(5, 19)
    }

    /// PSCI `SYSTEM_RESET2`. Linux 5.18.
    #[must_use]
    pub fn has_psci_reset2(self) -> bool {
        self.since(5, 18)
    }

    /// PSCI `SYSTEM_OFF2`. Linux 6.13.
    #[must_use]
    pub fn has_psci_off2(self) -> bool {
        self.since(6, 13)
    }

    /// The newest version of PSCI that KVM speaks, which a guest gets unless its VMM chose another: a number of
    /// [`crate::psci::version`].
    #[must_use]
    pub fn psci_latest(self) -> u32 {
        use crate::psci::version::{V1_0, V1_1, V1_3};
        if self.has_psci_off2() {
            V1_3
        } else if self.has_psci_reset2() {
            V1_1
        } else {
            V1_0
        }
    }

    /// `KVM_CAP_ARM_SYSTEM_SUSPEND` (216) and the state `SUSPENDED` of a vCPU. Linux 5.19.
    #[must_use]
    pub fn has_arm_system_suspend(self) -> bool {
        self.since(5, 19)
    }

    /// `KVM_SET_MP_STATE` and `KVM_SET_VCPU_EVENTS` refuse a vCPU that waits for a startup interrupt which cannot
    /// come. Up to Linux 6.17; `KVM_RUN` refuses it since.
    #[must_use]
    pub fn refuses_blocked_sipi_at_set(self) -> bool {
        !self.since(6, 18)
    }

    /// `KVM_CAP_X86_NOTIFY_VMEXIT` (219). Linux 6.0.
    #[must_use]
    pub fn has_notify_vmexit(self) -> bool {
        self.since(6, 0)
    }

    /// `KVM_RUN_X86_GUEST_MODE` in `kvm_run.flags` says that L2 is active, and capability 238 that it does. Linux 6.11.
    #[must_use]
    pub fn says_guest_mode(self) -> bool {
        self.since(6, 11)
    }

    /// `SVM_EXIT_ERR` as a refused entry names it. The exit code had 32 bits; seen with 64 in 7.2, not in 6.12.
    #[must_use]
    pub fn svm_exit_err(self) -> u64 {
        if self.since(7, 2) { u64::MAX } else { 0xffff_ffff }
    }

    /// On SVM, L1 gets a triple fault where its VMCB cannot be written when L2 exits, or where L2 clears `EFER.SVME`.
    /// Before, L2 got a `#GP`, and L1 was taken back. Seen in 7.2, not in 6.12.
    #[must_use]
    pub fn leaves_l2_without_its_vmcb(self) -> bool {
        self.since(7, 2)
    }

    /// KVM forwards the RISC-V system suspend after its checks. Linux 6.14.
    #[must_use]
    pub fn has_sbi_susp(self) -> bool {
        self.since(6, 14)
    }

    /// What the vCPU events say of triple faults.
    #[must_use]
    pub fn triple_fault_form(self) -> TripleFaultForm {
        match self {
            Self::ShutdownFlagV4 => TripleFaultForm::OneWay,
            _ if self.since(6, 0) => TripleFaultForm::TwoWay,
            _ => TripleFaultForm::None,
        }
    }

    /// The triple fault can be saved and restored with the vCPU events, capability 218. Linux 6.0.
    #[must_use]
    pub fn has_triple_fault_event(self) -> bool {
        self.triple_fault_form() == TripleFaultForm::TwoWay
    }

    /// `KVM_EXIT_AP_RESET_HOLD`. Linux 5.11.
    #[must_use]
    pub fn has_ap_reset_hold(self) -> bool {
        self.since(5, 11)
    }

    /// `KVM_EXIT_MEMORY_FAULT`, memory attributes and `guest_memfd`. Linux 6.8.
    #[must_use]
    pub fn has_private_memory(self) -> bool {
        self.since(6, 8)
    }

    /// A `guest_memfd` can back a slot of a VM of each type, and userspace can map one whose pages are shared,
    /// capability 244. Linux 6.18; before, only VMs with private memory had them.
    #[must_use]
    pub fn has_gmem_mmap(self) -> bool {
        self.since(6, 18)
    }

    /// A part of a `guest_memfd` that is bound to a slot already is refused with `EEXIST`. Seen in 7.2; `EINVAL` in 6.12.
    #[must_use]
    pub fn names_gmem_overlap(self) -> bool {
        self.since(7, 2)
    }

    /// VMs with protected registers cannot have read-only slots, because writes to them are emulated. Seen in 6.12,
    /// not in 6.1.
    #[must_use]
    pub fn forbids_readonly_protected_slots(self) -> bool {
        self.since(6, 12)
    }

    /// A launch looks at the attribute of a page before it looks whether the page is the guest's already. Seen in 7.2,
    /// the other way round in 6.12.
    #[must_use]
    pub fn checks_attribute_before_rmp(self) -> bool {
        self.since(7, 2)
    }

    /// `KVM_PRE_FAULT_MEMORY`, capability 236. Linux 6.11.
    #[must_use]
    pub fn has_pre_fault_memory(self) -> bool {
        self.since(6, 11)
    }

    /// `KVM_GET_VCPU_EVENTS` counts the NMIs that are pending. Linux 6.4; before, it says whether there are any.
    #[must_use]
    pub fn counts_pending_nmis(self) -> bool {
        self.since(6, 4)
    }

    /// `KVM_RUN` writes `KVM_EXIT_UNKNOWN` before it enters the guest. Linux 6.8, with the first exit that comes with an
    /// error; before, an entry that fails leaves the reason of an earlier exit.
    #[must_use]
    pub fn clears_exit_reason(self) -> bool {
        self.since(6, 8)
    }

    /// The number of `KVM_EXIT_MEMORY_FAULT`, which the tree of one proposal had one lower.
    #[must_use]
    pub fn memory_fault_number(self) -> u32 {
        if self == Self::VmgexitV10 { 38 } else { 39 }
    }

    /// SNP guests. Linux 6.11.
    #[must_use]
    pub fn has_snp(self) -> bool {
        self.since(6, 11)
    }

    /// SNP guests can have a secure TSC. Linux 6.18.
    #[must_use]
    pub fn has_secure_tsc(self) -> bool {
        self.since(6, 18)
    }

    /// Which bits an SNP guest's policy can have depends on the firmware, and `/dev/kvm` tells. Seen in 7.2, not in 6.12.
    #[must_use]
    pub fn has_snp_policy_bits(self) -> bool {
        self.since(7, 2)
    }

    /// TDs, and `KVM_EXIT_TDX`. Linux 6.16.
    #[must_use]
    pub fn has_tdx(self) -> bool {
        self.since(6, 16)
    }

    /// How a request for a page-state change reaches userspace.
    #[must_use]
    pub fn conversion_form(self) -> ConversionForm {
        if self == Self::VmgexitV10 { ConversionForm::Vmgexit } else { ConversionForm::MapGpaRange }
    }

    /// How a request for certificates reaches userspace. Linux 7.0.
    #[must_use]
    pub fn certs_form(self) -> CertsForm {
        match self {
            Self::CocoV1 => CertsForm::Coco,
            _ if self.since(7, 0) => CertsForm::SnpReqCerts,
            _ => CertsForm::None,
        }
    }

    /// The kernel writes 0 to `hypercall.ret` before the exit. Linux 6.14; the bytes were stale before.
    #[must_use]
    pub fn presets_hypercall_ret(self) -> bool {
        self.since(6, 14)
    }

    /// The kernel takes only 0, `EINVAL` and `EAGAIN` as the answer to a page-state change and fails `KVM_RUN`
    /// otherwise. Linux 7.1; before, every non-zero answer was an error for the guest.
    #[must_use]
    pub fn checks_conversion_ret(self) -> bool {
        self.since(7, 1)
    }

    /// The kernel reads the header of a page-state change once, when the request begins. It read the header again for
    /// each batch, and looked at the capability again after each. Seen in 7.2, not in 6.12.
    #[must_use]
    pub fn reads_psc_header_once(self) -> bool {
        self.since(7, 2)
    }

    /// A GHCB that is not registered, and a request that only SNP guests may make, are answered to the guest as such,
    /// and bad page addresses of a guest request as invalid input. Seen in 7.2, not in 6.12.
    #[must_use]
    pub fn names_what_a_vmgexit_lacks(self) -> bool {
        self.since(7, 2)
    }

    /// A processor that an SNP guest creates has to have all of the `SEV_FEATURES` that the VM has. Linux 6.15; before,
    /// only the modes of injection were compared.
    #[must_use]
    pub fn compares_all_sev_features(self) -> bool {
        self.since(6, 15)
    }

    /// A processor whose new VMSA could not be found runs all the same, and so fails its entry. Seen in 7.2, not in
    /// 6.18, where it stays halted.
    #[must_use]
    pub fn runs_after_a_failed_ap_creation(self) -> bool {
        self.since(7, 2)
    }

    /// Bytes of `hypercall.flags` that the kernel writes: 4 up to Linux 6.5 (`longmode`), 8 since.
    #[must_use]
    pub fn hypercall_flags_bytes(self) -> usize {
        if self.since(6, 6) { 8 } else { 4 }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The architecture of the host kernel and its guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arch {
    /// x86-64.
    #[default]
    X86,
    /// arm64.
    Arm64,
    /// riscv64.
    Riscv64,
}

impl Arch {
    /// KVM clears `system_event` before it fills it, and the word behind the type counts where `ndata` is not yet
    /// there. x86 does neither.
    #[must_use]
    pub const fn clears_system_event(self) -> bool {
        matches!(self, Self::Arm64 | Self::Riscv64)
    }

    /// The architecture with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "x86_64" => Some(Self::X86),
            "arm64" => Some(Self::Arm64),
            "riscv64" => Some(Self::Riscv64),
            _ => None,
        }
    }
}

/// Whose bytes are read: a dialect on an architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The release.
    pub dialect: Dialect,
    /// The architecture, which decides what a system event carries.
    pub arch: Arch,
}

/// The word size of the process that reads `kvm_run`, which decides the padding of implicit layouts.
///
/// x32 lays out like [`WordSize::Lp64`]; only i386 aligns a `u64` member to 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WordSize {
    /// x86-64, x32, arm64, riscv64: `u64` members are aligned to 8 bytes.
    Lp64,
    /// i386: `u64` members are aligned to 4 bytes.
    Ilp32,
}

#[cfg(test)]
mod tests;
