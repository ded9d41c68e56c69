//! Saving and restoring the events of a vCPU, the pending triple fault among them.

use exeunt_abi::Errno;
use exeunt_abi::kvm::events::{VALID_PAYLOAD, VALID_TRIPLE_FAULT, VcpuEvents};
use exeunt_proto::events::{triple_fault, unknown_flags};
use exeunt_proto::host::Events;
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
    /// KVM refused the events. A part of them may have been taken over, so the vCPU is not to be run.
    #[error("KVM_SET_VCPU_EVENTS failed with {errno}")]
    Set {
        /// The error.
        errno: Errno,
    },
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
    /// All but the last variant of [`SnapshotError`] leave the target as it was.
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
        vcpu.set_events(&events).map_err(|errno| SnapshotError::Set { errno })
    }
}

impl From<VcpuEvents> for SavedEvents {
    fn from(events: VcpuEvents) -> Self {
        Self(events)
    }
}

#[cfg(test)]
mod tests;
