//! The events of a vCPU across a migration, for C.
#![allow(non_camel_case_types, reason = "the names are those of the header")]

use std::ffi::c_int;

use exeunt::snapshot::{SavedEvents, SnapshotError};
use exeunt_abi::Errno;
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_proto::host::Events;

use crate::boundary::{guarded, status};

/// `struct kvm_vcpu_events` of <linux/kvm.h>.
#[derive(Debug)]
pub struct kvm_vcpu_events {
    _opaque: [u8; 0],
}

/// Whether saved events have a pending triple fault: 1 or 0, or -1 if the source had not enabled
/// `KVM_CAP_X86_TRIPLE_FAULT_EVENT`, so that one is lost. -EINVAL for null.
///
/// # Safety
///
/// `saved` is null or the 64 bytes that `KVM_GET_VCPU_EVENTS` wrote.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_events_triple_fault(saved: *const kvm_vcpu_events) -> c_int {
    // SAFETY: By the contract of this function.
    let events = unsafe { read(saved) };
    guarded(-Errno::EIO.0, || match events {
        Some(events) => SavedEvents::from(events).triple_fault().map_or(-1, c_int::from),
        None => -Errno::EINVAL.0,
    })
}

/// Makes saved events fit for the vCPU that they are restored into, whose VM takes the flags `allowed`
/// (`KVM_VCPUEVENT_VALID_*`): a flag that it does not take is left out where nothing is lost with it. Write `saved` with
/// `KVM_SET_VCPU_EVENTS` then.
///
/// -EOPNOTSUPP if something would be lost: a pending triple fault or a pending exception. -EINVAL for flags without a
/// meaning and for null. `saved` is as it was then.
///
/// # Safety
///
/// `saved` is null or 64 bytes as `KVM_GET_VCPU_EVENTS` wrote them, which can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_events_restore(saved: *mut kvm_vcpu_events, allowed: u32) -> c_int {
    // SAFETY: By the contract of this function.
    let events = unsafe { read(saved) };
    status(|| {
        let mut target = Target { allowed, restored: None };
        match SavedEvents::from(events.ok_or(Errno::EINVAL)?).restore(&mut target) {
            Ok(()) => {}
            Err(SnapshotError::TripleFault | SnapshotError::ExceptionPayload) => {
                return Err(Errno::EOPNOTSUPP);
            }
            Err(_) => return Err(Errno::EINVAL),
        }
        if let Some(events) = target.restored {
            // SAFETY: `saved` is not null, since it was read, and can be written by the contract of this function.
            unsafe { saved.cast::<VcpuEvents>().write_unaligned(events) };
        }
        Ok(())
    })
}

/// A vCPU that keeps what it is given.
struct Target {
    allowed: u32,
    restored: Option<VcpuEvents>,
}

impl Events for Target {
    fn events(&mut self) -> Result<VcpuEvents, Errno> {
        self.restored.ok_or(Errno::EINVAL)
    }

    fn set_events(&mut self, events: &VcpuEvents) -> Result<(), Errno> {
        self.restored = Some(*events);
        Ok(())
    }

    fn event_flags(&self) -> u32 {
        self.allowed
    }
}

/// A copy of the caller's events.
///
/// # Safety
///
/// `saved` is null or 64 bytes.
unsafe fn read(saved: *const kvm_vcpu_events) -> Option<VcpuEvents> {
    if saved.is_null() {
        return None;
    }
    // SAFETY: Not null, and 64 bytes by the contract of this function; any bytes are a value of it.
    Some(unsafe { saved.cast::<VcpuEvents>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_abi::kvm::events::{VALID_PAYLOAD, VALID_TRIPLE_FAULT};
    use exeunt_proto::events::with_triple_fault;
    use zerocopy::{FromZeros, IntoBytes};

    #[test]
    fn a_pending_triple_fault_is_restored_or_refused_and_its_flag_dropped_where_it_says_nothing() {
        for (pending, allowed, result, flags) in [
            (true, VALID_TRIPLE_FAULT | VALID_PAYLOAD, 0, VALID_TRIPLE_FAULT),
            (true, VALID_PAYLOAD, -95, VALID_TRIPLE_FAULT),
            (false, 0, 0, 0),
        ] {
            let mut events = with_triple_fault(VcpuEvents::new_zeroed(), pending);
            let saved: *mut kvm_vcpu_events = (&raw mut events).cast();
            // SAFETY: The events are the test's own.
            assert_eq!(unsafe { exeunt_events_triple_fault(saved) }, c_int::from(pending));
            // SAFETY: As above.
            assert_eq!(unsafe { exeunt_events_restore(saved, allowed) }, result, "{pending} {allowed:#x}");
            assert_eq!(events.flags, flags);
            assert_eq!(events.as_bytes().len(), 64);
        }
        // SAFETY: Null is allowed.
        assert_eq!(unsafe { exeunt_events_restore(std::ptr::null_mut(), 0) }, -22);
        // SAFETY: Null is allowed.
        assert_eq!(unsafe { exeunt_events_triple_fault(std::ptr::null()) }, -22);
    }
}
