//! The calls of an arm64 guest that end in a system event.

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
    /// `SYSTEM_OFF`.
    SystemOff,
    /// `SYSTEM_OFF2`. PSCI 1.3.
    SystemOff2 {
        /// The kind: 1 to hibernate, and 0 for the same.
        kind: u64,
        /// Must be 0.
        cookie: u64,
    },
    /// `SYSTEM_RESET`.
    SystemReset,
    /// `SYSTEM_RESET2`. PSCI 1.1.
    SystemReset2 {
        /// The kind: 0 for a warm reset, the vendor's from `0x8000_0000` on.
        kind: u64,
        /// What the kind makes of it.
        cookie: u64,
    },
    /// `SYSTEM_SUSPEND`.
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
    /// Decodes `x0` to `x2`. A function with 32-bit arguments takes their low halves, as the kernel does.
    #[must_use]
    pub const fn decode([x0, x1, x2]: [u64; 3]) -> Self {
        let number = (x0 & 0xffff_ffff) as u32;
        let is_64 = number & 1 << 30 != 0;
        let (x1, x2) = if is_64 { (x1, x2) } else { (x1 & 0xffff_ffff, x2 & 0xffff_ffff) };
        match number {
            function::SYSTEM_OFF => Self::SystemOff,
            function::SYSTEM_OFF2 | function::SYSTEM_OFF2_64 => Self::SystemOff2 { kind: x1, cookie: x2 },
            function::SYSTEM_RESET => Self::SystemReset,
            function::SYSTEM_RESET2 | function::SYSTEM_RESET2_64 => {
                Self::SystemReset2 { kind: x1, cookie: x2 }
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
            Self::SystemOff2 { kind, cookie: 0 } if kind <= u64::from(OFF2_HIBERNATE) => {
                (EventType::Shutdown, Words::from_slice(&[PSCI_OFF2]))
            }
            Self::SystemReset => (EventType::Reset, Words::from_slice(&[0])),
            Self::SystemReset2 { kind, .. }
                if kind == u64::from(RESET2_SYSTEM_WARM_RESET) || kind >= u64::from(RESET2_VENDOR) =>
            {
                (EventType::Reset, Words::from_slice(&[PSCI_RESET2]))
            }
            Self::SystemSuspend { .. } => (EventType::Suspend, Words::NONE),
            _ => return None,
        };
        Some(SystemEvent { event, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_with_a_name_is_known_and_every_other_survives() {
        for number in (0x8400_0000..0x8400_0100).chain(0xc400_0000..0xc400_0100) {
            let call = PsciCall::decode([u64::from(number), 0, 0]);
            let is_other = call == PsciCall::Other { function: number };
            assert_eq!(is_other, function::name(number).is_none(), "{number:#x}");
        }
    }

    #[test]
    fn a_32_bit_function_takes_the_low_halves_of_its_arguments() {
        let wide = [1 << 32 | 5, 1 << 32 | 6];
        let low = PsciCall::decode([0x8400_0012, wide[0], wide[1]]);
        assert_eq!(low, PsciCall::SystemReset2 { kind: 5, cookie: 6 });
        let all = PsciCall::decode([0xc400_0012, wide[0], wide[1]]);
        assert_eq!(all, PsciCall::SystemReset2 { kind: wide[0], cookie: wide[1] });
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
