//! The numbers of `exeunt-abi`, under the names that the kernel's headers have for them.

use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{ExitReason, event_type};
use exeunt_abi::kvm::{events, memory, run};

/// Every number that a header defines, too.
pub(crate) fn of_abi() -> Vec<(String, u64)> {
    let mut numbers: Vec<(String, u64)> = Vec::new();
    for number in 0..0x200_u32 {
        if let Some(name) = ExitReason(number).name() {
            numbers.push((format!("KVM_EXIT_{name}"), number.into()));
        }
        if let Some(name) = Cap(number).name() {
            // The crate has the names of scenario files: `memory-fault-info`.
            numbers.push((format!("KVM_CAP_{}", name.to_uppercase().replace('-', "_")), number.into()));
        }
    }
    let named: [(&str, u64); 21] = [
        ("KVM_SYSTEM_EVENT_SHUTDOWN", event_type::SHUTDOWN.into()),
        ("KVM_SYSTEM_EVENT_RESET", event_type::RESET.into()),
        ("KVM_SYSTEM_EVENT_CRASH", event_type::CRASH.into()),
        ("KVM_SYSTEM_EVENT_WAKEUP", event_type::WAKEUP.into()),
        ("KVM_SYSTEM_EVENT_SUSPEND", event_type::SUSPEND.into()),
        ("KVM_SYSTEM_EVENT_SEV_TERM", event_type::SEV_TERM.into()),
        ("KVM_SYSTEM_EVENT_TDX_FATAL", event_type::TDX_FATAL.into()),
        ("KVM_VCPUEVENT_VALID_NMI_PENDING", events::VALID_NMI_PENDING.into()),
        ("KVM_VCPUEVENT_VALID_SIPI_VECTOR", events::VALID_SIPI_VECTOR.into()),
        ("KVM_VCPUEVENT_VALID_SHADOW", events::VALID_SHADOW.into()),
        ("KVM_VCPUEVENT_VALID_SMM", events::VALID_SMM.into()),
        ("KVM_VCPUEVENT_VALID_PAYLOAD", events::VALID_PAYLOAD.into()),
        ("KVM_VCPUEVENT_VALID_TRIPLE_FAULT", events::VALID_TRIPLE_FAULT.into()),
        ("KVM_MEM_LOG_DIRTY_PAGES", memory::MEM_LOG_DIRTY_PAGES.into()),
        ("KVM_MEM_READONLY", memory::MEM_READONLY.into()),
        ("KVM_MEM_GUEST_MEMFD", memory::MEM_GUEST_MEMFD.into()),
        ("KVM_MEMORY_ATTRIBUTE_PRIVATE", memory::MEMORY_ATTRIBUTE_PRIVATE),
        ("KVM_MEMORY_EXIT_FLAG_PRIVATE", run::MEMORY_EXIT_FLAG_PRIVATE),
        ("KVM_EXIT_HYPERCALL_LONG_MODE", run::HYPERCALL_LONG_MODE),
        ("KVM_NOTIFY_CONTEXT_INVALID", run::NOTIFY_CONTEXT_INVALID.into()),
        ("KVM_HC_MAP_GPA_RANGE", run::MAP_GPA_RANGE),
    ];
    numbers.extend(named.map(|(name, value)| (name.to_string(), value)));
    numbers
}
