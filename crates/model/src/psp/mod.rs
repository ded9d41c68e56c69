//! The secure processor's firmware, as far as a guest request gets.

use exeunt_abi::Errno;

/// How the firmware answers guest requests.
///
/// It holds no keys: it neither opens the request nor fills the response, whose page is zero. What is modelled is
/// what KVM and the guest make of its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// The command completes with this status; 0 is success.
    Completes {
        /// `SEV_RET_*` of the firmware.
        status: u32,
    },
    /// The command does not complete: the processor is dead or timed out, or the descriptor is bad.
    Fails(Errno),
}

impl Default for Firmware {
    fn default() -> Self {
        Self::Completes { status: 0 }
    }
}
