//! Saving and restoring the events of a vCPU, the pending triple fault among them.

use exeunt_abi::Errno;
use exeunt_abi::kvm::events::{VALID_PAYLOAD, VALID_SHADOW, VALID_SMM, VALID_TRIPLE_FAULT, VcpuEvents};
use exeunt_proto::events::{triple_fault, unknown_flags};
use exeunt_proto::host::Events;
use std::fmt;
use thiserror::Error;

/// The events of a vCPU, as KVM gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedEvents(VcpuEvents);

/// Why events cannot be saved or restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The events cannot be read.
    #[error("KVM_GET_VCPU_EVENTS failed with {errno}")]
    Get {
        /// The error.
        errno: Errno,
    },
    /// A triple fault is pending and the target cannot take it: the guest would run on as if nothing had happened.
    #[error(
        "a pending triple fault cannot be restored: the target has not enabled x86-triple-fault-event (218)"
    )]
    TripleFault,
    /// An exception with a payload is pending and the target cannot take it.
    #[error("a pending exception cannot be restored: the target has not enabled exception-payload (164)")]
    ExceptionPayload,
    /// The events carry flags that have no meaning here.
    #[error("the events carry unknown flags {bits:#x}")]
    UnknownFlags {
        /// Only the unknown bits.
        bits: u32,
    },
    /// KVM refused the events, and it cannot be said what of them was taken over: the vCPU is not to be run.
    #[error("KVM_SET_VCPU_EVENTS failed with {errno}")]
    Set {
        /// The error.
        errno: Errno,
    },
    /// KVM refused the events, and reading them again shows what the vCPU holds now. It is not to be run.
    #[error("KVM_SET_VCPU_EVENTS failed with {errno}, and {differ} are not as they were saved")]
    SetInPart {
        /// The error.
        errno: Errno,
        /// What the vCPU holds.
        left: VcpuEvents,
        /// What differs from what was to be set.
        differ: EventParts,
    },
}

/// Parts of a vCPU's events, as `KVM_SET_VCPU_EVENTS` takes them over one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventParts(u8);

impl EventParts {
    const NAMES: [&'static str; 6] = [
        "the exception",
        "the interrupt",
        "the interrupt shadow",
        "NMIs",
        "system management mode",
        "the triple fault",
    ];

    /// What differs between two states, as far as their flags say that it counts.
    #[must_use]
    pub fn differing(wanted: &VcpuEvents, found: &VcpuEvents) -> Self {
        let exception = |it: &VcpuEvents| {
            let code = (it.exception_has_error_code, it.exception_error_code);
            (it.exception_injected, it.exception_pending, it.exception_nr, code, it.exception_payload)
        };
        let nmis = |it: &VcpuEvents| (it.nmi_injected, it.nmi_pending, it.nmi_masked);
        let smm = |it: &VcpuEvents| (it.smi_smm, it.smi_pending, it.smi_smm_inside_nmi, it.smi_latched_init);
        let counts = |flag: u32| wanted.flags & flag != 0;
        let raised = |it: &VcpuEvents| it.exception_injected | it.exception_pending != 0;
        let parts = [
            (raised(wanted) || raised(found)) && exception(wanted) != exception(found),
            wanted.interrupt_injected != found.interrupt_injected
                || wanted.interrupt_injected != 0 && wanted.interrupt_nr != found.interrupt_nr,
            counts(VALID_SHADOW) && wanted.interrupt_shadow != found.interrupt_shadow,
            nmis(wanted) != nmis(found),
            counts(VALID_SMM) && smm(wanted) != smm(found),
            counts(VALID_TRIPLE_FAULT) && triple_fault(wanted) != triple_fault(found),
        ];
        let bits = parts.into_iter().zip(0u8..).filter(|(differs, _)| *differs);
        Self(bits.fold(0, |bits, (_, bit)| bits | 1 << bit))
    }

    /// Nothing differs.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of the parts.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .zip(0u8..)
            .filter(move |(_, bit)| self.0 >> bit & 1 != 0)
            .map(|(name, _)| name)
    }
}

impl fmt::Display for EventParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none of the events");
        }
        let names: Vec<_> = self.names().collect();
        f.write_str(&names.join(", "))
    }
}

impl SavedEvents {
    /// Reads the events of a vCPU. Reading takes nothing away. Drain its completions first.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Get`].
    pub fn save(vcpu: &mut impl Events) -> Result<Self, SnapshotError> {
        vcpu.events().map(Self).map_err(|errno| SnapshotError::Get { errno })
    }

    /// Whether a triple fault is pending; `None` where the source did not enable the capability that says so, and a
    /// pending one is lost.
    #[must_use]
    pub const fn triple_fault(&self) -> Option<bool> {
        triple_fault(&self.0)
    }

    /// The events themselves.
    #[must_use]
    pub const fn events(&self) -> &VcpuEvents {
        &self.0
    }

    /// Gives the events to another vCPU.
    ///
    /// A flag that the target does not take is left out where nothing is lost with it, and refused where something
    /// is.
    ///
    /// # Errors
    ///
    /// All but [`SnapshotError::Set`] and [`SnapshotError::SetInPart`] leave the target as it was. Nothing is tried a
    /// second time.
    pub fn restore(&self, vcpu: &mut impl Events) -> Result<(), SnapshotError> {
        let mut events = self.0;
        let bits = unknown_flags(&events);
        if bits != 0 {
            return Err(SnapshotError::UnknownFlags { bits });
        }
        let refused = events.flags & !vcpu.event_flags();
        if refused & VALID_TRIPLE_FAULT != 0 && events.triple_fault_pending != 0 {
            return Err(SnapshotError::TripleFault);
        }
        if refused & VALID_PAYLOAD != 0 && events.exception_pending != 0 {
            return Err(SnapshotError::ExceptionPayload);
        }
        events.flags &= !refused;
        vcpu.set_events(&events).map_err(|errno| refusal(&events, vcpu, errno))
    }
}

/// KVM checks some of the events after it has taken over others, so that they are read again.
///
/// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_x86_set_vcpu_events`.
fn refusal(wanted: &VcpuEvents, vcpu: &mut impl Events, errno: Errno) -> SnapshotError {
    if errno != Errno::EINVAL {
        return SnapshotError::Set { errno };
    }
    match vcpu.events() {
        Ok(left) => SnapshotError::SetInPart { errno, left, differ: EventParts::differing(wanted, &left) },
        Err(_) => SnapshotError::Set { errno },
    }
}

impl From<VcpuEvents> for SavedEvents {
    fn from(events: VcpuEvents) -> Self {
        Self(events)
    }
}

#[cfg(test)]
mod tests;
