//! The arguments of ioctls of VMs and vCPUs, and those of TDX.

use super::{EVERYWHERE, NEWEST, Ours, X86, ours};
use exeunt_abi::kvm::{cpuid, device_attr, events, irq, memory, mp_state, tdx};

pub(super) fn memory() -> Vec<Ours> {
    ours! {
        Whole NEWEST EVERYWHERE "kvm_userspace_memory_region" = memory::UserspaceMemoryRegion {
            slot, flags, guest_phys_addr, memory_size, userspace_addr,
        }
        Whole NEWEST EVERYWHERE "kvm_userspace_memory_region2" = memory::UserspaceMemoryRegion2 {
            slot, flags, guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset, guest_memfd, pad1, pad2,
        }
        Whole NEWEST EVERYWHERE "kvm_memory_attributes" = memory::MemoryAttributes {
            address, size, attributes, flags,
        }
        Whole NEWEST EVERYWHERE "kvm_create_guest_memfd" = memory::CreateGuestMemfd { size, flags, reserved }
        Whole NEWEST EVERYWHERE "kvm_pre_fault_memory" = memory::PreFaultMemory { gpa, size, flags, padding }
        Whole NEWEST EVERYWHERE "kvm_enc_region" = memory::EncRegion { addr, size }
    }
}

pub(super) fn others() -> Vec<Ours> {
    ours! {
        Whole NEWEST EVERYWHERE "kvm_device_attr" = device_attr::DeviceAttr { flags, group, attr, addr }
        Whole NEWEST EVERYWHERE "kvm_enable_cap" = device_attr::EnableCap { cap, flags, args, pad }
        Whole NEWEST X86 "kvm_cpuid_entry2" = cpuid::CpuidEntry2 {
            function, index, flags, eax, ebx, ecx, edx, padding,
        }
        Whole NEWEST X86 "kvm_cpuid2" = cpuid::Cpuid2 { nent, padding }
        Whole NEWEST EVERYWHERE "kvm_mp_state" = mp_state::MpState { mp_state }
        Whole NEWEST EVERYWHERE "kvm_create_device" = irq::CreateDevice { device_type: ["type"], fd, flags }
        Whole NEWEST EVERYWHERE "kvm_irqfd" = irq::Irqfd { fd, gsi, flags, resamplefd, pad }
        Whole NEWEST EVERYWHERE "kvm_msi" = irq::Msi { address_lo, address_hi, data, flags, devid, pad }
        Whole NEWEST X86 "kvm_clock_data" = irq::ClockData { clock, flags, pad0, realtime, host_tsc, pad }
        Whole NEWEST X86 "kvm_vcpu_events" = events::VcpuEvents {
            exception_injected: ["exception.injected"], exception_nr: ["exception.nr"],
            exception_has_error_code: ["exception.has_error_code"], exception_pending: ["exception.pending"],
            exception_error_code: ["exception.error_code"],
            interrupt_injected: ["interrupt.injected"], interrupt_nr: ["interrupt.nr"],
            interrupt_soft: ["interrupt.soft"], interrupt_shadow: ["interrupt.shadow"],
            nmi_injected: ["nmi.injected"], nmi_pending: ["nmi.pending"], nmi_masked: ["nmi.masked"],
            nmi_pad: ["nmi.pad"],
            sipi_vector, flags,
            smi_smm: ["smi.smm"], smi_pending: ["smi.pending"], smi_smm_inside_nmi: ["smi.smm_inside_nmi"],
            smi_latched_init: ["smi.latched_init"],
            triple_fault_pending: ["triple_fault.pending"],
            reserved, exception_has_payload, exception_payload,
        }
    }
}

pub(super) fn tdx() -> Vec<Ours> {
    ours! {
        Whole NEWEST X86 "kvm_tdx_cmd" = tdx::TdxCmd { id, flags, data, hw_error }
        Whole NEWEST X86 "kvm_tdx_capabilities" = tdx::Capabilities {
            supported_attrs, supported_xfam, kernel_tdvmcallinfo_1_r11, user_tdvmcallinfo_1_r11,
            kernel_tdvmcallinfo_1_r12, user_tdvmcallinfo_1_r12, reserved,
            cpuid_nent: ["cpuid.nent"], cpuid_padding: ["cpuid.padding"],
        }
        Whole NEWEST X86 "kvm_tdx_init_vm" = tdx::InitVm {
            attributes, xfam, mrconfigid, mrowner, mrownerconfig, reserved,
            cpuid_nent: ["cpuid.nent"], cpuid_padding: ["cpuid.padding"],
        }
        Whole NEWEST X86 "kvm_tdx_init_mem_region" = tdx::InitMemRegion { source_addr, gpa, nr_pages }
    }
}
