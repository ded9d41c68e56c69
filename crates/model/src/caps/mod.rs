//! Capabilities: what `KVM_CHECK_EXTENSION` answers on `/dev/kvm` and on a VM, by release, host and type.

mod enable;

use crate::host::Host;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::{
    GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, MEMORY_ATTRIBUTE_PRIVATE,
};
use exeunt_abi::kvm::regs::{SYNC_ALL, XSAVE_BYTES};
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, CertsForm, Kernel};

/// Processors that the host of the model has online.
pub(crate) const HOST_CPUS: u32 = 8;
/// `KVM_MAX_MCE_BANKS`.
const MAX_MCE_BANKS: u64 = 32;
/// `KVM_MAX_IRQ_ROUTES`.
pub(crate) const MAX_IRQ_ROUTES: u64 = 4096;
/// `KVM_COALESCED_MMIO_PAGE_OFFSET`: the page of the vCPU's mapping.
pub(crate) const COALESCED_MMIO_PAGE: u64 = 2;
/// `KVM_GUESTDBG_VALID_MASK`.
const GUESTDBG_VALID: u64 = 0x1f_0003;
/// Bytes of `struct kvm_nested_state` with an SVM VMCB, and with the two VMCSs of VMX.
const NESTED_STATE_BYTES: [u64; 2] = [128 + 4096, 128 + 2 * 4096];
/// `APIC_BUS_CYCLE_NS_DEFAULT`.
const APIC_BUS_CYCLE_NS: u64 = 1;

/// Who is asked, and about what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) kernel: Kernel,
    pub(crate) host: Host,
    /// The type of the VM that is asked; `None` is `/dev/kvm`.
    pub(crate) vm_type: Option<VmType>,
}

/// The mask of types that `KVM_CREATE_VM` takes.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_hardware_setup`, and `arch/x86/kvm/x86.c`,
/// `kvm_is_vm_type_supported`.
pub(crate) fn vm_types(kernel: Kernel, host: Host) -> u64 {
    let dialect = kernel.dialect;
    if kernel.arch != Arch::X86 {
        return 1 << VmType::Default.number();
    }
    let amd = !host.is_intel();
    VmType::ALL
        .into_iter()
        .filter(|vm_type| match vm_type {
            VmType::Default => true,
            VmType::SwProtected => dialect.has_private_memory(),
            VmType::Sev | VmType::SevEs => amd && dialect.has_sev_vm_types(),
            VmType::Snp => amd && dialect.has_snp(),
            VmType::Tdx => !amd && dialect.has_tdx(),
            _ => false,
        })
        .fold(0, |mask, vm_type| mask | 1 << vm_type.number())
}

