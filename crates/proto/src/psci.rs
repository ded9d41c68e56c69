//! The calls of an arm64 guest to its firmware: those that end in a system event, and those that KVM answers.

use crate::exit::{EventType, SystemEvent, Words};
use exeunt_abi::Gpa;
use exeunt_abi::kvm::run::{PSCI_OFF2, PSCI_RESET2};
use exeunt_abi::psci::{OFF2_HIBERNATE, RESET2_SYSTEM_WARM_RESET, RESET2_VENDOR, function};

/// A call of the power state coordination interface, from the registers of the guest.
///
/// Source: Arm DEN0022 version 1.3; Linux v7.2 `arch/arm64/kvm/psci.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PsciCall {
    /// `PSCI_VERSION`.
    Version,
    /// `CPU_SUSPEND`, which KVM takes for a wait for an interrupt whatever its arguments say.
    CpuSuspend,
    /// `CPU_OFF`.
    CpuOff,
    /// `CPU_ON`.
    CpuOn {
        /// The core, as its `MPIDR` names it.
        target: u64,
        /// Where it starts.
        entry: Gpa,
        /// What it finds in `x0` then.
        context: u64,
    },
    /// `AFFINITY_INFO`.
    AffinityInfo {
        /// A core, as its `MPIDR` names it.
        target: u64,
        /// The lowest level of the name that counts, 0 to 3.
        lowest_level: u64,
    },
    /// `MIGRATE_INFO_TYPE`.
    MigrateInfoType,
    /// `PSCI_FEATURES`. PSCI 1.0.
    Features {
        /// The function that is asked for.
        function: u32,
    },
    /// `SYSTEM_OFF`.
    SystemOff,
    /// `SYSTEM_OFF2`. PSCI 1.3.
    SystemOff2 {
        /// The kind: 1 to hibernate, and 0 for the same.
        kind: u32,
        /// Must be 0.
        cookie: u64,
    },
    /// `SYSTEM_RESET`.
    SystemReset,
    /// `SYSTEM_RESET2`. PSCI 1.1.
    SystemReset2 {
        /// The kind: 0 for a warm reset, the vendor's from `0x8000_0000` on.
        kind: u32,
        /// What the kind makes of it.
        cookie: u64,
    },
    /// `SYSTEM_SUSPEND`. PSCI 1.0.
    SystemSuspend {
        /// Where the guest goes on.
        entry: Gpa,
        /// What it finds in `x0` then.
        context: u64,
    },
    /// A function without a meaning here.
    Other {
        /// `w0`.
        function: u32,
    },
}

impl PsciCall {
    /// Decodes `x0` to `x3`. A function with 32-bit arguments takes their low halves, as the kernel does. The kinds of
    /// resets and shutdowns and the function that is asked for have 32 bits in KVM even where the argument has 64.
    #[must_use]
    pub const fn decode([x0, x1, x2, x3]: [u64; 4]) -> Self {
        let number = low(x0);
        let is_64 = number & 1 << 30 != 0;
        let [x1, x2, x3] =
            if is_64 { [x1, x2, x3] } else { [x1 & 0xffff_ffff, x2 & 0xffff_ffff, x3 & 0xffff_ffff] };
        match number {
            function::VERSION => Self::Version,
            function::CPU_SUSPEND | function::CPU_SUSPEND_64 => Self::CpuSuspend,
            function::CPU_OFF => Self::CpuOff,
            function::CPU_ON | function::CPU_ON_64 => Self::CpuOn { target: x1, entry: Gpa(x2), context: x3 },
            function::AFFINITY_INFO | function::AFFINITY_INFO_64 => {
                Self::AffinityInfo { target: x1, lowest_level: x2 }
            }
            function::MIGRATE_INFO_TYPE => Self::MigrateInfoType,
            function::FEATURES => Self::Features { function: low(x1) },
            function::SYSTEM_OFF => Self::SystemOff,
            function::SYSTEM_OFF2 | function::SYSTEM_OFF2_64 => {
                Self::SystemOff2 { kind: low(x1), cookie: x2 }
            }
            function::SYSTEM_RESET => Self::SystemReset,
            function::SYSTEM_RESET2 | function::SYSTEM_RESET2_64 => {
                Self::SystemReset2 { kind: low(x1), cookie: x2 }
            }
            function::SYSTEM_SUSPEND | function::SYSTEM_SUSPEND_64 => {
                Self::SystemSuspend { entry: Gpa(x1), context: x2 }
            }
            function => Self::Other { function },
        }
    }

