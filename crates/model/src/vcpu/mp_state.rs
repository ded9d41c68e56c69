//! What a vCPU waits for.

use exeunt_abi::kvm::mp_state;

/// `KVM_MP_STATE_*`, as far as the architectures of the model have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MpState {
    /// The vCPU runs.
    #[default]
    Runnable,
    /// x86: an application processor that had no INIT yet.
    Uninitialized,
    /// x86: INIT came, the startup interrupt did not.
    InitReceived,
    /// The vCPU halted and waits for an event.
    Halted,
    /// x86: the startup interrupt came just now.
    SipiReceived,
    /// arm64, riscv64: the vCPU is stopped.
    Stopped,
    /// x86: an SEV-ES guest holds this processor in reset.
    ApResetHold,
    /// arm64: the guest is suspended and waits for a reason to wake up.
    Suspended,
}

impl MpState {
    /// Every state, in the order of the numbers.
    pub const ALL: [Self; 8] = [
        Self::Runnable,
        Self::Uninitialized,
        Self::InitReceived,
        Self::Halted,
        Self::SipiReceived,
        Self::Stopped,
        Self::ApResetHold,
        Self::Suspended,
    ];

    /// The number that the ioctls carry.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Runnable => mp_state::RUNNABLE,
            Self::Uninitialized => mp_state::UNINITIALIZED,
            Self::InitReceived => mp_state::INIT_RECEIVED,
            Self::Halted => mp_state::HALTED,
            Self::SipiReceived => mp_state::SIPI_RECEIVED,
            Self::Stopped => mp_state::STOPPED,
            Self::ApResetHold => mp_state::AP_RESET_HOLD,
            Self::Suspended => mp_state::SUSPENDED,
        }
    }

    /// The state with this number. `None` for those of s390 and for numbers that no kernel has.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_leads_to_its_state_and_back() {
        let known = (0..0x100).filter_map(MpState::from_number).map(MpState::number);
        assert_eq!(known.collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 9, 10]);
    }
}
