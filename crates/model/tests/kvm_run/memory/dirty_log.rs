//! `KVM_GET_DIRTY_LOG` and `KVM_CLEAR_DIRTY_LOG`.

use crate::world::{GHCB, launched, run_to_halt, snp};
use exeunt_abi::ghcb::exit_code;
use exeunt_abi::kvm::memory::MEM_LOG_DIRTY_PAGES;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa, PAGE_SIZE};
use exeunt_model::guest::{Access, Cpu};
use exeunt_model::{DirtyLog, Kvm, Slot, Vm};

const BASE: u64 = 0x100_0000;
const PAGES: u64 = 200;

fn logged() -> Vm {
    let vm = Kvm::default().create_vm(VmType::Default).unwrap();
    let slot = Slot::shared(3, Gpa(BASE), PAGES * PAGE_SIZE).unwrap();
    vm.add_slot(slot.with_flags(MEM_LOG_DIRTY_PAGES)).unwrap();
    vm
}

/// A guest that writes the first byte of each of these pages.
fn write_pages(vm: &Vm, pages: &'static [u64]) {
    let program = move |cpu: Cpu| async move {
        for page in pages {
            cpu.write(Gpa(BASE + page * PAGE_SIZE), &[1], Access::Shared).await?;
        }
        Ok(())
    };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
}

fn pages_of(log: &DirtyLog) -> Vec<u64> {
    let words = log.words().enumerate();
    let pages: Vec<u64> = words
        .flat_map(|(at, word)| {
            (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| at as u64 * 64 + bit)
        })
        .collect();
    assert_eq!(pages.len() as u64, log.dirty_pages());
    pages
}

#[test]
fn pages_that_the_guest_wrote_are_dirty_until_they_are_asked_for() {
    let vm = logged();
    write_pages(&vm, &[0, 1, 63, 64, 127, 199, 1]);
    let log = vm.get_dirty_log(3).unwrap();
    assert_eq!(pages_of(&log), [0, 1, 63, 64, 127, 199]);
    assert_eq!((log.bytes(), log.words().count()), (32, 4));
    assert_eq!(pages_of(&vm.get_dirty_log(3).unwrap()), []);
    write_pages(&vm, &[5]);
    assert_eq!(pages_of(&vm.get_dirty_log(3).unwrap()), [5]);
}

#[test]
fn what_the_vmm_writes_and_the_guest_reads_is_not_dirty() {
    let vm = logged();
    vm.write_shared(Gpa(BASE), &[1; 5000]).unwrap();
    let program = |cpu: Cpu| async move { cpu.read(Gpa(BASE), 5000, Access::Shared).await.map(|_| ()) };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
    assert_eq!(vm.get_dirty_log(3).unwrap().dirty_pages(), 0);
}

#[test]
fn what_kvm_writes_for_the_guest_is_dirty() {
    let vm = launched(Dialect::Linux7_2, VmType::SevEs);
    vm.delete_slot(0).unwrap();
    let slot = Slot::shared(0, Gpa(0), 0x40_0000).unwrap().with_flags(MEM_LOG_DIRTY_PAGES);
    vm.add_slot(slot).unwrap();
    // The VMM puts the request there, so that what is dirty is the answer.
    let request = |field: u64, value: &[u8]| vm.write_shared(Gpa(GHCB.0 + field), value).unwrap();
    request(0x390, &exit_code::HV_FEATURES.to_le_bytes());
    request(0x3f0, &u128::MAX.to_le_bytes());
    let program = |cpu: Cpu| async move { cpu.vmgexit(GHCB.0).await.map(|_| ()) };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
    assert_eq!(pages_of(&vm.get_dirty_log(0).unwrap()), [GHCB.gfn().0]);
}

#[test]
fn logs_protected_by_hand_stay_until_they_are_cleared() {
    let vm = Kvm::default().create_vm(VmType::Default).unwrap();
    vm.set_manual_dirty_log_protect(true, true);
    let slot = Slot::shared(3, Gpa(BASE), PAGES * PAGE_SIZE).unwrap();
    vm.add_slot(slot.with_flags(MEM_LOG_DIRTY_PAGES)).unwrap();
    for _ in 0..2 {
        assert_eq!(vm.get_dirty_log(3).unwrap().dirty_pages(), PAGES, "every page starts dirty");
    }
    assert_eq!(vm.clear_dirty_log(3, 0, 64, [u64::MAX]), Ok(()));
    assert_eq!(vm.clear_dirty_log(3, 64, 136, [0b101, 0, u64::MAX]), Ok(()));
    let log = vm.get_dirty_log(3).unwrap();
    let expected: Vec<u64> = (64..192).filter(|page| ![64, 66].contains(page)).collect();
    assert_eq!(pages_of(&log), expected);
}

#[test]
fn a_clear_begins_and_ends_at_words_or_at_the_end_of_the_slot() {
    let vm = logged();
    for (first, pages, expected) in [
        (0, 200, Ok(())),
        (0, 128, Ok(())),
        (192, 8, Ok(())),
        (64, 136, Ok(())),
        (0, 0, Ok(())),
        (1, 64, Err(Errno::EINVAL)),
        (0, 65, Err(Errno::EINVAL)),
        (0, 201, Err(Errno::EINVAL)),
        (192, 9, Err(Errno::EINVAL)),
        (256, 0, Err(Errno::EINVAL)),
        (!63, 64, Err(Errno::EINVAL)),
    ] {
        assert_eq!(vm.clear_dirty_log(3, first, pages, [0; 4]), expected, "{first} {pages}");
    }
}

#[test]
fn only_a_logged_slot_has_a_log() {
    let vm = logged();
    vm.add_slot(Slot::shared(4, Gpa(0), PAGE_SIZE).unwrap()).unwrap();
    for (slot, expected) in [
        (4, Errno::ENOENT),
        (5, Errno::ENOENT),
        (32763, Errno::ENOENT),
        (32764, Errno::EINVAL),
        (1 << 16 | 3, Errno::ENOENT),
        (2 << 16, Errno::EINVAL),
    ] {
        assert_eq!(vm.get_dirty_log(slot).map(|log| log.bytes()), Err(expected), "{slot}");
        assert_eq!(vm.clear_dirty_log(slot, 0, 64, [0]), Err(expected), "{slot}");
    }
    let off = Slot::shared(3, Gpa(BASE), PAGES * PAGE_SIZE).unwrap();
    write_pages(&vm, &[7]);
    let moved = Slot { range: Slot::shared(3, Gpa(2 * BASE), PAGES * PAGE_SIZE).unwrap().range, ..off };
    vm.add_slot(moved.with_flags(MEM_LOG_DIRTY_PAGES)).unwrap();
    assert_eq!(pages_of(&vm.get_dirty_log(3).unwrap()), [7], "a slot that moves keeps its log");
    vm.add_slot(moved).unwrap();
    assert_eq!(vm.get_dirty_log(3).map(|log| log.bytes()), Err(Errno::ENOENT), "the flag is off");
}

#[test]
fn private_memory_has_no_log() {
    let vm = snp();
    let file = vm.create_guest_memfd(PAGE_SIZE).unwrap();
    let slot = Slot::shared(9, Gpa(BASE), PAGE_SIZE).unwrap().with_guest_memfd(file, 0);
    assert_eq!(vm.add_slot(slot.with_flags(MEM_LOG_DIRTY_PAGES)), Err(Errno::EINVAL));
}
