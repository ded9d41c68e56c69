//! PSCI calls of arm64 guests that end in a system event.

use crate::engine::Step;
use crate::guest::GuestFault;
use crate::guest::mailbox::Outcome;
use crate::vcpu::{MpState, OnEntry, Vcpu};
use exeunt_abi::Arch;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{PSCI_OFF2, PSCI_RESET2};
use exeunt_proto::exit::{EventType, Exit, SystemEvent, Words};

/// `SYSTEM_OFF`.
const SYSTEM_OFF: u32 = 0x8400_0008;
/// `SYSTEM_RESET`.
const SYSTEM_RESET: u32 = 0x8400_0009;
/// `SYSTEM_SUSPEND`, SMC64.
const SYSTEM_SUSPEND: u32 = 0xc400_000e;
/// `SYSTEM_RESET2`, SMC64.
const SYSTEM_RESET2: u32 = 0xc400_0012;
/// `SYSTEM_OFF2`, SMC64.
const SYSTEM_OFF2: u32 = 0xc400_0015;

/// `NOT_SUPPORTED`, -1.
const NOT_SUPPORTED: u64 = u64::MAX;
/// `INVALID_PARAMETERS`, -2.
const INVALID_PARAMETERS: u64 = u64::MAX - 1;
/// `INTERNAL_FAILURE`, -6: what the guest sees should it run after it asked for an end.
const INTERNAL_FAILURE: u64 = u64::MAX - 5;

impl Vcpu {
    /// Source: Linux v7.2 `arch/arm64/kvm/psci.c`; DEN0022F "Arm Power State Coordination Interface".
    pub(crate) fn psci(&mut self, function: u32, args: [u64; 3]) -> Step {
        if self.kernel.arch != Arch::Arm64 {
            return Step::Guest(Outcome::Fault(GuestFault::InvalidOpcode));
        }
        self.did(|| format!("HVC with PSCI function {function:#x}, arguments {args:x?}"));
        let [kind, cookie, _] = args;
        match function {
            SYSTEM_OFF => self.system_event(EventType::Shutdown, 0),
            SYSTEM_RESET => self.system_event(EventType::Reset, 0),
            // PSCI 1.1, Linux 5.18.
            SYSTEM_RESET2 if self.kernel.dialect.has_psci_reset2() => {
                if kind != 0 && kind & 0x8000_0000 == 0 {
                    return Step::Guest(Outcome::Value(INVALID_PARAMETERS));
                }
                self.system_event(EventType::Reset, PSCI_RESET2)
            }
            // PSCI 1.3, Linux 6.13.
            SYSTEM_OFF2 if self.kernel.dialect.has_psci_off2() => {
                if kind > 1 || cookie != 0 {
                    return Step::Guest(Outcome::Value(INVALID_PARAMETERS));
                }
                self.system_event(EventType::Shutdown, PSCI_OFF2)
            }
            SYSTEM_SUSPEND if self.vm.lock().cap(Cap::ARM_SYSTEM_SUSPEND) != 0 => {
                // The registers are left alone: x1 and x2 are for the VMM, which sets x0 itself.
                self.on_entry = Some(OnEntry::Rax);
                let event = SystemEvent { event: EventType::Suspend, data: Words::NONE };
                Step::Exit(self.exit(&Exit::SystemEvent(event)))
            }
            _ => Step::Guest(Outcome::Value(NOT_SUPPORTED)),
        }
    }

    /// Stops the vCPU and tells userspace. Should the VMM start it again, the call has failed.
    fn system_event(&mut self, event: EventType, flags: u64) -> Step {
        self.mp_state = MpState::Stopped;
        self.regs.rax = INTERNAL_FAILURE;
        self.on_entry = Some(OnEntry::Rax);
        let data = Words::from_slice(&[flags]);
        Step::Exit(self.exit(&Exit::SystemEvent(SystemEvent { event, data })))
    }
}
