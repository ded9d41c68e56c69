//! PSCI calls of arm64 guests that end in a system event.

use crate::guest::GuestFault;
use crate::guest::mailbox::Outcome;
use crate::vcpu::Step;
use crate::vcpu::{MpState, OnEntry, Vcpu};
use exeunt_abi::Arch;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::psci::return_code;
use exeunt_proto::exit::{EventType, Exit, SystemEvent};
use exeunt_proto::psci::PsciCall;

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
        let [x1, x2, x3] = args;
        let dialect = self.kernel.dialect;
        let call = PsciCall::decode([u64::from(number), x1, x2, x3]);
        let is_known = match call {
            PsciCall::SystemReset2 { .. } => dialect.has_psci_reset2(),
            PsciCall::SystemOff2 { .. } => dialect.has_psci_off2(),
            PsciCall::SystemSuspend { .. } => self.vm.lock().cap(Cap::ARM_SYSTEM_SUSPEND) != 0,
            PsciCall::SystemOff | PsciCall::SystemReset => true,
            _ => false,
        };
        let answer = |code| Step::Guest(Outcome::Value(register(code)));
        match (is_known, call.event()) {
            (false, _) => answer(return_code::NOT_SUPPORTED),
            (true, None) => answer(return_code::INVALID_PARAMETERS),
            (true, Some(event)) if event.event == EventType::Suspend => {
                // The registers are left alone: x1 and x2 are for the VMM, which sets x0 itself.
                self.on_entry = Some(OnEntry::Rax);
                Step::Exit(self.exit(&Exit::SystemEvent(event)))
            }
            (true, Some(event)) => self.system_event(event),
        }
    }

    /// Stops the vCPU and tells userspace. Should the VMM start it again, the call has failed.
    fn system_event(&mut self, event: SystemEvent) -> Step {
        self.mp_state = MpState::Stopped;
        self.regs.rax = register(return_code::INTERNAL_FAILURE);
        self.on_entry = Some(OnEntry::Rax);
        Step::Exit(self.exit(&Exit::SystemEvent(event)))
    }
}
