//! The events that scripts set.

use super::Maker;
use exeunt_abi::kvm::events::VcpuEvents;
use zerocopy::FromZeros;

impl Maker {
    /// Each known flag as likely as not, an unknown one now and then.
    fn event_flags(&mut self) -> u32 {
        if self.one_in(9) { self.any_u32() } else { u32::try_from(self.rng.below(0x40)).unwrap_or(0) }
    }

    pub(super) fn calm_events(&mut self) -> VcpuEvents {
        let mut events = VcpuEvents::new_zeroed();
        events.flags = self.event_flags();
        events.triple_fault_pending = self.among(&[0, 1, 2]);
        events.nmi_pad = self.any_u8();
        events.reserved = [events.nmi_pad; 26];
        events
    }

    /// A byte that a kernel takes for true or false.
    fn truth(&mut self) -> u8 {
        match self.rng.below(5) {
            0 | 1 => 0,
            2 | 3 => 1,
            _ => self.any_u8(),
        }
    }

    pub(super) fn wild_events(&mut self) -> VcpuEvents {
        VcpuEvents {
            exception_injected: self.truth(),
            exception_nr: u8::try_from(self.rng.below(40)).unwrap_or(0),
            exception_has_error_code: self.truth(),
            exception_pending: self.truth(),
            exception_error_code: self.any_u32(),
            exception_has_payload: self.truth(),
            exception_payload: self.rng.next_u64(),
            interrupt_injected: self.truth(),
            interrupt_nr: self.any_u8(),
            interrupt_soft: self.truth(),
            nmi_injected: self.truth(),
            nmi_pending: u8::try_from(self.rng.below(4)).unwrap_or(0),
            nmi_masked: self.truth(),
            ..self.calm_events()
        }
    }
}
