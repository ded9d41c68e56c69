//! Capability numbers of `KVM_CHECK_EXTENSION` and `KVM_ENABLE_CAP`.

use core::fmt;

/// A `KVM_CAP_*` number. Names are those of scenario files and messages.
///
/// Source: Linux v7.2 `include/uapi/linux/kvm.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cap(pub u32);

crate::named::named_newtype! {
    Cap;
    IRQCHIP = 0, "irqchip", "`KVM_CREATE_IRQCHIP`.";
    HLT = 1, "hlt", "`HLT` of the guest is handled.";
    MMU_SHADOW_CACHE_CONTROL = 2, "mmu-shadow-cache-control", "`KVM_SET_NR_MMU_PAGES`.";
    USER_MEMORY = 3, "user-memory", "`KVM_SET_USER_MEMORY_REGION`.";
    SET_TSS_ADDR = 4, "set-tss-addr", "`KVM_SET_TSS_ADDR`.";
    VAPIC = 6, "vapic", "`KVM_SET_VAPIC_ADDR`.";
    EXT_CPUID = 7, "ext-cpuid", "`KVM_SET_CPUID2`.";
    CLOCKSOURCE = 8, "clocksource", "The guest has a clock of KVM's.";
    NR_VCPUS = 9, "nr-vcpus", "How many vCPUs are recommended.";
    NR_MEMSLOTS = 10, "nr-memslots", "How many slots there can be.";
    PIT = 11, "pit", "`KVM_CREATE_PIT`.";
    NOP_IO_DELAY = 12, "nop-io-delay", "The guest need not wait after port I/O.";
    PV_MMU = 13, "pv-mmu", "Obsolete, always 0.";
    MP_STATE = 14, "mp-state", "`KVM_GET_MP_STATE`.";
    COALESCED_MMIO = 15, "coalesced-mmio",
        "The page of the vCPU's mapping that holds the ring of gathered writes.";
    SYNC_MMU = 16, "sync-mmu", "Slots follow changes of the process's mappings.";
    DESTROY_MEMORY_REGION_WORKS = 21, "destroy-memory-region-works", "A slot can be deleted.";
    USER_NMI = 22, "user-nmi", "`KVM_NMI`.";
    SET_GUEST_DEBUG = 23, "set-guest-debug", "`KVM_SET_GUEST_DEBUG`.";
    REINJECT_CONTROL = 24, "reinject-control", "`KVM_REINJECT_CONTROL`.";
    IRQ_ROUTING = 25, "irq-routing", "How many interrupt routes there can be.";
    IRQ_INJECT_STATUS = 26, "irq-inject-status", "`KVM_IRQ_LINE_STATUS`.";
    JOIN_MEMORY_REGIONS_WORKS = 30, "join-memory-regions-works", "Slots can touch each other.";
    MCE = 31, "mce", "How many banks of machine checks there can be.";
    IRQFD = 32, "irqfd", "`KVM_IRQFD`.";
    PIT2 = 33, "pit2", "`KVM_CREATE_PIT2`.";
    SET_BOOT_CPU_ID = 34, "set-boot-cpu-id", "`KVM_SET_BOOT_CPU_ID`.";
    PIT_STATE2 = 35, "pit-state2", "`KVM_GET_PIT2`.";
    IOEVENTFD = 36, "ioeventfd", "`KVM_IOEVENTFD`.";
    SET_IDENTITY_MAP_ADDR = 37, "set-identity-map-addr", "`KVM_SET_IDENTITY_MAP_ADDR`.";
    ADJUST_CLOCK = 39, "adjust-clock", "The flags that `KVM_SET_CLOCK` takes.";
    INTERNAL_ERROR_DATA = 40, "internal-error-data", "Internal errors carry data.";
    VCPU_EVENTS = 41, "vcpu-events", "`KVM_GET_VCPU_EVENTS`.";
    HYPERV = 44, "hyperv", "The guest can use interfaces of Hyper-V.";
    HYPERV_VAPIC = 45, "hyperv-vapic", "Hyper-V's APIC registers.";
    HYPERV_SPIN = 46, "hyperv-spin", "Hyper-V's notice of long spinning.";
    PCI_SEGMENT = 47, "pci-segment", "Assigned devices can be in other PCI segments.";
    DEBUGREGS = 50, "debugregs", "`KVM_GET_DEBUGREGS`.";
    X86_ROBUST_SINGLESTEP = 51, "x86-robust-singlestep",
        "Single steps end even if the guest loads its own flags.";
    ENABLE_CAP = 54, "enable-cap", "`KVM_ENABLE_CAP` on a vCPU.";
    XSAVE = 55, "xsave", "`KVM_GET_XSAVE`.";
    XCRS = 56, "xcrs", "`KVM_GET_XCRS`.";
    ASYNC_PF = 59, "async-pf", "The guest can be told that a page comes later.";
    TSC_CONTROL = 60, "tsc-control", "The frequency of the time stamp counter can be chosen.";
    GET_TSC_KHZ = 61, "get-tsc-khz", "`KVM_GET_TSC_KHZ`.";
    MAX_VCPUS = 66, "max-vcpus", "How many vCPUs there can be.";
    ONE_REG = 70, "one-reg", "`KVM_GET_ONE_REG`; on x86 since Linux 6.18.";
    TSC_DEADLINE_TIMER = 72, "tsc-deadline-timer", "The APIC's timer knows the deadline mode.";
    SYNC_REGS = 74, "sync-regs", "Which registers can go along with `KVM_RUN`.";
    KVMCLOCK_CTRL = 76, "kvmclock-ctrl", "`KVM_KVMCLOCK_CTRL`.";
    SIGNAL_MSI = 77, "signal-msi", "`KVM_SIGNAL_MSI`.";
    READONLY_MEM = 81, "readonly-mem", "Slots can be read-only.";
    IRQFD_RESAMPLE = 82, "irqfd-resample",
        "An event file can be signalled when an interrupt is acknowledged.";
    DEVICE_CTRL = 89, "device-ctrl", "`KVM_CREATE_DEVICE`.";
    EXT_EMUL_CPUID = 95, "ext-emul-cpuid", "`KVM_GET_EMULATED_CPUID`.";
    HYPERV_TIME = 96, "hyperv-time", "Hyper-V's clocks.";
    IOAPIC_POLARITY_IGNORED = 97, "ioapic-polarity-ignored", "The I/O APIC does not look at polarity.";
    ENABLE_CAP_VM = 98, "enable-cap-vm", "`KVM_ENABLE_CAP` on a VM.";
    IOEVENTFD_NO_LENGTH = 100, "ioeventfd-no-length", "An event file can wait for writes of any length.";
    VM_ATTRIBUTES = 101, "vm-attributes", "`KVM_GET_DEVICE_ATTR` works on a VM.";
    CHECK_EXTENSION_VM = 105, "check-extension-vm", "`KVM_CHECK_EXTENSION` works on a VM.";
    DISABLE_QUIRKS = 116, "disable-quirks", "Old faults can be switched off.";
    X86_SMM = 117, "x86-smm", "System management mode.";
    MULTI_ADDRESS_SPACE = 118, "multi-address-space", "How many address spaces there are.";
    SPLIT_IRQCHIP = 121, "split-irqchip",
        "Only the local APICs are in the kernel; the argument is the pins that are kept for routes.";
    IOEVENTFD_ANY_LENGTH = 122, "ioeventfd-any-length", "As `ioeventfd-no-length`.";
    HYPERV_SYNIC = 123, "hyperv-synic", "Hyper-V's synthetic interrupt controller.";
    VCPU_ATTRIBUTES = 127, "vcpu-attributes", "`KVM_GET_DEVICE_ATTR` works on a vCPU.";
    MAX_VCPU_ID = 128, "max-vcpu-id", "One more than the highest id of a vCPU.";
    X2APIC_API = 129, "x2apic-api", "Ids of 32 bits in `KVM_GET_LAPIC` and routes.";
    IMMEDIATE_EXIT = 136, "immediate-exit", "`kvm_run.immediate_exit` is honoured.";
    X86_DISABLE_EXITS = 143, "x86-disable-exits", "Instructions that need not exit.";
    HYPERV_SYNIC2 = 148, "hyperv-synic2",
        "Hyper-V's synthetic interrupt controller, without its pages being cleared.";
    HYPERV_VP_INDEX = 149, "hyperv-vp-index", "The number of a processor as Hyper-V has it can be set.";
    GET_MSR_FEATURES = 153, "get-msr-features", "`KVM_GET_MSRS` works on `/dev/kvm`.";
    HYPERV_EVENTFD = 154, "hyperv-eventfd", "`KVM_HYPERV_EVENTFD`.";
    HYPERV_TLBFLUSH = 155, "hyperv-tlbflush", "Hyper-V's flush hypercalls.";
    NESTED_STATE = 157, "nested-state", "Bytes of the state of nested virtualisation, 0 if there is none.";
    MSR_PLATFORM_INFO = 159, "msr-platform-info", "The guest's reads of `MSR_PLATFORM_INFO` can be refused.";
    HYPERV_SEND_IPI = 161, "hyperv-send-ipi", "Hyper-V's interrupt hypercalls.";
    COALESCED_PIO = 162, "coalesced-pio", "Port writes can gather in the ring.";
    EXCEPTION_PAYLOAD = 164, "exception-payload", "Events carry pending exceptions with their payload.";
    HYPERV_CPUID = 167, "hyperv-cpuid", "`KVM_GET_SUPPORTED_HV_CPUID` on a vCPU.";
    MANUAL_DIRTY_LOG_PROTECT2 = 168, "manual-dirty-log-protect2", "`KVM_CLEAR_DIRTY_LOG`.";
    PMU_EVENT_FILTER = 173, "pmu-event-filter", "`KVM_SET_PMU_EVENT_FILTER`.";
    HALT_POLL = 182, "halt-poll", "How long KVM polls before it blocks can be chosen.";
    ASYNC_PF_INT = 183, "async-pf-int", "That a page has come is told by an interrupt.";
    LAST_CPU = 184, "last-cpu", "An internal error names the CPU.";
    SMALLER_MAXPHYADDR = 185, "smaller-maxphyaddr", "The guest may have fewer address bits than the host.";
    STEAL_TIME = 187, "steal-time", "The guest can see the time that others took.";
    X86_USER_SPACE_MSR = 188, "x86-user-space-msr", "Chosen accesses to model-specific registers exit.";
    X86_MSR_FILTER = 189, "x86-msr-filter", "`KVM_X86_SET_MSR_FILTER`.";
    ENFORCE_PV_FEATURE_CPUID = 190, "enforce-pv-feature-cpuid",
        "KVM's interfaces can be limited to those that CPUID shows.";
    SYS_HYPERV_CPUID = 191, "sys-hyperv-cpuid", "`KVM_GET_SUPPORTED_HV_CPUID` on `/dev/kvm`.";
    DIRTY_LOG_RING = 192, "dirty-log-ring", "Dirty pages come in a ring: its bytes at most.";
    X86_BUS_LOCK_EXIT = 193, "x86-bus-lock-exit", "Bus locks can exit.";
    SET_GUEST_DEBUG2 = 195, "set-guest-debug2", "Which flags `KVM_SET_GUEST_DEBUG` takes.";
    SGX_ATTRIBUTE = 196, "sgx-attribute", "The guest's enclaves can be given attributes.";
    VM_COPY_ENC_CONTEXT_FROM = 197, "vm-copy-enc-context-from", "A VM can share the keys of another SEV VM.";
    HYPERV_ENFORCE_CPUID = 199, "hyperv-enforce-cpuid",
        "Hyper-V's interfaces can be limited to those that CPUID shows.";
    SREGS2 = 200, "sregs2", "`KVM_GET_SREGS2`.";
    EXIT_HYPERCALL = 201, "exit-hypercall", "Chosen hypercalls exit; the argument is a mask of their numbers.";
    BINARY_STATS_FD = 203, "binary-stats-fd", "`KVM_GET_STATS_FD`.";
    EXIT_ON_EMULATION_FAILURE = 204, "exit-on-emulation-failure",
        "Every failure of the emulator exits, in user code of the guest too.";
    VM_MOVE_ENC_CONTEXT_FROM = 206, "vm-move-enc-context-from", "A VM can take over the keys of another SEV VM.";
    XSAVE2 = 208, "xsave2", "Bytes of the extended registers.";
    SYS_ATTRIBUTES = 209, "sys-attributes", "`KVM_GET_DEVICE_ATTR` works on `/dev/kvm`.";
    PMU_CAPABILITY = 212, "pmu-capability", "The guest's performance counters can be switched off.";
    DISABLE_QUIRKS2 = 213, "disable-quirks2", "As `disable-quirks`: which faults there are.";
    VM_TSC_CONTROL = 214, "vm-tsc-control", "`KVM_SET_TSC_KHZ` on a VM.";
    SYSTEM_EVENT_DATA = 215, "system-event-data", "`system_event.ndata` and `data` are valid.";
    ARM_SYSTEM_SUSPEND = 216, "arm-system-suspend", "PSCI `SYSTEM_SUSPEND` exits to userspace.";
    X86_TRIPLE_FAULT_EVENT = 218, "x86-triple-fault-event", "Events carry a pending triple fault.";
    X86_NOTIFY_VMEXIT = 219, "x86-notify-vmexit", "Notify VM exits can be enabled.";
    VM_DISABLE_NX_HUGE_PAGES = 220, "vm-disable-nx-huge-pages", "A mitigation can be switched off for a VM.";
    DIRTY_LOG_RING_ACQ_REL = 223, "dirty-log-ring-acq-rel", "As `dirty-log-ring`, with ordered accesses.";
    PMU_EVENT_MASKED_EVENTS = 226, "pmu-event-masked-events", "Masked events in `KVM_SET_PMU_EVENT_FILTER`.";
    USER_MEMORY2 = 231, "user-memory2", "`KVM_SET_USER_MEMORY_REGION2`.";
    MEMORY_FAULT_INFO = 232, "memory-fault-info", "`KVM_EXIT_MEMORY_FAULT` fills `memory_fault`.";
    MEMORY_ATTRIBUTES = 233, "memory-attributes", "`KVM_SET_MEMORY_ATTRIBUTES`.";
    GUEST_MEMFD = 234, "guest-memfd", "`KVM_CREATE_GUEST_MEMFD`.";
    VM_TYPES = 235, "vm-types", "The mask of types that `KVM_CREATE_VM` takes.";
    PRE_FAULT_MEMORY = 236, "pre-fault-memory", "`KVM_PRE_FAULT_MEMORY`.";
    X86_APIC_BUS_CYCLES_NS = 237, "x86-apic-bus-cycles-ns",
        "The tick of the APIC's bus can be chosen. The proposal `KVM_EXIT_COCO` version 1 called this number \
         `KVM_CAP_EXIT_COCO`: on a kernel with that patch it means a certificate exit.";
    X86_GUEST_MODE = 238, "x86-guest-mode", "`kvm_run.flags` says whether a nested guest ran.";
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
        assert_eq!(known, 127);
        for number in 0..300 {
            if let Some(name) = Cap(number).name() {
                assert_eq!(Cap::from_name(name), Some(Cap(number)));
            }
        }
        assert_eq!(Cap::from_name("no-such-capability"), None);
    }
}