    /// The event that the call ends in, or `None` where KVM answers it itself: for arguments that are wrong and for
    /// every other function. For a suspend the capability `KVM_CAP_ARM_SYSTEM_SUSPEND` has to be on.
    #[must_use]
    pub fn event(self) -> Option<SystemEvent> {
        let (event, data) = match self {
            Self::SystemOff => (EventType::Shutdown, Words::from_slice(&[0])),
            Self::SystemOff2 { kind, cookie: 0 } if kind <= OFF2_HIBERNATE => {
                (EventType::Shutdown, Words::from_slice(&[PSCI_OFF2]))
            }
            Self::SystemReset => (EventType::Reset, Words::from_slice(&[0])),
            Self::SystemReset2 { kind, .. } if kind == RESET2_SYSTEM_WARM_RESET || kind >= RESET2_VENDOR => {
                (EventType::Reset, Words::from_slice(&[PSCI_RESET2]))
            }
            Self::SystemSuspend { .. } => (EventType::Suspend, Words::NONE),
            _ => return None,
        };
        Some(SystemEvent { event, data })
    }
}

/// The low half of a register.
const fn low(register: u64) -> u32 {
    (register & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_with_a_name_is_known_and_every_other_survives() {
        for number in (0x8400_0000..0x8400_0100).chain(0xc400_0000..0xc400_0100) {
            let call = PsciCall::decode([u64::from(number), 0, 0, 0]);
            let is_other = call == PsciCall::Other { function: number };
            assert_eq!(is_other, function::name(number).is_none(), "{number:#x}");
        }
    }

    #[test]
    fn a_32_bit_function_takes_the_low_halves_of_its_arguments() {
        let wide = [1 << 32 | 5, 1 << 32 | 6, 1 << 32 | 7];
        let decode = |function: u64| PsciCall::decode([function, wide[0], wide[1], wide[2]]);
        let low = PsciCall::CpuOn { target: 5, entry: Gpa(6), context: 7 };
        assert_eq!(decode(0x8400_0003), low);
        let all = PsciCall::CpuOn { target: wide[0], entry: Gpa(wide[1]), context: wide[2] };
        assert_eq!(decode(0xc400_0003), all);
        assert_eq!(decode(0x8400_000e), PsciCall::SystemSuspend { entry: Gpa(5), context: 6 });
        assert_eq!(decode(0xc400_000e), PsciCall::SystemSuspend { entry: Gpa(wide[0]), context: wide[1] });
    }

    #[test]
    fn the_kind_of_a_reset_or_shutdown_has_32_bits_and_a_cookie_those_of_its_function() {
        for kind in [0u32, 1, 5, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            for high in [0u64, 1, 0x8000_0000] {
                let [x1, x2] = [high << 32 | u64::from(kind), 1 << 32];
                let decode = |function: u64| PsciCall::decode([function, x1, x2, 0]);
                assert_eq!(decode(0x8400_0012), PsciCall::SystemReset2 { kind, cookie: 0 });
                assert_eq!(decode(0xc400_0012), PsciCall::SystemReset2 { kind, cookie: x2 });
                assert_eq!(decode(0x8400_0015), PsciCall::SystemOff2 { kind, cookie: 0 });
                assert_eq!(decode(0xc400_0015), PsciCall::SystemOff2 { kind, cookie: x2 });
                assert_eq!(decode(0x8400_000a), PsciCall::Features { function: kind });
            }
        }
    }

    #[test]
    fn each_call_ends_in_its_event_or_is_answered_by_kvm() {
        let event = |call: PsciCall| call.event().map(|event| (event.event, event.data.first()));
        assert_eq!(event(PsciCall::SystemOff), Some((EventType::Shutdown, Some(0))));
        assert_eq!(event(PsciCall::SystemReset), Some((EventType::Reset, Some(0))));
        let suspend = PsciCall::SystemSuspend { entry: Gpa(0), context: 0 };
        assert_eq!(event(suspend), Some((EventType::Suspend, None)));
        for kind in 0..8 {
            for cookie in 0..2 {
                let off2 = event(PsciCall::SystemOff2 { kind, cookie });
                let taken = kind <= 1 && cookie == 0;
                assert_eq!(off2, taken.then_some((EventType::Shutdown, Some(1))), "{kind} {cookie}");
            }
        }
        for (kind, taken) in [(0, true), (1, false), (0x7fff_ffff, false), (0x8000_0000, true)] {
            let reset2 = event(PsciCall::SystemReset2 { kind, cookie: 9 });
            assert_eq!(reset2, taken.then_some((EventType::Reset, Some(1))), "{kind:#x}");
        }
        assert_eq!(event(PsciCall::Other { function: 0x8400_0000 }), None);
    }
}
