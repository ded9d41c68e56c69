//! Which exits a kernel could bring to a VM, by what the VMM has made of it.
//!
//! Each row has the conditions under which the model brings the exit, with the kernel source that they come from.

use exeunt_abi::Dialect;
use exeunt_abi::kvm::run::{MAP_GPA_RANGE, event_type};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_scenes::overlay::Injected;

/// What is known of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its type, if the model knows it.
    pub(super) vm_type: Option<VmType>,
    /// The mask of `KVM_CAP_EXIT_HYPERCALL`.
    pub(super) hypercalls: u64,
    /// The local APICs are in the kernel.
    pub(super) has_kernel_apic: bool,
    /// The guest is shown Hyper-V.
    pub(super) has_hyperv: bool,
}

/// Whether a kernel could bring the exit to such a VM.
///
/// # Errors
///
/// What is missing, in words that follow "because".
pub(super) fn possible(exit: Injected, vm: Facts, kernel: Dialect) -> Result<(), &'static str> {
    let is_type = |is: fn(VmType) -> bool| vm.vm_type.is_some_and(is);
    let (holds, otherwise) = match exit {
        // Interrupted: Linux v7.2 `arch/x86/kvm/x86.c`, `vcpu_run` and `kvm_handle_signal_exit`: a signal can be
        // pending at any time. Shutdown: `vcpu_enter_guest`, `KVM_REQ_TRIPLE_FAULT`, of any guest. Newer:
        // `Documentation/virt/kvm/api.rst`, section 5: exits are added, and no VMM knows those of a newer kernel.
        Injected::Interrupted | Injected::Shutdown | Injected::Newer { .. } => (true, ""),
        // `arch/x86/kvm/x86.c`, `kvm_arch_vcpu_ioctl_run`: `KVM_MP_STATE_UNINITIALIZED`, into which an INIT of the
        // kernel's own APIC puts a vCPU (`lapic.c`, `kvm_apic_accept_events`).
        Injected::NotStarted => (vm.has_kernel_apic, "the local APICs are not in the kernel"),
        Injected::Event { event, .. } => match event {
            // `arch/x86/kvm/svm/sev.c`, `sev_handle_vmgexit_msr_protocol` and `sev_handle_vmgexit`.
            event_type::SEV_TERM => (is_type(VmType::has_ghcb), "the VM is neither an SEV-ES nor an SNP VM"),
            // `arch/x86/kvm/vmx/tdx.c`, `tdx_report_fatal_error`.
            event_type::TDX_FATAL => (is_type(|kind| kind == VmType::Tdx), "the VM is no TD"),
            // `arch/x86/kvm/hyperv.c`, `kvm_hv_set_msr_pw`, and `x86.c`, `vcpu_enter_guest`: `KVM_REQ_HV_RESET` and
            // `KVM_REQ_HV_CRASH`.
            event_type::RESET | event_type::CRASH => (vm.has_hyperv, "the guest is not shown Hyper-V"),
            event_type::SHUTDOWN | event_type::WAKEUP | event_type::SUSPEND => {
                (false, "no x86 kernel brings this event")
            }
            // As with exits: an event of a newer kernel.
            _ => (true, ""),
        },
        // `arch/x86/kvm/x86.c`, `____kvm_emulate_hypercall`.
        Injected::MapGpaRange { .. } => {
            let is_enabled = vm.hypercalls & 1 << MAP_GPA_RANGE != 0 && kernel.has_exit_hypercall();
            (is_enabled, "the VMM did not enable KVM_CAP_EXIT_HYPERCALL for KVM_HC_MAP_GPA_RANGE")
        }
        // `arch/x86/kvm/mmu/mmu.c`, `kvm_mmu_prepare_memory_fault_exit` and its callers: the access and the attribute
        // of the page differ, which they can in a VM with private memory only.
        Injected::MemoryFault { .. } => {
            let can_fault = is_type(VmType::has_private_memory) && kernel.has_private_memory();
            (can_fault, "the VM has no private memory")
        }
    };
    if holds { Ok(()) } else { Err(otherwise) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Dialect = Dialect::Linux7_2;

    fn of(vm_type: VmType) -> Facts {
        Facts { vm_type: Some(vm_type), ..Facts::default() }
    }

    #[test]
    fn what_happens_to_any_vm_is_possible_in_each() {
        let newer = Injected::Newer { reason: 0x40, bytes: 0 };
        let event = Injected::Event { event: 9, data: None };
        for vm_type in VmType::ALL {
            for exit in [Injected::Interrupted, Injected::Shutdown, newer, event] {
                assert_eq!(possible(exit, of(vm_type), KERNEL), Ok(()), "{exit:?} {vm_type:?}");
            }
        }
    }

    #[test]
    fn an_exit_with_a_condition_is_possible_with_it_and_with_nothing_else() {
        let event = |event| Injected::Event { event, data: None };
        let conversion = Injected::MapGpaRange { gpa: 0, pages: 1, attributes: 0 };
        let fault = Injected::MemoryFault { is_private: true, gpa: 0, bytes: 4096 };
        let apic = Facts { has_kernel_apic: true, ..Facts::default() };
        let hyperv = Facts { has_hyperv: true, ..Facts::default() };
        let hypercalls = Facts { hypercalls: 1 << 12, ..Facts::default() };
        let all = [apic, hyperv, hypercalls];
        let all: Vec<Facts> = all.into_iter().chain(VmType::ALL.map(of)).collect();
        let table: [(Injected, &[Facts]); 7] = [
            (Injected::NotStarted, &[apic]),
            (event(2), &[hyperv]),
            (event(3), &[hyperv]),
            (event(6), &[of(VmType::SevEs), of(VmType::Snp)]),
            (event(7), &[of(VmType::Tdx)]),
            (conversion, &[hypercalls]),
            (fault, &[of(VmType::SwProtected), of(VmType::Snp), of(VmType::Tdx)]),
        ];
        for (exit, allowed) in table {
            for facts in &all {
                let got = possible(exit, *facts, KERNEL).is_ok();
                assert_eq!(got, allowed.contains(facts), "{exit:?} {facts:?}");
            }
        }
        for other in [1, 4, 5] {
            assert!(possible(event(other), hyperv, KERNEL).is_err(), "{other}");
        }
    }

    #[test]
    fn an_older_kernel_brings_only_what_it_has() {
        let conversion = Injected::MapGpaRange { gpa: 0, pages: 1, attributes: 0 };
        let fault = Injected::MemoryFault { is_private: true, gpa: 0, bytes: 4096 };
        let facts = Facts { hypercalls: 1 << 12, ..of(VmType::SwProtected) };
        for exit in [conversion, fault] {
            assert!(possible(exit, facts, Dialect::Linux5_10).is_err(), "{exit:?}");
            assert!(possible(exit, facts, KERNEL).is_ok(), "{exit:?}");
        }
    }
}
