//! Hyper-V's crash and reset registers. Both exits leave `data` stale.

use crate::guest::GuestFault;
use crate::guest::mailbox::Outcome;
use crate::vcpu::{OnEntry, Step, Vcpu};
use crate::vm::Vm;
use exeunt_proto::exit::{EventType, Exit, SystemEvent, Words};

/// `HV_X64_MSR_CRASH_P0`; four more follow.
const CRASH_P0: u32 = 0x4000_0100;
const CRASH_P4: u32 = 0x4000_0104;
/// `HV_X64_MSR_CRASH_CTL`.
const CRASH_CTL: u32 = 0x4000_0105;
/// `HV_X64_MSR_RESET`.
const RESET: u32 = 0x4000_0003;
/// `HV_CRASH_CTL_CRASH_NOTIFY`.
const CRASH_NOTIFY: u64 = 1 << 63;

/// What a guest wrote about its crash: `HV_X64_MSR_CRASH_P0` to `P4`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HypervCrash(pub(crate) [u64; 5]);

impl Vm {
    /// `HV_X64_MSR_CRASH_P0` to `P4`, which a VMM reads after `KVM_SYSTEM_EVENT_CRASH`: the event itself says nothing.
    #[must_use]
    pub fn hyperv_crash_parameters(&self) -> [u64; 5] {
        self.lock().hyperv_crash.0
    }
}

impl Vcpu {
    /// The guest writes a synthetic register. `None` if it is none of those here.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/hyperv.c`, `kvm_hv_set_msr_pw`, and `x86.c`, `vcpu_enter_guest`.
    pub(crate) fn write_hyperv_msr(&mut self, index: u32, value: u64) -> Option<Step> {
        let event = match index {
            CRASH_P0..=CRASH_P4 => {
                let at = usize::try_from(index.saturating_sub(CRASH_P0)).unwrap_or(0);
                if let Some(parameter) = self.vm.lock().hyperv_crash.0.get_mut(at) {
                    *parameter = value;
                }
                None
            }
            CRASH_CTL if value & CRASH_NOTIFY != 0 => Some(EventType::Crash),
            RESET if value == 1 => Some(EventType::Reset),
            CRASH_CTL | RESET => None,
            _ => return None,
        };
        Some(match event {
            None => Step::Guest(Outcome::Done),
            Some(event) => {
                self.on_entry = Some(OnEntry::Nothing);
                let event = SystemEvent { event, data: Words::NONE };
                Step::Exit(self.exit(&Exit::SystemEvent(event)))
            }
        })
    }

    pub(crate) fn hyperv_write(&mut self, index: u32, value: u64) -> Step {
        let fault = Step::Guest(Outcome::Fault(GuestFault::GeneralProtection));
        if !self.is_plain_x86() {
            return fault;
        }
        self.did(|| format!("writes {value:#x} to the Hyper-V register {index:#x}"));
        self.write_hyperv_msr(index, value).unwrap_or(fault)
    }
}
