//! The ioctls that a VMM for confidential guests makes, and their 32-bit forms.
//!
//! Source: Linux v7.2 `include/uapi/linux/kvm.h`, `psp-sev.h` and `sev-guest.h`; the numbers are those that gcc
//! computes from them on x86.

use super::{Direction, Fd, Form, Ioctl, KVMIO, Known, SEV_IOC_TYPE, ioctl};
use crate::kvm::{device_attr, events, memory, mp_state, sev};
use core::mem::size_of;

macro_rules! ioctls {
    ($($(#[$doc:meta])* $name:ident = $text:expr, $direction:ident $size:expr, $kind:ident $nr:literal,
        [$($fd:ident)*], $form:ident;)*) => {
        $($(#[$doc])* pub const $name: Ioctl = ioctl(Direction::$direction, bytes($size), $kind, $nr);)*

        /// Every ioctl number here, by type and number.
        pub const KNOWN: &[Known] = &[$(Known {
            ioctl: $name,
            name: $text,
            fds: &[$(Fd::$fd),*],
            form: Form::$form,
        }),*];
    };
}

/// The size of an argument. None of them is longer than the field for it.
const fn bytes(size: usize) -> u16 {
    assert!(size < 1 << 14);
    let [low, high, ..] = size.to_le_bytes();
    u16::from_le_bytes([low, high])
}

ioctls! {
    /// Always 12.
    KVM_GET_API_VERSION = "KVM_GET_API_VERSION", None 0, KVMIO 0x00, [Kvm], Native;
    /// The argument is the type, as in [`crate::kvm::vm_type`].
    KVM_CREATE_VM = "KVM_CREATE_VM", None 0, KVMIO 0x01, [Kvm], Native;
    /// The registers that a VMM saves.
    KVM_GET_MSR_INDEX_LIST = "KVM_GET_MSR_INDEX_LIST", ReadWrite 4, KVMIO 0x02, [Kvm], Native;
    /// The argument is the capability, as in [`crate::kvm::caps`].
    KVM_CHECK_EXTENSION = "KVM_CHECK_EXTENSION", None 0, KVMIO 0x03, [Kvm Vm], Native;
    /// Bytes of a vCPU's mapping.
    KVM_GET_VCPU_MMAP_SIZE = "KVM_GET_VCPU_MMAP_SIZE", None 0, KVMIO 0x04, [Kvm], Native;
    /// What CPUID can be for a guest.
    KVM_GET_SUPPORTED_CPUID = "KVM_GET_SUPPORTED_CPUID", ReadWrite 8, KVMIO 0x05, [Kvm], Native;
    /// What of CPUID KVM emulates beyond the host.
    KVM_GET_EMULATED_CPUID = "KVM_GET_EMULATED_CPUID", ReadWrite 8, KVMIO 0x09, [Kvm], Native;
    /// The registers that [`KVM_GET_MSRS`] reads on `/dev/kvm`.
    KVM_GET_MSR_FEATURE_INDEX_LIST = "KVM_GET_MSR_FEATURE_INDEX_LIST", ReadWrite 4, KVMIO 0x0a, [Kvm], Native;
    /// The argument is the vCPU's id.
    KVM_CREATE_VCPU = "KVM_CREATE_VCPU", None 0, KVMIO 0x41, [Vm], Native;
    /// Which pages of a slot were written.
    KVM_GET_DIRTY_LOG = "KVM_GET_DIRTY_LOG", Write 16, KVMIO 0x42, [Vm], Native;
    /// How many shadow pages there may be.
    KVM_SET_NR_MMU_PAGES = "KVM_SET_NR_MMU_PAGES", None 0, KVMIO 0x44, [Vm], Native;
    /// A memory slot.
    KVM_SET_USER_MEMORY_REGION = "KVM_SET_USER_MEMORY_REGION", Write size_of::<memory::UserspaceMemoryRegion>(), KVMIO 0x46, [Vm], Native;
    /// Where Intel's real mode emulation may put its pages.
    KVM_SET_TSS_ADDR = "KVM_SET_TSS_ADDR", None 0, KVMIO 0x47, [Vm], Native;
    /// Where Intel's real mode emulation may put its page table.
    KVM_SET_IDENTITY_MAP_ADDR = "KVM_SET_IDENTITY_MAP_ADDR", Write 8, KVMIO 0x48, [Vm], Native;
    /// A memory slot that can have private pages.
    KVM_SET_USER_MEMORY_REGION2 = "KVM_SET_USER_MEMORY_REGION2", Write size_of::<memory::UserspaceMemoryRegion2>(), KVMIO 0x49, [Vm], Native;
    /// The interrupt controllers in the kernel.
    KVM_CREATE_IRQCHIP = "KVM_CREATE_IRQCHIP", None 0, KVMIO 0x60, [Vm], Native;
    /// A pin of an interrupt controller.
    KVM_IRQ_LINE = "KVM_IRQ_LINE", Write 8, KVMIO 0x61, [Vm], Native;
    /// An interrupt controller in the kernel.
    KVM_GET_IRQCHIP = "KVM_GET_IRQCHIP", ReadWrite 520, KVMIO 0x62, [Vm], Native;
    /// An interrupt controller in the kernel. The header says that it reads.
    KVM_SET_IRQCHIP = "KVM_SET_IRQCHIP", Read 520, KVMIO 0x63, [Vm], Native;
    /// The timer in the kernel.
    KVM_CREATE_PIT = "KVM_CREATE_PIT", None 0, KVMIO 0x64, [Vm], Native;
    /// The timer in the kernel.
    KVM_GET_PIT = "KVM_GET_PIT", ReadWrite 72, KVMIO 0x65, [Vm], Native;
    /// The timer in the kernel. The header says that it reads.
    KVM_SET_PIT = "KVM_SET_PIT", Read 72, KVMIO 0x66, [Vm], Native;
    /// A pin of an interrupt controller, and what became of it.
    KVM_IRQ_LINE_STATUS = "KVM_IRQ_LINE_STATUS", ReadWrite 8, KVMIO 0x67, [Vm], Native;
    /// Writes that gather in a ring.
    KVM_REGISTER_COALESCED_MMIO = "KVM_REGISTER_COALESCED_MMIO", Write 16, KVMIO 0x67, [Vm], Native;
    /// Writes that exit again.
    KVM_UNREGISTER_COALESCED_MMIO = "KVM_UNREGISTER_COALESCED_MMIO", Write 16, KVMIO 0x68, [Vm], Native;
    /// The table of interrupt routes.
    KVM_SET_GSI_ROUTING = "KVM_SET_GSI_ROUTING", Write 8, KVMIO 0x6a, [Vm], Native;
    /// Whether ticks that were missed come later.
    KVM_REINJECT_CONTROL = "KVM_REINJECT_CONTROL", None 0, KVMIO 0x71, [Vm], Native;
    /// An event file that raises an interrupt.
    KVM_IRQFD = "KVM_IRQFD", Write 32, KVMIO 0x76, [Vm], Native;
    /// The timer in the kernel, with flags.
    KVM_CREATE_PIT2 = "KVM_CREATE_PIT2", Write 64, KVMIO 0x77, [Vm], Native;
    /// The argument is the id of the vCPU that starts.
    KVM_SET_BOOT_CPU_ID = "KVM_SET_BOOT_CPU_ID", None 0, KVMIO 0x78, [Vm], Native;
    /// An event file that a write of the guest signals.
    KVM_IOEVENTFD = "KVM_IOEVENTFD", Write 64, KVMIO 0x79, [Vm], Native;
    /// The guest's clock.
    KVM_SET_CLOCK = "KVM_SET_CLOCK", Write 48, KVMIO 0x7b, [Vm], Native;
    /// The guest's clock.
    KVM_GET_CLOCK = "KVM_GET_CLOCK", Read 48, KVMIO 0x7c, [Vm], Native;
    /// Run the guest until it exits.
    KVM_RUN = "KVM_RUN", None 0, KVMIO 0x80, [Vcpu], Native;
    /// The general registers.
    KVM_GET_REGS = "KVM_GET_REGS", Read 144, KVMIO 0x81, [Vcpu], Native;
    /// The general registers.
    KVM_SET_REGS = "KVM_SET_REGS", Write 144, KVMIO 0x82, [Vcpu], Native;
    /// The special registers.
    KVM_GET_SREGS = "KVM_GET_SREGS", Read 312, KVMIO 0x83, [Vcpu], Native;
    /// The special registers.
    KVM_SET_SREGS = "KVM_SET_SREGS", Write 312, KVMIO 0x84, [Vcpu], Native;
    /// What a linear address leads to.
    KVM_TRANSLATE = "KVM_TRANSLATE", ReadWrite 24, KVMIO 0x85, [Vcpu], Native;
    /// An interrupt from a userspace controller.
    KVM_INTERRUPT = "KVM_INTERRUPT", Write 4, KVMIO 0x86, [Vcpu], Native;
    /// Model-specific registers; on `/dev/kvm`, features of the host.
    KVM_GET_MSRS = "KVM_GET_MSRS", ReadWrite 8, KVMIO 0x88, [Kvm Vcpu], Native;
    /// Model-specific registers.
    KVM_SET_MSRS = "KVM_SET_MSRS", Write 8, KVMIO 0x89, [Vcpu], Native;
    /// What CPUID is for the guest, without sub-leaves.
    KVM_SET_CPUID = "KVM_SET_CPUID", Write 8, KVMIO 0x8a, [Vcpu], Native;
    /// The signals that are blocked while the guest runs.
    KVM_SET_SIGNAL_MASK = "KVM_SET_SIGNAL_MASK", Write 4, KVMIO 0x8b, [Vcpu], Native;
    /// The floating point registers.
    KVM_GET_FPU = "KVM_GET_FPU", Read 416, KVMIO 0x8c, [Vcpu], Native;
    /// The floating point registers.
    KVM_SET_FPU = "KVM_SET_FPU", Write 416, KVMIO 0x8d, [Vcpu], Native;
    /// The local APIC.
    KVM_GET_LAPIC = "KVM_GET_LAPIC", Read 1024, KVMIO 0x8e, [Vcpu], Native;
    /// The local APIC.
    KVM_SET_LAPIC = "KVM_SET_LAPIC", Write 1024, KVMIO 0x8f, [Vcpu], Native;
    /// What CPUID is for the guest.
    KVM_SET_CPUID2 = "KVM_SET_CPUID2", Write 8, KVMIO 0x90, [Vcpu], Native;
    /// What CPUID is for the guest.
    KVM_GET_CPUID2 = "KVM_GET_CPUID2", ReadWrite 8, KVMIO 0x91, [Vcpu], Native;
    /// Whether accesses to the task priority exit.
    KVM_TPR_ACCESS_REPORTING = "KVM_TPR_ACCESS_REPORTING", ReadWrite 40, KVMIO 0x92, [Vcpu], Native;
    /// Where the guest's copy of its task priority is.
    KVM_SET_VAPIC_ADDR = "KVM_SET_VAPIC_ADDR", Write 8, KVMIO 0x93, [Vcpu], Native;
    /// What the vCPU waits for.
    KVM_GET_MP_STATE = "KVM_GET_MP_STATE", Read size_of::<mp_state::MpState>(), KVMIO 0x98, [Vcpu], Native;
    /// What the vCPU waits for.
    KVM_SET_MP_STATE = "KVM_SET_MP_STATE", Write size_of::<mp_state::MpState>(), KVMIO 0x99, [Vcpu], Native;
    /// An NMI.
    KVM_NMI = "KVM_NMI", None 0, KVMIO 0x9a, [Vcpu], Native;
    /// Breakpoints and single steps.
    KVM_SET_GUEST_DEBUG = "KVM_SET_GUEST_DEBUG", Write 72, KVMIO 0x9b, [Vcpu], Native;
    /// Which machine checks there are.
    KVM_X86_SETUP_MCE = "KVM_X86_SETUP_MCE", Write 8, KVMIO 0x9c, [Vcpu], Native;
    /// Which machine checks there can be.
    KVM_X86_GET_MCE_CAP_SUPPORTED = "KVM_X86_GET_MCE_CAP_SUPPORTED", Read 8, KVMIO 0x9d, [Kvm], Native;
    /// A machine check.
    KVM_X86_SET_MCE = "KVM_X86_SET_MCE", Write 64, KVMIO 0x9e, [Vcpu], Native;
    /// Exceptions, interrupts and requests.
    KVM_GET_VCPU_EVENTS = "KVM_GET_VCPU_EVENTS", Read size_of::<events::VcpuEvents>(), KVMIO 0x9f, [Vcpu], Native;
    /// The timer in the kernel, with flags.
    KVM_GET_PIT2 = "KVM_GET_PIT2", Read 112, KVMIO 0x9f, [Vm], Native;
    /// Exceptions, interrupts and requests.
    KVM_SET_VCPU_EVENTS = "KVM_SET_VCPU_EVENTS", Write size_of::<events::VcpuEvents>(), KVMIO 0xa0, [Vcpu], Native;
    /// The timer in the kernel, with flags.
    KVM_SET_PIT2 = "KVM_SET_PIT2", Write 112, KVMIO 0xa0, [Vm], Native;
    /// The debug registers.
    KVM_GET_DEBUGREGS = "KVM_GET_DEBUGREGS", Read 128, KVMIO 0xa1, [Vcpu], Native;
    /// The debug registers.
    KVM_SET_DEBUGREGS = "KVM_SET_DEBUGREGS", Write 128, KVMIO 0xa2, [Vcpu], Native;
    /// The argument is the frequency in kHz.
    KVM_SET_TSC_KHZ = "KVM_SET_TSC_KHZ", None 0, KVMIO 0xa2, [Vm Vcpu], Native;
    /// Switches a capability on.
    KVM_ENABLE_CAP = "KVM_ENABLE_CAP", Write size_of::<device_attr::EnableCap>(), KVMIO 0xa3, [Vm Vcpu], Native;
    /// The frequency of the time stamp counter in kHz.
    KVM_GET_TSC_KHZ = "KVM_GET_TSC_KHZ", None 0, KVMIO 0xa3, [Vm Vcpu], Native;
    /// The extended registers.
    KVM_GET_XSAVE = "KVM_GET_XSAVE", Read 4096, KVMIO 0xa4, [Vcpu], Native;
    /// The extended registers.
    KVM_SET_XSAVE = "KVM_SET_XSAVE", Write 4096, KVMIO 0xa5, [Vcpu], Native;
    /// A message-signalled interrupt.
    KVM_SIGNAL_MSI = "KVM_SIGNAL_MSI", Write 32, KVMIO 0xa5, [Vm], Native;
    /// The extended control registers.
    KVM_GET_XCRS = "KVM_GET_XCRS", Read 392, KVMIO 0xa6, [Vcpu], Native;
    /// The extended control registers.
    KVM_SET_XCRS = "KVM_SET_XCRS", Write 392, KVMIO 0xa7, [Vcpu], Native;
    /// One register by id.
    KVM_GET_ONE_REG = "KVM_GET_ONE_REG", Write 16, KVMIO 0xab, [Vcpu], Native;
    /// One register by id.
    KVM_SET_ONE_REG = "KVM_SET_ONE_REG", Write 16, KVMIO 0xac, [Vcpu], Native;
    /// The guest was stopped: its watchdog should know.
    KVM_KVMCLOCK_CTRL = "KVM_KVMCLOCK_CTRL", None 0, KVMIO 0xad, [Vcpu], Native;
    /// The ids of the registers.
    KVM_GET_REG_LIST = "KVM_GET_REG_LIST", ReadWrite 8, KVMIO 0xb0, [Vcpu], Native;
    /// Which performance events the guest may count.
    KVM_SET_PMU_EVENT_FILTER = "KVM_SET_PMU_EVENT_FILTER", Write 32, KVMIO 0xb2, [Vm], Native;
    /// A system management interrupt.
    KVM_SMI = "KVM_SMI", None 0, KVMIO 0xb7, [Vcpu], Native;
    /// A command of [`crate::kvm::sev`], or of [`crate::kvm::tdx`], which alone has commands for a vCPU. A 32-bit
    /// process has to use this number too.
    KVM_MEMORY_ENCRYPT_OP = "KVM_MEMORY_ENCRYPT_OP", ReadWrite 8, KVMIO 0xba, [Vm Vcpu], Native;
    /// Memory of an SEV guest, to be pinned.
    KVM_MEMORY_ENCRYPT_REG_REGION = "KVM_MEMORY_ENCRYPT_REG_REGION", Read size_of::<memory::EncRegion>(), KVMIO 0xbb, [Vm], Native;
    /// Memory that is no longer the guest's.
    KVM_MEMORY_ENCRYPT_UNREG_REGION = "KVM_MEMORY_ENCRYPT_UNREG_REGION", Read size_of::<memory::EncRegion>(), KVMIO 0xbc, [Vm], Native;
    /// An event file that a Hyper-V message signals.
    KVM_HYPERV_EVENTFD = "KVM_HYPERV_EVENTFD", Write 24, KVMIO 0xbd, [Vm], Native;
    /// The state of nested virtualisation.
    KVM_GET_NESTED_STATE = "KVM_GET_NESTED_STATE", ReadWrite 128, KVMIO 0xbe, [Vcpu], Native;
    /// The state of nested virtualisation.
    KVM_SET_NESTED_STATE = "KVM_SET_NESTED_STATE", Write 128, KVMIO 0xbf, [Vcpu], Native;
    /// Pages whose writes are to be seen again.
    KVM_CLEAR_DIRTY_LOG = "KVM_CLEAR_DIRTY_LOG", ReadWrite 24, KVMIO 0xc0, [Vm], Native;
    /// What CPUID can be for a guest that knows Hyper-V.
    KVM_GET_SUPPORTED_HV_CPUID = "KVM_GET_SUPPORTED_HV_CPUID", ReadWrite 8, KVMIO 0xc1, [Kvm Vcpu], Native;
    /// Which model-specific registers the guest may touch.
    KVM_X86_SET_MSR_FILTER = "KVM_X86_SET_MSR_FILTER", Write 392, KVMIO 0xc6, [Vm], Native;
    /// Entries of the dirty rings are read.
    KVM_RESET_DIRTY_RINGS = "KVM_RESET_DIRTY_RINGS", None 0, KVMIO 0xc7, [Vm], Native;
    /// The special registers with the page directory pointers.
    KVM_GET_SREGS2 = "KVM_GET_SREGS2", Read 320, KVMIO 0xcc, [Vcpu], Native;
    /// The special registers with the page directory pointers.
    KVM_SET_SREGS2 = "KVM_SET_SREGS2", Write 320, KVMIO 0xcd, [Vcpu], Native;
    /// A file with statistics.
    KVM_GET_STATS_FD = "KVM_GET_STATS_FD", None 0, KVMIO 0xce, [Vm Vcpu], Native;
    /// The extended registers, whose length the VM knows.
    KVM_GET_XSAVE2 = "KVM_GET_XSAVE2", Read 4096, KVMIO 0xcf, [Vcpu], Native;
    /// Which pages are private.
    KVM_SET_MEMORY_ATTRIBUTES = "KVM_SET_MEMORY_ATTRIBUTES", Write size_of::<memory::MemoryAttributes>(), KVMIO 0xd2, [Vm], Native;
    /// A file whose pages only guests see.
    KVM_CREATE_GUEST_MEMFD = "KVM_CREATE_GUEST_MEMFD", ReadWrite size_of::<memory::CreateGuestMemfd>(), KVMIO 0xd4, [Vm], Native;
    /// Fault pages in before the guest touches them.
    KVM_PRE_FAULT_MEMORY = "KVM_PRE_FAULT_MEMORY", ReadWrite size_of::<memory::PreFaultMemory>(), KVMIO 0xd5, [Vcpu], Native;
    /// A device in the kernel.
    KVM_CREATE_DEVICE = "KVM_CREATE_DEVICE", ReadWrite 12, KVMIO 0xe0, [Vm], Native;
    /// Sets an attribute.
    KVM_SET_DEVICE_ATTR = "KVM_SET_DEVICE_ATTR", Write size_of::<device_attr::DeviceAttr>(), KVMIO 0xe1, [Vm Vcpu Device], Native;
    /// Gets an attribute; on `/dev/kvm`, one of SEV.
    KVM_GET_DEVICE_ATTR = "KVM_GET_DEVICE_ATTR", Write size_of::<device_attr::DeviceAttr>(), KVMIO 0xe2, [Kvm Vm Vcpu Device], Native;
    /// Asks whether an attribute exists.
    KVM_HAS_DEVICE_ATTR = "KVM_HAS_DEVICE_ATTR", Write size_of::<device_attr::DeviceAttr>(), KVMIO 0xe3, [Kvm Vm Vcpu Device], Native;
    /// A command for the platform.
    SEV_ISSUE_CMD = "SEV_ISSUE_CMD", ReadWrite size_of::<sev::platform::SevIssueCmd>(), SEV_IOC_TYPE 0x00, [DevSev], Native;
    /// The guest's own request for a report.
    SNP_GET_REPORT = "SNP_GET_REPORT", ReadWrite 32, SEV_IOC_TYPE 0x00, [SevGuest], Native;
    /// The guest's own request for a key.
    SNP_GET_DERIVED_KEY = "SNP_GET_DERIVED_KEY", ReadWrite 32, SEV_IOC_TYPE 0x01, [SevGuest], Native;
    /// The guest's own request for a report with certificates.
    SNP_GET_EXT_REPORT = "SNP_GET_EXT_REPORT", ReadWrite 32, SEV_IOC_TYPE 0x02, [SevGuest], Native;
    /// What a 32-bit process computes for [`KVM_MEMORY_ENCRYPT_OP`], whose argument the header calls a `long`:
    /// `ENOTTY`.
    KVM_MEMORY_ENCRYPT_OP_ILP32 = "KVM_MEMORY_ENCRYPT_OP", ReadWrite 4, KVMIO 0xba, [Vm Vcpu], Ilp32Refused;
    /// What a 32-bit process computes for [`KVM_X86_SET_MSR_FILTER`], whose argument holds pointers.
    KVM_X86_SET_MSR_FILTER_ILP32 = "KVM_X86_SET_MSR_FILTER", Write 260, KVMIO 0xc6, [Vm], Ilp32Translated;
    /// What an i386 process computes for [`SNP_GET_REPORT`]: `ENOTTY`.
    SNP_GET_REPORT_I386 = "SNP_GET_REPORT", ReadWrite 28, SEV_IOC_TYPE 0x00, [SevGuest], I386Refused;
    /// What an i386 process computes for [`SNP_GET_DERIVED_KEY`]: `ENOTTY`.
    SNP_GET_DERIVED_KEY_I386 = "SNP_GET_DERIVED_KEY", ReadWrite 28, SEV_IOC_TYPE 0x01, [SevGuest], I386Refused;
    /// What an i386 process computes for [`SNP_GET_EXT_REPORT`]: `ENOTTY`.
    SNP_GET_EXT_REPORT_I386 = "SNP_GET_EXT_REPORT", ReadWrite 28, SEV_IOC_TYPE 0x02, [SevGuest], I386Refused;
}
