//! Any guest on the model, under any VMM: every `KVM_RUN` returns, and nothing panics.

use crate::decoders::{Words64, kernel};
use exeunt_abi::ghcb::msr::REGISTER_GPA_REQUEST;
use exeunt_abi::ghcb::page;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::cpuid::CpuidEntry2;
use exeunt_abi::kvm::tdx::InitVm;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::tdx::attributes;
use exeunt_abi::{Errno, Gpa};
use exeunt_model::guest::tdx::AcceptSize;
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{FaultPlan, Firmware, Host, Intercepts, Kvm, Rng, Slot, Vm};
use exeunt_proto::exit::decode;
use exeunt_proto::host::{Events, Vcpu};
use zerocopy::FromZeros;

/// Memory of the guest in bytes: few pages, so that accesses meet.
const MEMORY: u64 = 0x8000;
/// Acts of the guest and moves of the VMM, at most.
const ACTS: usize = 64;

pub(crate) fn explore(data: &[u8]) {
    let mut words = Words64(data);
    let setup = words.next();
    let kernel = kernel(setup);
    let vm_type = VmType::from_number(setup >> 8 & 7).unwrap_or(VmType::Snp);
    let host = if vm_type == VmType::Tdx || setup & 0x2000 != 0 { Host::INTEL } else { Host::AMD };
    let Ok(vm) = Kvm::on(host, kernel).create_vm(vm_type) else { return };
    if set_up(&vm, vm_type, setup).is_err() {
        return;
    }
    let acts: Vec<[u64; 3]> = (0..ACTS).map(|_| [words.next(), words.next(), words.next()]).collect();
    let Ok(mut vcpu) = vm.create_vcpu(setup, move |cpu| guest(cpu, acts)) else { return };
    if vm_type == VmType::Tdx && start_td(&vm, &mut vcpu).is_none() {
        return;
    }
    for _ in 0..ACTS {
        let entered = vcpu.enter();
        // Whatever the model writes means something in its own dialect.
        if entered != Err(Errno::EINVAL) && entered != Err(Errno::EOPNOTSUPP) {
            let _ = decode(entered, vcpu.page(), vcpu.kernel());
        }
        let [action, value] = [words.next(), words.next()];
        match action & 7 {
            0 => vcpu.page_mut().set_bytes(56, &value.to_le_bytes()),
            1 => vcpu.page_mut().set_bytes(16, &value.to_le_bytes()),
            2 => vcpu.page_mut().set_bytes(usize::from(action.to_le_bytes()[1]), &value.to_le_bytes()),
            3 => _ = vm.set_memory_attributes(Gpa(value & 0xf000), 0x1000, action >> 8 & 8),
            4 => vm.set_firmware(Firmware::Completes { status: 7 }),
            5 => _ = vm.enable_cap(Cap::EXIT_HYPERCALL, value & 1 << 12),
            6 => vcpu.raise_triple_fault(),
            _ => {
                let events = vcpu.events();
                assert_eq!(events, vcpu.events(), "reading events is idempotent");
            }
        }
    }
}

fn set_up(vm: &Vm, vm_type: VmType, setup: u64) -> Result<(), Errno> {
    let slot = Slot::shared(0, Gpa(0), MEMORY).ok_or(Errno::EINVAL)?;
    let slot = if vm_type.has_private_memory() {
        slot.with_guest_memfd(vm.create_guest_memfd(MEMORY)?, 0)
    } else {
        slot
    };
    vm.add_slot(slot)?;
    if setup & 1 << 18 != 0 {
        vm.create_irqchip()?;
    }
    if vm_type == VmType::Tdx {
        let mut init = InitVm::new_zeroed();
        init.attributes = attributes::SEPT_VE_DISABLE;
        init.xfam = 0xe7;
        let bits = CpuidEntry2 { function: 0x8000_0008, eax: 48 << 16, ..CpuidEntry2::default() };
        vm.split_irqchip(24)?;
        vm.tdx_init_vm(&init, &[bits]).map_err(|failure| failure.errno)?;
    }
    if vm_type.has_ghcb() {
        vm.sev_init2(0)?;
        vm.launch()?;
    }
    // Both may be missing from the kernel.
    let _ = vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << 12);
    if setup & 1 << 17 != 0 {
        vm.set_fault_plan(FaultPlan::seeded(setup, 8));
    }
    if setup & 1 << 16 != 0 {
        let _ = vm.snp_enable_req_certs();
    }
    Ok(())
}

/// Makes a TD and its vCPU ready to run.
fn start_td(vm: &Vm, vcpu: &mut exeunt_model::Vcpu) -> Option<()> {
    let leaf = |function, eax, ecx| CpuidEntry2 { function, eax, ecx, ..CpuidEntry2::default() };
    vcpu.set_cpuid2(&[leaf(1, 0, 1 << 21), leaf(0x8000_0008, 52, 0)]).ok()?;
    vcpu.tdx_init_vcpu(0).ok()?;
    vm.tdx_finalize_vm().ok()
}

