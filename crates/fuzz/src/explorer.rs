//! Any guest on the model, under any VMM: every `KVM_RUN` returns, and nothing panics.

use crate::decoders::{Words64, kernel};
use exeunt_abi::ghcb::msr::REGISTER_GPA_REQUEST;
use exeunt_abi::ghcb::page;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gpa};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Firmware, Kvm, Slot, Vm};
use exeunt_proto::exit::decode;
use exeunt_proto::host::{Events, Vcpu};

/// Memory of the guest in bytes: few pages, so that accesses meet.
const MEMORY: u64 = 0x8000;
/// Acts of the guest and moves of the VMM, at most.
const ACTS: usize = 64;

pub(crate) fn explore(data: &[u8]) {
    let mut words = Words64(data);
    let setup = words.next();
    let kernel = kernel(setup);
    let types = [VmType::Default, VmType::SwProtected, VmType::SevEs, VmType::Snp];
    let vm_type = types[usize::try_from(setup >> 8 & 3).unwrap_or(0)];
    let Ok(vm) = Kvm::new(kernel).create_vm(vm_type) else { return };
    if set_up(&vm, vm_type, setup).is_err() {
        return;
    }
    let acts: Vec<[u64; 3]> = (0..ACTS).map(|_| [words.next(), words.next(), words.next()]).collect();
    let Ok(mut vcpu) = vm.create_vcpu(setup, move |cpu| guest(cpu, acts)) else { return };
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
    if vm_type.has_protected_state() {
        vm.sev_init2(0)?;
        vm.launch()?;
    }
    // Both may be missing from the kernel.
    let _ = vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << 12);
    if setup & 1 << 16 != 0 {
        let _ = vm.snp_enable_req_certs();
    }
    Ok(())
}

/// Exceptions do not stop this guest.
async fn guest(cpu: Cpu, acts: Vec<[u64; 3]>) -> Result<(), GuestFault> {
    let _ = cpu.vmgexit(0x1000 | REGISTER_GPA_REQUEST).await;
    for [act, a, b] in acts {
        let gpa = Gpa(a & 0xffff);
        let access = if act & 0x80 == 0 { Access::Shared } else { Access::Private };
        match act & 15 {
            0 => _ = cpu.read(gpa, usize::from(b.to_le_bytes()[0]), access).await,
            1..=5 => _ = cpu.write(gpa, &b.to_le_bytes(), access).await,
            6 => _ = cpu.pvalidate(gpa, b & 1 == 0).await,
            7 => _ = cpu.vmgexit(a).await,
            8 | 9 => request(&cpu, a, b).await,
            10 => _ = cpu.vmmcall(a & 15, [b, a, b, 0]).await,
            11 => _ = cpu.port_out(0x3f8, a.to_le_bytes()[0], 7).await,
            12 => _ = cpu.port_in(0x60, a.to_le_bytes()[0]).await,
            13 => _ = cpu.psci(u32::try_from(a & 0xffff_ffff).unwrap_or(0), [b, 0, 0]).await,
            14 => _ = cpu.hyperv_reset().await,
            _ => cpu.hlt().await,
        }
    }
    Ok(())
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
