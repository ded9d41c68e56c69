//! The calls of a RISC-V guest that end in a system event, or in an exit of their own.

use crate::exit::{EventType, SystemEvent, Words};
use exeunt_abi::sbi::{SRST_RESET, SUSP_SUSPEND, extension, reset_type};

/// A call of the supervisor binary interface, from the registers of the guest.
///
/// Source: RISC-V "Supervisor Binary Interface Specification", version 2.0; Linux v7.2 `arch/riscv/kvm/vcpu_sbi.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SbiCall {
    /// Version 0.1: shut down.
    ShutdownV01,
    /// System reset.
    Reset {
        /// `a0`: a number of [`reset_type`].
        kind: u32,
        /// `a1`: a number of [`exeunt_abi::sbi::reset_reason`].
        reason: u32,
    },
    /// System suspend, which arrives as `KVM_EXIT_RISCV_SBI`.
    Suspend {
        /// `a0`: 0 to suspend to memory.
        kind: u32,
        /// `a1`: where the guest goes on.
        resume_address: u64,
        /// `a2`: what it finds in `a1` then.
        opaque: u64,
    },
    /// A call without a meaning here.
    Other {
        /// `a7`.
        extension: u64,
        /// `a6`.
        function: u64,
        /// `a0` to `a5`.
        args: [u64; 6],
    },
}

impl SbiCall {
    /// Decodes `a7`, `a6` and `a0` to `a5`: the members of `kvm_run.riscv_sbi`.
    #[must_use]
    pub const fn decode(extension: u64, function: u64, args: [u64; 6]) -> Self {
        let [a0, a1, a2, ..] = args;
        match (extension, function) {
            (extension::SHUTDOWN_V01, _) => Self::ShutdownV01,
            (extension::SRST, SRST_RESET) => {
                Self::Reset { kind: (a0 & 0xffff_ffff) as u32, reason: (a1 & 0xffff_ffff) as u32 }
            }
            (extension::SUSP, SUSP_SUSPEND) => {
                Self::Suspend { kind: (a0 & 0xffff_ffff) as u32, resume_address: a1, opaque: a2 }
            }
            _ => Self::Other { extension, function, args },
        }
    }

    /// The system event that the call ends in, or `None` where it ends in none.
    #[must_use]
    pub fn event(self) -> Option<SystemEvent> {
        let (event, word) = match self {
            Self::ShutdownV01 => (EventType::Shutdown, 0),
            Self::Reset { kind: reset_type::SHUTDOWN, reason } => (EventType::Shutdown, reason),
            Self::Reset { kind: reset_type::COLD_REBOOT | reset_type::WARM_REBOOT, reason } => {
                (EventType::Reset, reason)
            }
            _ => return None,
        };
        Some(SystemEvent { event, data: Words::from_slice(&[u64::from(word)]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_extension_and_function_decodes_and_the_unknown_survives() {
        let args = [1, 2, 3, 4, 5, 6];
        for extension in [0, 1, 8, extension::SRST, extension::SUSP, u64::MAX] {
            for function in 0..3 {
                let call = SbiCall::decode(extension, function, args);
                let is_other = call == SbiCall::Other { extension, function, args };
                let known = extension == 8 || extension > 8 && extension < u64::MAX && function == 0;
                assert_eq!(is_other, !known, "{extension:#x} {function}");
            }
        }
    }

    #[test]
    fn a_reset_ends_in_the_event_of_its_type_with_its_reason() {
        for kind in 0..8 {
            let event = SbiCall::decode(extension::SRST, 0, [kind, 1 << 32 | 1, 0, 0, 0, 0]).event();
            let expected = match kind {
                0 => Some(EventType::Shutdown),
                1 | 2 => Some(EventType::Reset),
                _ => None,
            };
            assert_eq!(event.map(|event| event.event), expected);
            assert!(event.is_none_or(|event| event.data.as_slice() == [1]), "the reason has 32 bits");
        }
        let shutdown = SbiCall::ShutdownV01.event().unwrap();
        assert_eq!((shutdown.event, shutdown.data.as_slice()), (EventType::Shutdown, [0].as_slice()));
        assert_eq!(SbiCall::Suspend { kind: 0, resume_address: 0, opaque: 0 }.event(), None);
    }
}