/// Acts that a seed draws, for who has no input to take them from.
pub(crate) fn drawn_acts(seed: u64) -> Vec<[u64; 3]> {
    let mut rng = Rng::new(seed);
    (0..ACTS).map(|_| [rng.next_u64(), rng.next_u64() & 0xff_ffff, rng.next_u64()]).collect()
}

/// Exceptions do not stop this guest.
pub(crate) async fn guest(cpu: Cpu, acts: Vec<[u64; 3]>) -> Result<(), GuestFault> {
    let _ = cpu.vmgexit(0x1000 | REGISTER_GPA_REQUEST).await;
    for act in acts {
        if act[0] & 0x10 == 0 { on_memory_and_ghcb(&cpu, act).await } else { on_the_machine(&cpu, act).await }
    }
    Ok(())
}

async fn on_memory_and_ghcb(cpu: &Cpu, [act, a, b]: [u64; 3]) {
    let gpa = Gpa(a & 0xffff);
    let access = if act & 0x80 == 0 { Access::Shared } else { Access::Private };
    match act & 15 {
        0 => _ = cpu.read(gpa, usize::from(b.to_le_bytes()[0]), access).await,
        1..=4 => _ = cpu.write(gpa, &b.to_le_bytes(), access).await,
        5 => _ = cpu.rmpadjust(gpa, act & 0x100 != 0, b & 0x1_ffff).await,
        6 => _ = cpu.pvalidate(gpa, b & 1 == 0).await,
        7 => _ = cpu.pvalidate_2m(gpa, b & 1 == 0).await,
        8 | 9 => _ = cpu.vmgexit(a).await,
        10..=13 => request(cpu, a, b).await,
        14 => {
            _ = cpu
                .tdg_mem_page_accept(gpa, if b & 1 == 0 { AcceptSize::Size4K } else { AcceptSize::Size2M })
                .await;
        }
        _ => _ = cpu.tdvmcall(0x10000 | b & 7, [a, b >> 8, a >> 8, b]).await,
    }
}

async fn on_the_machine(cpu: &Cpu, [act, a, b]: [u64; 3]) {
    let gpa = Gpa(a & 0xffff);
    let low = |word: u64| u32::try_from(word & 0xffff_ffff).unwrap_or(0);
    let [size, ..] = a.to_le_bytes();
    match act & 15 {
        0 => _ = cpu.vmmcall(a & 15, [b, a, b, 0]).await,
        1 => _ = cpu.port_out(0x3f8, size, 7).await,
        2 => _ = cpu.port_in(0x60, size).await,
        3 => _ = cpu.port_out_string(0x3f8, size & 7, gpa, low(b & 0xffff)).await,
        4 => _ = cpu.port_in_string(0x60, size & 7, gpa, low(b & 0xffff)).await,
        5 => _ = cpu.psci(low(a), [b, 0, 0]).await,
        6 => _ = cpu.hyperv_write(0x4000_0100 + low(a & 7), b).await,
        7 => _ = cpu.rdmsr(low(a)).await,
        8 => _ = cpu.wrmsr(if act & 0x100 == 0 { low(a) } else { 0x830 }, b).await,
        9 => _ = cpu.cpuid(low(a), low(b)).await,
        10 => _ = cpu.sbi_call(a & 0xffff_ffff, b & 7, [b, a, b, a, b, a]).await,
        11 => {
            let intercepts = Intercepts { exceptions: low(b), shutdown: a & 1 != 0, ..Intercepts::default() };
            _ = cpu.enter_l2(gpa, intercepts).await;
        }
        12 => _ = cpu.exit_l2().await,
        13 => _ = cpu.write_cr4(b).await,
        14 => cpu.triple_fault().await,
        _ => cpu.hlt().await,
    }
}

/// A request by page whose exit code and valid bits the input decides.
async fn request(cpu: &Cpu, code: u64, info: u64) {
    let ghcb = Gpa(0x1000);
    let code = 0x8000_0000 | code & 0x1f | code & 0xff00;
    for (field, value) in [
        (page::SW_EXIT_CODE, code),
        (page::SW_EXIT_INFO_1, info & 0x7000),
        (page::SW_EXIT_INFO_2, info >> 16 & 0x7000),
        (page::SW_SCRATCH, 0x1800 + (info >> 32 & 0x7ff)),
    ] {
        let _ = cpu.write(field.at(ghcb), &value.to_le_bytes(), Access::Shared).await;
    }
    let bitmap = Gpa(ghcb.0 + page::VALID_BITMAP);
    let _ = cpu.write(bitmap, &[0xff; 16], Access::Shared).await;
    let _ = cpu.vmgexit(ghcb.0).await;
}