impl Asked {
    /// What `KVM_CHECK_EXTENSION` answers: 0 if the capability is missing.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vm_ioctl_check_extension_generic`, and `arch/x86/kvm/x86.c`,
    /// `kvm_vm_ioctl_check_extension`; the releases are in [`exeunt_abi::Dialect`].
    pub(crate) fn check(self, cap: Cap) -> u64 {
        let Self { kernel, vm_type, .. } = self;
        let dialect = kernel.dialect;
        if cap.0 > dialect.newest_capability() {
            return 0;
        }
        let private = dialect.has_private_memory();
        let is_x86 = kernel.arch == Arch::X86;
        match cap {
            Cap::USER_MEMORY
            | Cap::DESTROY_MEMORY_REGION_WORKS
            | Cap::JOIN_MEMORY_REGIONS_WORKS
            | Cap::INTERNAL_ERROR_DATA
            | Cap::SIGNAL_MSI
            | Cap::IRQFD
            | Cap::IOEVENTFD
            | Cap::IOEVENTFD_ANY_LENGTH
            | Cap::CHECK_EXTENSION_VM
            | Cap::ENABLE_CAP_VM
            | Cap::HALT_POLL
            | Cap::COALESCED_PIO
            | Cap::BINARY_STATS_FD
            | Cap::DEVICE_CTRL
            | Cap::IMMEDIATE_EXIT
            | Cap::MP_STATE
            | Cap::VCPU_EVENTS => 1,
            Cap::SYSTEM_EVENT_DATA => u64::from(dialect.has_system_event_data()),
            Cap::USER_MEMORY2 | Cap::MEMORY_FAULT_INFO => u64::from(private),
            Cap::COALESCED_MMIO => COALESCED_MMIO_PAGE,
            // KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE and KVM_DIRTY_LOG_INITIALLY_SET.
            Cap::MANUAL_DIRTY_LOG_PROTECT2 => 3,
            Cap::IRQ_ROUTING => MAX_IRQ_ROUTES,
            Cap::NR_MEMSLOTS => u64::from(dialect.max_memory_slots()),
            Cap::NR_VCPUS => u64::from(HOST_CPUS),
            // The TDX module takes no more.
            Cap::MAX_VCPUS if vm_type == Some(VmType::Tdx) => u64::from(HOST_CPUS),
            Cap::MAX_VCPUS => dialect.max_vcpus().0,
            Cap::MAX_VCPU_ID => dialect.max_vcpus().1,
            Cap::ARM_SYSTEM_SUSPEND => {
                u64::from(kernel.arch == Arch::Arm64 && dialect.has_arm_system_suspend())
            }
            Cap::READONLY_MEM => u64::from(!vm_type.is_some_and(VmType::has_protected_state)),
            cap if is_x86 => self.check_x86(cap),
            _ => 0,
        }
    }

    fn check_x86(self, cap: Cap) -> u64 {
        let Self { kernel, host, vm_type } = self;
        let dialect = kernel.dialect;
        let has_private = vm_type.is_none_or(VmType::has_private_memory);
        match cap {
            cap if PLAIN.contains(&cap) => 1,
            Cap::EXIT_HYPERCALL => u64::from(dialect.has_exit_hypercall()) << MAP_GPA_RANGE,
            Cap::X86_TRIPLE_FAULT_EVENT => u64::from(dialect.has_triple_fault_event()),
            Cap::MEMORY_ATTRIBUTES if has_private && dialect.has_private_memory() => MEMORY_ATTRIBUTE_PRIVATE,
            Cap::GUEST_MEMFD => {
                u64::from((has_private || dialect.has_gmem_mmap()) && dialect.has_private_memory())
            }
            Cap::GUEST_MEMFD_FLAGS if !dialect.has_gmem_mmap() => 0,
            Cap::GUEST_MEMFD_FLAGS if vm_type.is_some_and(VmType::has_private_memory) => {
                GUEST_MEMFD_FLAG_MMAP
            }
            Cap::GUEST_MEMFD_FLAGS => GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
            Cap::VM_TYPES if dialect.has_private_memory() => vm_types(kernel, host),
            Cap::MULTI_ADDRESS_SPACE if vm_type.is_some_and(VmType::has_private_memory) => 1,
            Cap::MULTI_ADDRESS_SPACE => 2,
            Cap::SYNC_REGS if vm_type.is_some_and(VmType::has_protected_state) => 0,
            Cap::SYNC_REGS => SYNC_ALL,
            Cap::ONE_REG => u64::from(dialect.has_x86_one_reg()),
            Cap::SET_GUEST_DEBUG2 => GUESTDBG_VALID,
            Cap::ADJUST_CLOCK => u64::from(dialect.clock_flags()),
            Cap::MCE => MAX_MCE_BANKS,
            Cap::X86_SMM => u64::from(!vm_type.is_some_and(VmType::has_protected_state)),
            Cap::X2APIC_API => 3,
            // PAUSE, HLT, MWAIT and C-states.
            Cap::X86_DISABLE_EXITS => 0xf,
            Cap::XSAVE2 => XSAVE_BYTES as u64,
            Cap::NESTED_STATE => {
                let [svm, vmx] = NESTED_STATE_BYTES;
                if host.is_intel() { vmx } else { svm }
            }
            Cap::DISABLE_QUIRKS2 => dialect.x86_quirks(),
            Cap::X86_NOTIFY_VMEXIT => u64::from(host.is_intel()),
            Cap::X86_APIC_BUS_CYCLES_NS if dialect.certs_form() != CertsForm::Coco => APIC_BUS_CYCLE_NS,
            _ => 0,
        }
    }
}

