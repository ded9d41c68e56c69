//! The events of one vCPU as KVM keeps them, as far as a triple fault has to do with them.

use exeunt_abi::Errno;
use exeunt_abi::kvm::events::{
    VALID_NMI_PENDING, VALID_PAYLOAD, VALID_SHADOW, VALID_SMM, VALID_TRIPLE_FAULT, VcpuEvents,
};
use exeunt_proto::events::{unknown_flags, with_triple_fault};
use exeunt_proto::host::Events;
use zerocopy::FromZeros;

/// What a VM makes of the flag of the triple fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Capability {
    /// A kernel before 6.0 does not know it.
    Unknown,
    /// The kernel has capability 218, and the VMM did not enable it.
    Off,
    On,
}

/// A vCPU. Of what is committed before the triple fault is looked at, pending NMIs stand for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kvm {
    pub(super) capability: Capability,
    pub(super) is_requested: bool,
    pub(super) nmi_pending: u8,
    /// The bug: reading takes the request away.
    pub(super) consumes: bool,
}

impl Kvm {
    pub(super) const fn new(capability: Capability) -> Self {
        Self { capability, is_requested: false, nmi_pending: 0, consumes: false }
    }
}

impl Events for Kvm {
    fn events(&mut self) -> Result<VcpuEvents, Errno> {
        let mut events = VcpuEvents::new_zeroed();
        events.flags = VALID_NMI_PENDING | VALID_SHADOW | VALID_SMM;
        events.nmi_pending = self.nmi_pending;
        if self.capability == Capability::On {
            events = with_triple_fault(events, self.is_requested);
        }
        self.is_requested &= !self.consumes;
        Ok(events)
    }

    fn set_events(&mut self, events: &VcpuEvents) -> Result<(), Errno> {
        let is_set = |flag| events.flags & flag != 0;
        let is_known = self.capability != Capability::Unknown || !is_set(VALID_TRIPLE_FAULT);
        // No model here enables capability 164.
        if unknown_flags(events) != 0 || !is_known || is_set(VALID_PAYLOAD) {
            return Err(Errno::EINVAL);
        }
        if is_set(VALID_NMI_PENDING) {
            self.nmi_pending = events.nmi_pending;
        }
        // Looked at last: what came before is committed.
        if is_set(VALID_TRIPLE_FAULT) {
            if self.capability != Capability::On {
                return Err(Errno::EINVAL);
            }
            self.is_requested = events.triple_fault_pending != 0;
        }
        Ok(())
    }

    fn event_flags(&self) -> u32 {
        let flags = VALID_NMI_PENDING | VALID_SHADOW | VALID_SMM;
        if self.capability == Capability::On { flags | VALID_TRIPLE_FAULT } else { flags }
    }
}

mod tests {
    use super::{Capability, Kvm};
    use exeunt_abi::kvm::caps::Cap;
    use exeunt_abi::kvm::events::{
        VALID_NMI_PENDING, VALID_PAYLOAD, VALID_SHADOW, VALID_SMM, VALID_TRIPLE_FAULT, VcpuEvents,
    };
    use exeunt_abi::kvm::vm_type::VmType;
    use exeunt_abi::{Dialect, Kernel};
    use exeunt_model::Kvm as Software;
    use exeunt_proto::events::with_triple_fault;
    use exeunt_proto::host::Events;
    use zerocopy::FromZeros;

    /// The flags that the two are compared under, in all combinations, with one that no kernel knows.
    const FLAGS: [u32; 6] =
        [VALID_NMI_PENDING, VALID_SHADOW, VALID_SMM, VALID_PAYLOAD, VALID_TRIPLE_FAULT, 1 << 6];

    #[test]
    fn the_kernel_of_this_model_answers_as_the_one_in_software_does() {
        for capability in [Capability::Unknown, Capability::Off, Capability::On] {
            for case in 0..1u32 << (FLAGS.len() + 3) {
                let [was_requested, pending, nmi] = [0, 1, 2].map(|bit| case >> bit & 1 == 1);
                let mut events = VcpuEvents::new_zeroed();
                events.nmi_pending = u8::from(nmi);
                events.triple_fault_pending = u8::from(pending);
                events.flags = FLAGS.iter().enumerate().fold(0, |flags, (at, flag)| {
                    if case >> (at + 3) & 1 == 1 { flags | flag } else { flags }
                });
                let kernel = match capability {
                    Capability::Unknown => Kernel { dialect: Dialect::Linux5_17, ..Kernel::default() },
                    _ => Kernel::default(),
                };
                let vm = Software::new(kernel).create_vm(VmType::Default).unwrap();
                if capability == Capability::On {
                    vm.enable_cap(Cap::X86_TRIPLE_FAULT_EVENT, 1).unwrap();
                }
                let mut software = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
                let mut mirror = Kvm::new(capability);
                if was_requested && capability == Capability::On {
                    let request = with_triple_fault(VcpuEvents::new_zeroed(), true);
                    software.set_events(&request).unwrap();
                    mirror.set_events(&request).unwrap();
                }
                assert_eq!(
                    mirror.set_events(&events),
                    software.set_events(&events),
                    "{capability:?} {events:?}"
                );
                let (mirror, software) = (mirror.events().unwrap(), software.events().unwrap());
                assert_eq!(mirror.flags, software.flags);
                assert_eq!(mirror.nmi_pending, software.nmi_pending, "{events:?}");
                assert_eq!(mirror.triple_fault_pending, software.triple_fault_pending);
            }
        }
    }
}
