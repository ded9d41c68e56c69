//! Commands of a VMM that follows no rules: any number, any bytes, in any order.

use crate::snp_world::psp;
use crate::world::kernel;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::sev::platform::SevIssueCmd;
use exeunt_abi::kvm::sev::{SevCmd, id};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::launch::SevHost;
use exeunt_model::{Kvm, Rng, Slot, Vm};
use zerocopy::IntoBytes as _;

const ARG: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;

/// A number that is often one that means something.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(24) {
        // No length of more than 64 KiB comes from this, for the time that it would take.
        0 => rng.next_u64() & 0xffff_ffff_0000_ffff,
        1 => 0xffff_ffff_0000_f000,
        2..6 => 0,
        6..10 => DATA + rng.below(0x4000),
        10..14 => rng.below(16) * 0x1000,
        14..18 => rng.below(5000),
        18..20 => 0x3_0000 | rng.below(4),
        _ => rng.below(8),
    }
}

fn scribble(vm: &Vm, rng: &mut Rng) {
    let words: Vec<u8> = (0..12).flat_map(|_| number(rng).to_le_bytes()).collect();
    vm.user_memory().write(DATA, &words).unwrap();
}

/// What a VMM that follows the rules would pass, more or less.
fn sensible(vm: &Vm, rng: &mut Rng, id: u32) {
    let page = DATA + 0x1000;
    let words: [u64; 3] = match id {
        id::LAUNCH_UPDATE_DATA => [page, 64, 0],
        id::LAUNCH_MEASURE => [page, 48, 0],
        id::DBG_DECRYPT | id::DBG_ENCRYPT => [page, page + 0x800, 100],
        id::SNP_LAUNCH_START => [0x3_0000, 0, 0],
        id::SNP_LAUNCH_UPDATE => [rng.below(0x100), page, 0x1000 * (1 + rng.below(3))],
        _ => [0; 3],
    };
    let mut bytes = [0; 96];
    bytes[..24].copy_from_slice(words.as_bytes());
    if id == id::SNP_LAUNCH_UPDATE {
        bytes[24] = [1, 3, 4, 5][usize::try_from(rng.below(4)).unwrap()];
    }
    vm.user_memory().write(DATA, &bytes).unwrap();
}

fn new(vm_type: VmType, seed: u64) -> Vm {
    let vm = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(vm_type).unwrap();
    if vm_type == VmType::Snp {
        let file = vm.create_guest_memfd(0x10_0000).unwrap();
        vm.add_slot(Slot::shared(0, Gpa(0), 0x10_0000).unwrap().with_guest_memfd(file, 0)).unwrap();
        vm.set_memory_attributes(Gpa(0), 0x10_0000, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    }
    vm.set_sev_host(SevHost::new(psp(seed))).unwrap();
    vm
}

#[test]
fn any_commands_in_any_order_end_with_a_number_of_the_kernel() {
    let known = [
        Errno::EPERM,
        Errno::EINTR,
        Errno::EIO,
        Errno::EBADF,
        Errno::ENOMEM,
        Errno::EFAULT,
        Errno::EBUSY,
        Errno::EEXIST,
        Errno::EINVAL,
        Errno::ENOTTY,
    ];
    let types = [VmType::Default, VmType::SevEs, VmType::Snp];
    let mut succeeded = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let vm_type = types[usize::try_from(seed % 3).unwrap()];
        let vm = new(vm_type, seed);
        for step in 0..60 {
            let id = match rng.below(10) {
                0 => u32::try_from(rng.below(200)).unwrap(),
                1..=3 => 100 + u32::try_from(rng.below(5)).unwrap(),
                _ => u32::try_from(rng.below(24)).unwrap(),
            };
            if rng.below(12) == 0 {
                let _ = vm.create_vcpu(0, |_| async { Ok(()) });
            }
            // Now and then the VM is made a guest, or nothing of what follows would get far.
            let id =
                if step == 2 { if vm_type == VmType::Default { id::ES_INIT } else { id::INIT2 } } else { id };
            if step == 2 || rng.below(2) == 0 {
                sensible(&vm, &mut rng, id);
            } else {
                scribble(&vm, &mut rng);
            }
            let sev_fd = if rng.below(10) == 0 { 3 } else { SevHost::FILE };
            let cmd = SevCmd { id, pad0: 0, data: DATA, error: 0, sev_fd };
            vm.user_memory().write(ARG, cmd.as_bytes()).unwrap();
            match vm.memory_encrypt_op(ARG) {
                Ok(()) => {
                    succeeded.insert(id);
                }
                Err(errno) => {
                    assert!(known.contains(&errno), "seed {seed}, step {step}, command {id}: {errno}");
                }
            }
        }
    }
    assert!(succeeded.len() > 12, "the walk gets somewhere: {succeeded:?}");
}

#[test]
fn any_platform_command_ends_with_a_number_of_the_driver() {
    let known = [Errno::EPERM, Errno::EIO, Errno::ENOMEM, Errno::EFAULT, Errno::EBUSY, Errno::EINVAL];
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let vm = new(VmType::Snp, seed);
        let host = vm.sev_host();
        host.open(3, false);
        for step in 0..100 {
            scribble(&vm, &mut rng);
            let cmd = SevIssueCmd {
                cmd: u32::try_from(rng.below(16)).unwrap().into(),
                data: if rng.below(10) == 0 { number(&mut rng) } else { DATA }.into(),
                error: 0.into(),
            };
            vm.user_memory().write(ARG, cmd.as_bytes()).unwrap();
            let file = if rng.below(4) == 0 { 3 } else { SevHost::FILE };
            if let Err(errno) = host.issue_cmd(file, ARG, vm.user_memory().as_ref()) {
                assert!(known.contains(&errno), "seed {seed}, step {step}, command {}: {errno}", cmd.cmd);
            }
        }
    }
}