/// Capabilities of x86 that are there in every release that knows their number, and have no value.
const PLAIN: &[Cap] = &[
    Cap::IRQCHIP,
    Cap::HLT,
    Cap::MMU_SHADOW_CACHE_CONTROL,
    Cap::SET_TSS_ADDR,
    Cap::EXT_CPUID,
    Cap::EXT_EMUL_CPUID,
    Cap::CLOCKSOURCE,
    Cap::PIT,
    Cap::NOP_IO_DELAY,
    Cap::SYNC_MMU,
    Cap::USER_NMI,
    Cap::REINJECT_CONTROL,
    Cap::IRQ_INJECT_STATUS,
    Cap::IOEVENTFD_NO_LENGTH,
    Cap::PIT2,
    Cap::PIT_STATE2,
    Cap::SET_IDENTITY_MAP_ADDR,
    Cap::HYPERV,
    Cap::HYPERV_VAPIC,
    Cap::HYPERV_SPIN,
    Cap::HYPERV_TIME,
    Cap::HYPERV_SYNIC,
    Cap::HYPERV_SYNIC2,
    Cap::HYPERV_VP_INDEX,
    Cap::HYPERV_EVENTFD,
    Cap::HYPERV_TLBFLUSH,
    Cap::HYPERV_SEND_IPI,
    Cap::HYPERV_CPUID,
    Cap::HYPERV_ENFORCE_CPUID,
    Cap::SYS_HYPERV_CPUID,
    Cap::PCI_SEGMENT,
    Cap::DEBUGREGS,
    Cap::X86_ROBUST_SINGLESTEP,
    Cap::XSAVE,
    Cap::XCRS,
    Cap::ASYNC_PF,
    Cap::ASYNC_PF_INT,
    Cap::GET_TSC_KHZ,
    Cap::TSC_CONTROL,
    Cap::VM_TSC_CONTROL,
    Cap::KVMCLOCK_CTRL,
    Cap::IOAPIC_POLARITY_IGNORED,
    Cap::TSC_DEADLINE_TIMER,
    Cap::DISABLE_QUIRKS,
    Cap::SET_BOOT_CPU_ID,
    Cap::SPLIT_IRQCHIP,
    Cap::PMU_EVENT_FILTER,
    Cap::PMU_EVENT_MASKED_EVENTS,
    Cap::PMU_CAPABILITY,
    Cap::GET_MSR_FEATURES,
    Cap::MSR_PLATFORM_INFO,
    Cap::EXCEPTION_PAYLOAD,
    Cap::SET_GUEST_DEBUG,
    Cap::LAST_CPU,
    Cap::X86_USER_SPACE_MSR,
    Cap::X86_MSR_FILTER,
    Cap::ENFORCE_PV_FEATURE_CPUID,
    Cap::VM_COPY_ENC_CONTEXT_FROM,
    Cap::VM_MOVE_ENC_CONTEXT_FROM,
    Cap::SREGS2,
    Cap::EXIT_ON_EMULATION_FAILURE,
    Cap::VCPU_ATTRIBUTES,
    Cap::SYS_ATTRIBUTES,
    Cap::VAPIC,
    Cap::ENABLE_CAP,
    Cap::VM_DISABLE_NX_HUGE_PAGES,
    Cap::IRQFD_RESAMPLE,
    Cap::STEAL_TIME,
    Cap::PRE_FAULT_MEMORY,
    Cap::X86_GUEST_MODE,
];

#[cfg(test)]
mod tests;
