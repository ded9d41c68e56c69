//! Making a TD on the kernel half in software.

use super::on_model::failed;
use exeunt_abi::kvm::cpuid::CpuidEntry2;
use exeunt_abi::kvm::tdx::{InitMemRegion, InitVm};
use exeunt_abi::tdx::attributes;
use exeunt_model::{SparseMemory, Vcpu, Vm};

/// Pins of the I/O APIC that the VMM would have.
const PINS: u64 = 24;
/// Pages of initial memory, from address 0 on: all zero, and measured.
const INITIAL_PAGES: u64 = 16;
/// x87, SSE and AVX.
const XFAM: u64 = 0x7;

/// `KVM_TDX_INIT_VM`, with addresses of 48 bits, and what has to come before vCPUs.
pub(crate) fn initialise(vm: &Vm) -> Result<(), String> {
    vm.split_irqchip(PINS).map_err(|errno| failed("KVM_CAP_SPLIT_IRQCHIP", errno))?;
    let init = InitVm {
        attributes: attributes::SEPT_VE_DISABLE,
        xfam: XFAM,
        mrconfigid: [0; 6],
        mrowner: [0; 6],
        mrownerconfig: [0; 6],
        reserved: [0; 12],
        cpuid_nent: 1,
        cpuid_padding: 0,
    };
    let width = CpuidEntry2 { function: 0x8000_0008, eax: 48 << 16, ..CpuidEntry2::default() };
    vm.tdx_init_vm(&init, &[width]).map_err(|failure| failed("KVM_TDX_INIT_VM", failure.errno))
}

/// The vCPUs, the initial memory, and the end of the launch.
pub(crate) fn finalise(vm: &Vm, vcpus: &mut [Vcpu]) -> Result<(), String> {
    let leaf = |function, eax, ecx| CpuidEntry2 { function, eax, ecx, ..CpuidEntry2::default() };
    // x2APIC, and 52 bits of physical addresses.
    let cpuid = [leaf(1, 0, 1 << 21), leaf(0x8000_0000, 0x8000_0008, 0), leaf(0x8000_0008, 52, 0)];
    for vcpu in &mut *vcpus {
        vcpu.set_cpuid2(&cpuid).map_err(|errno| failed("KVM_SET_CPUID2", errno))?;
        vcpu.tdx_init_vcpu(0).map_err(|errno| failed("KVM_TDX_INIT_VCPU", errno))?;
    }
    if let Some(vcpu) = vcpus.first_mut() {
        let mut region = InitMemRegion { source_addr: 0x1000, gpa: 0, nr_pages: INITIAL_PAGES };
        vcpu.tdx_init_mem_region(&mut region, true, &SparseMemory::new())
            .map_err(|errno| failed("KVM_TDX_INIT_MEM_REGION", errno))?;
    }
    vm.tdx_finalize_vm().map_err(|failure| failed("KVM_TDX_FINALIZE_VM", failure.errno))
}
