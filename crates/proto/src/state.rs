//! The state of a vCPU that a VMM reads and writes by ioctl, beside its events.

use crate::host::Events;
use core::fmt;
use exeunt_abi::Errno;
use exeunt_abi::kvm::cpuid::CpuidEntry2;
use exeunt_abi::kvm::regs::{DebugRegs, Regs, Sregs, XSAVE_BYTES, Xcrs};

/// What one pair of ioctls reads and writes. Its bytes are carried as the kernel gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Area {
    /// `KVM_GET_CPUID2`, `KVM_SET_CPUID2`: entries of 40 bytes, without their count.
    Cpuid,
    /// `KVM_GET_SREGS`, `KVM_SET_SREGS`.
    Sregs,
    /// `KVM_GET_XCRS`, `KVM_SET_XCRS`.
    Xcrs,
    /// `KVM_GET_XSAVE`, `KVM_SET_XSAVE`: the 4096 bytes that every kernel takes.
    Xsave,
    /// `KVM_GET_DEBUGREGS`, `KVM_SET_DEBUGREGS`.
    DebugRegs,
    /// `KVM_GET_REGS`, `KVM_SET_REGS`.
    Regs,
}

impl Area {
    /// Every area, in the order in which a vCPU takes them: CPUID decides what the others may hold, and `KVM_SET_REGS`
    /// drops a pending exception, so that the events come behind all of these.
    pub const ALL: [Self; 6] =
        [Self::Cpuid, Self::Sregs, Self::Xcrs, Self::Xsave, Self::DebugRegs, Self::Regs];

    /// The most bytes that it can have. CPUID has at most 256 entries, `KVM_MAX_CPUID_ENTRIES`.
    #[must_use]
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Cpuid => size_of::<CpuidEntry2>().saturating_mul(256),
            Self::Sregs => size_of::<Sregs>(),
            Self::Xcrs => size_of::<Xcrs>(),
            Self::Xsave => XSAVE_BYTES,
            Self::DebugRegs => size_of::<DebugRegs>(),
            Self::Regs => size_of::<Regs>(),
        }
    }

    /// The name of the ioctl pair behind `KVM_GET_` and `KVM_SET_`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpuid => "CPUID2",
            Self::Sregs => "SREGS",
            Self::Xcrs => "XCRS",
            Self::Xsave => "XSAVE",
            Self::DebugRegs => "DEBUGREGS",
            Self::Regs => "REGS",
        }
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The state of a vCPU, as far as a VMM reads and writes it.
pub trait State: Events {
    /// The vCPU's id, which is its APIC id on x86.
    fn vcpu_id(&self) -> u64;

    /// `KVM_GET_MP_STATE`, with any number.
    ///
    /// # Errors
    ///
    /// The error number of the ioctl.
    fn mp_state(&mut self) -> Result<u32, Errno>;

    /// `KVM_SET_MP_STATE`, with any number.
    ///
    /// # Errors
    ///
    /// The error number of the ioctl: `EINVAL` for a number that this kernel does not take.
    fn set_mp_state(&mut self, mp_state: u32) -> Result<(), Errno>;

    /// Reads an area into the front of `to`, which has room for [`Area::max_bytes`], and says how long it is. `None`
    /// is an area that this kernel half does not have.
    ///
    /// # Errors
    ///
    /// The error number of the ioctl: `EINVAL` once the guest's registers are encrypted.
    fn area(&mut self, area: Area, to: &mut [u8]) -> Result<Option<usize>, Errno>;

    /// Writes an area.
    ///
    /// # Errors
    ///
    /// The error number of the ioctl; `EINVAL` for bytes of another length, `EOPNOTSUPP` for an area that this kernel
    /// half does not have.
    fn set_area(&mut self, area: Area, from: &[u8]) -> Result<(), Errno>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_area_has_a_name_of_its_own_and_room_for_what_it_holds() {
        for (index, area) in Area::ALL.iter().enumerate() {
            assert!((1..=10_240).contains(&area.max_bytes()), "{area}");
            assert!(Area::ALL.iter().skip(index + 1).all(|other| other.name() != area.name()));
        }
        assert_eq!(
            (Area::Regs.max_bytes(), Area::Sregs.max_bytes(), Area::Xcrs.max_bytes()),
            (144, 312, 392)
        );
        assert_eq!(
            Area::ALL.last(),
            Some(&Area::Regs),
            "the events follow, because it drops a pending exception"
        );
    }
}
