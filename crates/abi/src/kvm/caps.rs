//! Capability numbers of `KVM_CHECK_EXTENSION` and `KVM_ENABLE_CAP`.

use core::fmt;

/// A `KVM_CAP_*` number. Names are those of scenario files and messages.
///
/// Source: Linux v7.2 `include/uapi/linux/kvm.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cap(pub u32);

crate::named::named_newtype! {
    Cap;
    IMMEDIATE_EXIT = 136, "immediate-exit", "`kvm_run.immediate_exit` is honoured.";
    EXCEPTION_PAYLOAD = 164, "exception-payload", "Events carry pending exceptions with their payload.";
    X86_USER_SPACE_MSR = 188, "x86-user-space-msr", "Chosen accesses to model-specific registers exit.";
    X86_MSR_FILTER = 189, "x86-msr-filter", "`KVM_X86_SET_MSR_FILTER`.";
    VM_COPY_ENC_CONTEXT_FROM = 197, "vm-copy-enc-context-from", "A VM can share the keys of another SEV VM.";
    EXIT_HYPERCALL = 201, "exit-hypercall", "Chosen hypercalls exit; the argument is a mask of their numbers.";
    EXIT_ON_EMULATION_FAILURE = 204, "exit-on-emulation-failure",
        "Every failure of the emulator exits, in user code of the guest too.";
    VM_MOVE_ENC_CONTEXT_FROM = 206, "vm-move-enc-context-from", "A VM can take over the keys of another SEV VM.";
    SYS_ATTRIBUTES = 209, "sys-attributes", "`KVM_GET_DEVICE_ATTR` works on `/dev/kvm`.";
    SYSTEM_EVENT_DATA = 215, "system-event-data", "`system_event.ndata` and `data` are valid.";
    ARM_SYSTEM_SUSPEND = 216, "arm-system-suspend", "PSCI `SYSTEM_SUSPEND` exits to userspace.";
    X86_TRIPLE_FAULT_EVENT = 218, "x86-triple-fault-event", "Events carry a pending triple fault.";
    X86_NOTIFY_VMEXIT = 219, "x86-notify-vmexit", "Notify VM exits can be enabled.";
    USER_MEMORY2 = 231, "user-memory2", "`KVM_SET_USER_MEMORY_REGION2`.";
    MEMORY_FAULT_INFO = 232, "memory-fault-info", "`KVM_EXIT_MEMORY_FAULT` fills `memory_fault`.";
    MEMORY_ATTRIBUTES = 233, "memory-attributes", "`KVM_SET_MEMORY_ATTRIBUTES`.";
    GUEST_MEMFD = 234, "guest-memfd", "`KVM_CREATE_GUEST_MEMFD`.";
    VM_TYPES = 235, "vm-types", "The mask of types that `KVM_CREATE_VM` takes.";
    PRE_FAULT_MEMORY = 236, "pre-fault-memory", "`KVM_PRE_FAULT_MEMORY`.";
    X86_APIC_BUS_CYCLES_NS = 237, "x86-apic-bus-cycles-ns",
        "The tick of the APIC's bus can be chosen. The proposal `KVM_EXIT_COCO` version 1 called this number \
         `KVM_CAP_EXIT_COCO`: on a kernel with that patch it means a certificate exit.";
    ARM_WRITABLE_IMP_ID_REGS = 239, "arm-writable-imp-id-regs",
        "The guest's implementation registers can be written. The proposal `KVM_EXIT_COCO` version 2 called this \
         number `KVM_CAP_EXIT_COCO`, as its version 1 did with 237.";
    GUEST_MEMFD_FLAGS = 244, "guest-memfd-flags", "The flags that `KVM_CREATE_GUEST_MEMFD` takes.";
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "capability {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_number() {
        let known = (0..300).filter(|n| Cap(*n).name().is_some()).count();
        assert_eq!(known, 22);
        for number in 0..300 {
            if let Some(name) = Cap(number).name() {
                assert_eq!(Cap::from_name(name), Some(Cap(number)));
            }
        }
        assert_eq!(Cap::from_name("no-such-capability"), None);
    }
}
