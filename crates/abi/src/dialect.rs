//! Which kernel wrote these bytes.

use core::fmt;

/// A kernel, named by the release whose behaviour is meant.
///
/// A dialect is not a feature test: a VMM asks its kernel with `KVM_CHECK_EXTENSION`. It says how the *bytes* of an
/// exit are to be read and answered where no capability tells, and it is what the model imitates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

impl Dialect {
    /// Every dialect, oldest first.
    pub const ALL: [Self; 5] =
        [Self::Linux5_10, Self::Linux5_17, Self::Linux6_1, Self::Linux6_12, Self::Linux7_2];

    /// The name on the command line and in scenario files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linux5_10 => "linux-5.10",
            Self::Linux5_17 => "linux-5.17",
            Self::Linux6_1 => "linux-6.1",
            Self::Linux6_12 => "linux-6.12",
            Self::Linux7_2 => "linux-7.2",
        }
    }

    /// The dialect with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }

    /// `KVM_CAP_EXIT_HYPERCALL` (201) can be enabled. Linux 5.14.
    #[must_use]
    pub fn has_exit_hypercall(self) -> bool {
        self >= Self::Linux5_17
    }

    /// `system_event` carries `ndata` and `data`, capability 215. Linux 5.18.
    #[must_use]
    pub fn has_system_event_data(self) -> bool {
        self >= Self::Linux6_1
    }

    /// An SEV-ES guest's termination request exits as `KVM_SYSTEM_EVENT_SEV_TERM`. Linux 5.19; `KVM_RUN` failed
    /// with `EINVAL` before.
    #[must_use]
    pub fn has_sev_term(self) -> bool {
        self >= Self::Linux6_1
    }

    /// The triple fault can be saved and restored with the vCPU events, capability 218. Linux 6.0.
    #[must_use]
    pub fn has_triple_fault_event(self) -> bool {
        self >= Self::Linux6_1
    }

    /// `KVM_EXIT_AP_RESET_HOLD`. Linux 5.11.
    #[must_use]
    pub fn has_ap_reset_hold(self) -> bool {
        self >= Self::Linux5_17
    }

    /// `KVM_EXIT_MEMORY_FAULT`, memory attributes and `guest_memfd`. Linux 6.8.
    #[must_use]
    pub fn has_private_memory(self) -> bool {
        self >= Self::Linux6_12
    }

    /// SNP guests. Linux 6.11.
    #[must_use]
    pub fn has_snp(self) -> bool {
        self >= Self::Linux6_12
    }

    /// TDs, and `KVM_EXIT_TDX`. Linux 6.16.
    #[must_use]
    pub fn has_tdx(self) -> bool {
        self >= Self::Linux7_2
    }

    /// `KVM_EXIT_SNP_REQ_CERTS`. Linux 7.0.
    #[must_use]
    pub fn has_snp_req_certs(self) -> bool {
        self >= Self::Linux7_2
    }

    /// The kernel writes 0 to `hypercall.ret` before the exit. Linux 6.14; the bytes were stale before.
    #[must_use]
    pub fn presets_hypercall_ret(self) -> bool {
        self >= Self::Linux7_2
    }

    /// The kernel takes only 0, `EINVAL` and `EAGAIN` as the answer to a page-state change and fails `KVM_RUN`
    /// otherwise. Linux 7.1; before, every non-zero answer was an error for the guest.
    #[must_use]
    pub fn checks_conversion_ret(self) -> bool {
        self >= Self::Linux7_2
    }

    /// Bytes of `hypercall.flags` that the kernel writes: 4 up to Linux 6.5 (`longmode`), 8 since.
    #[must_use]
    pub fn hypercall_flags_bytes(self) -> usize {
        if self >= Self::Linux6_12 { 8 } else { 4 }
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
}

impl Arch {
    /// The architecture with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "x86_64" => Some(Self::X86),
            "arm64" => Some(Self::Arm64),
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
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_dialect() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::from_name(dialect.name()), Some(dialect));
        }
        assert_eq!(Dialect::from_name("linux-9.9"), None);
        assert_eq!(Dialect::default(), Dialect::Linux7_2);
    }

    #[test]
    fn a_feature_once_there_stays() {
        let features: [fn(Dialect) -> bool; 10] = [
            Dialect::has_exit_hypercall,
            Dialect::has_system_event_data,
            Dialect::has_sev_term,
            Dialect::has_triple_fault_event,
            Dialect::has_ap_reset_hold,
            Dialect::has_private_memory,
            Dialect::has_snp,
            Dialect::has_tdx,
            Dialect::has_snp_req_certs,
            Dialect::checks_conversion_ret,
        ];
        for has in features {
            let mut seen = false;
            for dialect in Dialect::ALL {
                assert!(!seen || has(dialect), "{dialect} lost a feature");
                seen |= has(dialect);
            }
            assert!(seen);
        }
    }
}
