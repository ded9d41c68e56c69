//! PSCI calls of arm64 guests that end in a system event.

use crate::guest::GuestFault;
use crate::guest::mailbox::Outcome;
use crate::vcpu::Step;
use crate::vcpu::{MpState, OnEntry, Vcpu};
use exeunt_abi::Arch;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{PSCI_OFF2, PSCI_RESET2};
use exeunt_abi::psci::{function, return_code};
use exeunt_proto::exit::{EventType, Exit, SystemEvent, Words};

/// What the guest finds in `x0`: a code of [`return_code`], as the register holds it.
const fn register(code: i64) -> u64 {
    u64::from_ne_bytes(code.to_ne_bytes())
}

impl Vcpu {
    /// Source: Linux v7.2 `arch/arm64/kvm/psci.c`; DEN0022F "Arm Power State Coordination Interface".
    pub(crate) fn psci(&mut self, number: u32, args: [u64; 3]) -> Step {
        if self.kernel.arch != Arch::Arm64 {
            return Step::Guest(Outcome::Fault(GuestFault::InvalidOpcode));
        }
        self.did(|| format!("HVC with PSCI function {number:#x}, arguments {args:x?}"));
        let [kind, cookie, _] = args;
        match number {
            function::SYSTEM_OFF => self.system_event(EventType::Shutdown, 0),
            function::SYSTEM_RESET => self.system_event(EventType::Reset, 0),
            // PSCI 1.1, Linux 5.18.
            function::SYSTEM_RESET2_64 if self.kernel.dialect.has_psci_reset2() => {
                if kind != 0 && kind & 0x8000_0000 == 0 {
                    return Step::Guest(Outcome::Value(register(return_code::INVALID_PARAMETERS)));
                }
                self.system_event(EventType::Reset, PSCI_RESET2)
            }
            // PSCI 1.3, Linux 6.13.
            function::SYSTEM_OFF2_64 if self.kernel.dialect.has_psci_off2() => {
                if kind > 1 || cookie != 0 {
                    return Step::Guest(Outcome::Value(register(return_code::INVALID_PARAMETERS)));
                }
                self.system_event(EventType::Shutdown, PSCI_OFF2)
            }
            function::SYSTEM_SUSPEND_64 if self.vm.lock().cap(Cap::ARM_SYSTEM_SUSPEND) != 0 => {
                // The registers are left alone: x1 and x2 are for the VMM, which sets x0 itself.
                self.on_entry = Some(OnEntry::Rax);
                let event = SystemEvent { event: EventType::Suspend, data: Words::NONE };
                Step::Exit(self.exit(&Exit::SystemEvent(event)))
            }
            _ => Step::Guest(Outcome::Value(register(return_code::NOT_SUPPORTED))),
        }
    }

    /// Stops the vCPU and tells userspace. Should the VMM start it again, the call has failed.
    fn system_event(&mut self, event: EventType, flags: u64) -> Step {
        self.mp_state = MpState::Stopped;
        self.regs.rax = register(return_code::INTERNAL_FAILURE);
        self.on_entry = Some(OnEntry::Rax);
        let data = Words::from_slice(&[flags]);
        Step::Exit(self.exit(&Exit::SystemEvent(SystemEvent { event, data })))
    }
}
