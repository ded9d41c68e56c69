//! What a vCPU's events say about a pending triple fault.

use exeunt_abi::kvm::events::{VALID_ALL, VALID_TRIPLE_FAULT, VcpuEvents};

/// Whether a triple fault is pending, or `None` if the events do not say: the kernel is older than 6.0, or
/// `KVM_CAP_X86_TRIPLE_FAULT_EVENT` is off, and a pending one would be lost with these events.
///
/// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_x86_get_vcpu_events`.
#[must_use]
pub const fn triple_fault(events: &VcpuEvents) -> Option<bool> {
    if events.flags & VALID_TRIPLE_FAULT == 0 { None } else { Some(events.triple_fault_pending != 0) }
}

/// The events with a triple fault that is pending, or cleared: with the valid bit, 0 takes the request back.
#[must_use]
pub const fn with_triple_fault(mut events: VcpuEvents, pending: bool) -> VcpuEvents {
    events.flags |= VALID_TRIPLE_FAULT;
    events.triple_fault_pending = pending as u8;
    events
}

/// Flags that no kernel known here takes; `KVM_SET_VCPU_EVENTS` refuses them with `EINVAL`.
#[must_use]
pub const fn unknown_flags(events: &VcpuEvents) -> u32 {
    events.flags & !VALID_ALL
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromBytes, FromZeros, IntoBytes};

    #[test]
    fn the_byte_counts_only_with_its_valid_bit() {
        for flags in 0..=0xff {
            for pending in 0..=255 {
                let mut events = VcpuEvents::new_zeroed();
                events.flags = flags;
                events.triple_fault_pending = pending;
                let expected = (flags & 0x20 != 0).then_some(pending != 0);
                assert_eq!(triple_fault(&events), expected);
                assert_eq!(unknown_flags(&events), flags & 0xc0);
            }
        }
    }

    #[test]
    fn setting_the_triple_fault_touches_bit_5_of_byte_20_and_byte_28_only() {
        for pending in [false, true] {
            let events = with_triple_fault(VcpuEvents::new_zeroed(), pending);
            let mut expected = [0; 64];
            expected[20] = 0x20;
            expected[28] = u8::from(pending);
            assert_eq!(events.as_bytes(), expected);
            assert_eq!(VcpuEvents::read_from_bytes(&expected), Ok(events));
            assert_eq!(triple_fault(&events), Some(pending));
        }
    }
}
