//! `KVM_SET_USER_MEMORY_REGION` and `KVM_SET_USER_MEMORY_REGION2`.

use crate::world::{Seen, kernel, reason, run_to_halt};
use exeunt_abi::ghcb::msr::REGISTER_GPA_REQUEST;
use exeunt_abi::ghcb::psc::{self, Entry};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::{
    MEM_GUEST_MEMFD, MEM_LOG_DIRTY_PAGES, MEM_READONLY, UserspaceMemoryRegion, UserspaceMemoryRegion2,
};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Gpa, Kernel, PAGE_SIZE};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{GuestMemfd, Kvm, Protection, Slot, SparseMemory, UserMemory as _, Vm};
use exeunt_proto::host::Vcpu as _;
use std::sync::Arc;

const EINVAL: Result<(), Errno> = Err(Errno::EINVAL);
const EEXIST: Result<(), Errno> = Err(Errno::EEXIST);
const EBADF: Result<(), Errno> = Err(Errno::EBADF);

fn vm(dialect: Dialect, vm_type: VmType) -> Vm {
    Kvm::new(kernel(dialect)).create_vm(vm_type).unwrap()
}

fn plain() -> Vm {
    vm(Dialect::Linux7_2, VmType::Default)
}

fn region(slot: u32, gpa: u64, bytes: u64) -> UserspaceMemoryRegion {
    let userspace_addr = 0x7000_0000 + gpa;
    UserspaceMemoryRegion { slot, flags: 0, guest_phys_addr: gpa, memory_size: bytes, userspace_addr }
}

fn with_file(slot: u32, gpa: u64, bytes: u64, offset: u64) -> UserspaceMemoryRegion2 {
    UserspaceMemoryRegion2 {
        slot,
        flags: MEM_GUEST_MEMFD,
        guest_phys_addr: gpa,
        memory_size: bytes,
        userspace_addr: 0x7000_0000,
        guest_memfd_offset: offset,
        guest_memfd: 3,
        pad1: 0xffff_ffff,
        pad2: [u64::MAX; 14],
    }
}

fn set(vm: &Vm, region: UserspaceMemoryRegion) -> Result<(), Errno> {
    let result = vm.set_user_memory_region(&region);
    assert_eq!(vm.check_invariants(), Ok(()));
    result
}

/// The descriptor is that of `file`, or not open.
fn set2(vm: &Vm, region: UserspaceMemoryRegion2, file: Option<GuestMemfd>) -> Result<(), Errno> {
    let result = vm.set_user_memory_region2(&region, |fd| {
        assert_eq!(fd, region.guest_memfd);
        file.ok_or(Errno::EBADF)
    });
    assert_eq!(vm.check_invariants(), Ok(()));
    result
}

#[test]
fn what_is_not_aligned_wraps_or_is_too_large_is_refused() {
    let vm = plain();
    let good = region(0, 0x1000, 0x2000);
    for (why, bad) in [
        ("size", UserspaceMemoryRegion { memory_size: 0x2001, ..good }),
        ("address", UserspaceMemoryRegion { guest_phys_addr: 0x1800, ..good }),
        ("user address", UserspaceMemoryRegion { userspace_addr: 0x7000_0010, ..good }),
        ("kernel address", UserspaceMemoryRegion { userspace_addr: 1 << 63, ..good }),
        (
            "behind the last user address",
            UserspaceMemoryRegion { userspace_addr: (1 << 56) - 0x2000, ..good },
        ),
        ("user address wraps", UserspaceMemoryRegion { userspace_addr: !0xfff, ..good }),
        ("address wraps", UserspaceMemoryRegion { guest_phys_addr: !0xfff, ..good }),
        ("behind the last frame", UserspaceMemoryRegion { guest_phys_addr: (1 << 52) - 0x1000, ..good }),
        ("pages", UserspaceMemoryRegion { memory_size: 1 << 43, ..good }),
        ("nothing to delete", UserspaceMemoryRegion { memory_size: 0, ..good }),
    ] {
        assert_eq!(set(&vm, bad), EINVAL, "{why}");
    }
    let largest = UserspaceMemoryRegion { memory_size: (1 << 43) - 0x1000, guest_phys_addr: 0, ..good };
    assert_eq!(set(&vm, largest), Ok(()));
    let last = UserspaceMemoryRegion { slot: 1, guest_phys_addr: (1 << 52) - 0x2000, ..good };
    assert_eq!(set(&vm, last), Ok(()));
    let end =
        UserspaceMemoryRegion { slot: 2, userspace_addr: (1 << 56) - 0x3000, ..region(2, 1 << 50, 0x2000) };
    assert_eq!(set(&vm, end), Ok(()));
}

#[test]
fn numbers_up_to_32763_are_userspaces_on_x86_and_the_second_space_is_for_smm() {
    for (arch, vm_type, last, spaces) in [
        (Arch::X86, VmType::Default, 32763, 2),
        (Arch::X86, VmType::SevEs, 32763, 2),
        (Arch::X86, VmType::SwProtected, 32763, 1),
        (Arch::X86, VmType::Snp, 32763, 1),
        (Arch::Arm64, VmType::Default, 32766, 1),
    ] {
        let kernel = Kernel { arch, dialect: Dialect::Linux7_2 };
        let vm = Kvm::new(kernel).create_vm(vm_type).unwrap();
        for space in 0..4 {
            let expected = if space < spaces { Ok(()) } else { EINVAL };
            assert_eq!(set(&vm, region(space << 16, 0, 0x1000)), expected, "{vm_type:?} space {space}");
            assert_eq!(
                set(&vm, region(space << 16 | last, 0x1000, 0x1000)),
                expected,
                "{vm_type:?} space {space}"
            );
            assert_eq!(set(&vm, region(space << 16 | (last + 1), 0x2000, 0x1000)), EINVAL);
        }
        assert_eq!(vm.slots().len(), 2, "guests see the first space");
    }
}

#[test]
fn a_slot_is_created_moved_changed_and_deleted() {
    let vm = plain();
    let slot = region(5, 0x10_0000, 0x4000);
    assert_eq!(set(&vm, slot), Ok(()));
    assert_eq!(set(&vm, slot), Ok(()), "nothing to change");
    vm.write_shared(Gpa(0x10_0008), b"content").unwrap();
    let moved = UserspaceMemoryRegion { guest_phys_addr: 0x20_0000, ..slot };
    assert_eq!(set(&vm, moved), Ok(()));
    let mut got = [0; 7];
    assert_eq!(vm.read_shared(Gpa(0x10_0008), &mut got), Err(Errno::EFAULT));
    vm.read_shared(Gpa(0x20_0008), &mut got).unwrap();
    assert_eq!(&got, b"content", "the process's memory stays where it is");
    let logged = UserspaceMemoryRegion { flags: MEM_LOG_DIRTY_PAGES, ..moved };
    assert_eq!(set(&vm, logged), Ok(()));
    assert_eq!(vm.slots()[0].flags, MEM_LOG_DIRTY_PAGES);
    for (why, bad) in [
        (
            "user address",
            UserspaceMemoryRegion { userspace_addr: moved.userspace_addr + PAGE_SIZE, ..logged },
        ),
        ("size", UserspaceMemoryRegion { memory_size: 0x5000, ..logged }),
        ("read-only", UserspaceMemoryRegion { flags: MEM_READONLY | MEM_LOG_DIRTY_PAGES, ..logged }),
    ] {
        assert_eq!(set(&vm, bad), EINVAL, "{why}");
    }
    assert_eq!(set(&vm, region(5, 0, 0)), Ok(()));
    assert_eq!(set(&vm, region(5, 0, 0)), EINVAL, "it is gone");
    assert_eq!(vm.delete_slot(5), EINVAL);
    assert!(vm.slots().is_empty());
}

#[test]
fn frames_of_another_slot_cannot_be_had() {
    let vm = plain();
    set(&vm, region(0, 0x4000, 0x4000)).unwrap();
    for (gpa, bytes, expected) in [
        (0x1000, 0x3000, Ok(())),
        (0x1000, 0x4000, EEXIST),
        (0x5000, 0x1000, EEXIST),
        (0x7000, 0x4000, EEXIST),
        (0, 0x10000, EEXIST),
        (0x8000, 0x1000, Ok(())),
    ] {
        assert_eq!(set(&vm, region(1, gpa, bytes)), expected, "{gpa:#x}");
        if expected.is_ok() {
            vm.delete_slot(1).unwrap();
        }
    }
    set(&vm, region(1, 0xa000, 0x1000)).unwrap();
    let moved = UserspaceMemoryRegion { guest_phys_addr: 0x4000, ..region(1, 0xa000, 0x1000) };
    assert_eq!(set(&vm, moved), EEXIST);
    let beside_itself = UserspaceMemoryRegion { guest_phys_addr: 0x5000, ..region(0, 0x4000, 0x4000) };
    assert_eq!(set(&vm, beside_itself), Ok(()), "a move may overlap where the slot was");
}

#[test]
fn each_flag_has_the_vms_that_may_set_it() {
    let all = [MEM_LOG_DIRTY_PAGES, MEM_READONLY, MEM_GUEST_MEMFD, 1 << 3, 1 << 16, 1 << 31];
    for (dialect, vm_type, valid) in [
        (Dialect::Linux7_2, VmType::Default, &all[..3]),
        (Dialect::Linux7_2, VmType::SwProtected, &all[..3]),
        (Dialect::Linux7_2, VmType::SevEs, &[MEM_LOG_DIRTY_PAGES, MEM_GUEST_MEMFD]),
        (Dialect::Linux7_2, VmType::Snp, &[MEM_LOG_DIRTY_PAGES, MEM_GUEST_MEMFD]),
        (Dialect::Linux6_12, VmType::Default, &all[..2]),
        (Dialect::Linux6_12, VmType::SwProtected, &all[..3]),
        (Dialect::Linux6_12, VmType::SevEs, &all[..1]),
        (Dialect::Linux6_12, VmType::Snp, &[MEM_LOG_DIRTY_PAGES, MEM_GUEST_MEMFD]),
        (Dialect::Linux6_1, VmType::Default, &all[..2]),
        (Dialect::Linux6_1, VmType::SevEs, &all[..2]),
    ] {
        let vm = vm(dialect, vm_type);
        for flag in all {
            let what = format!("{dialect} {vm_type:?} {flag:#x}");
            let is_valid = valid.contains(&flag);
            let old = UserspaceMemoryRegion { flags: flag, ..region(1, 0, 0x1000) };
            let by_old = if is_valid && flag != MEM_GUEST_MEMFD { Ok(()) } else { EINVAL };
            assert_eq!(set(&vm, old), by_old, "{what}");
            _ = vm.delete_slot(1);
            if !dialect.has_private_memory() {
                assert_eq!(set2(&vm, with_file(1, 0, 0x1000, 0), None), Err(Errno::ENOTTY));
                continue;
            }
            // A descriptor that is not open is looked at last, so it shows that the flag was taken.
            let new = UserspaceMemoryRegion2 { flags: flag, ..with_file(1, 0, 0x1000, 0) };
            let by_new = match (is_valid, flag) {
                (true, MEM_GUEST_MEMFD) => EBADF,
                (true, _) => Ok(()),
                (false, _) => EINVAL,
            };
            assert_eq!(set2(&vm, new, None), by_new, "{what}");
            _ = vm.delete_slot(1);
            let both = UserspaceMemoryRegion2 { flags: flag | MEM_GUEST_MEMFD, ..new };
            if flag != MEM_GUEST_MEMFD {
                assert_eq!(set2(&vm, both, None), EINVAL, "{what} and a file");
            }
        }
    }
}

#[test]
fn the_descriptor_is_looked_up_last_and_for_new_slots_only() {
    let vm = vm(Dialect::Linux7_2, VmType::Snp);
    let file = vm.create_guest_memfd(0x10_0000).unwrap();
    assert_eq!(set2(&vm, with_file(0, 0, 0x1000, 0), Some(file)), Ok(()));
    assert_eq!(set2(&vm, with_file(1, 0, 0x1000, 0), None), EEXIST, "frames before the descriptor");
    assert_eq!(
        set2(&vm, with_file(1, 0x8000, 0x1000, 0x10_0000), None),
        EBADF,
        "the descriptor before its end"
    );
    assert_eq!(set2(&vm, with_file(0, 0x8000, 0x1000, 0), None), EINVAL, "a slot with a file never changes");
    let unchanged = with_file(0, 0, 0x1000, 0);
    assert_eq!(set2(&vm, unchanged, Some(file)), EINVAL, "not even into itself");
    let no_file = UserspaceMemoryRegion2 { flags: 0, ..unchanged };
    assert_eq!(set2(&vm, no_file, None), EINVAL);
    let deleted = UserspaceMemoryRegion2 { memory_size: 0, ..unchanged };
    assert_eq!(set2(&vm, deleted, None), Ok(()), "a deletion needs no descriptor");
    assert_eq!(set2(&vm, unchanged, Some(file)), Ok(()), "and frees the part of the file");
}

#[test]
fn a_part_of_a_file_is_bound_once_and_lies_inside_of_the_file() {
    for (dialect, overlap) in [(Dialect::Linux7_2, EEXIST), (Dialect::Linux6_12, EINVAL)] {
        let vm = vm(dialect, VmType::Snp);
        let file = vm.create_guest_memfd(0x8000).unwrap();
        set2(&vm, with_file(0, 0, 0x2000, 0x2000), Some(file)).unwrap();
        for (bytes, offset, expected) in [
            (0x2000, 0, Ok(())),
            (0x3000, 0, overlap),
            (0x1000, 0x3000, overlap),
            (0x2000, 0x3000, overlap),
            (0x4000, 0x4000, Ok(())),
            (0x5000, 0x4000, EINVAL),
            (0x1000, 0x8000, EINVAL),
            (0x1000, 0x4001, EINVAL),
            (0x2000, !0xfff, EINVAL),
        ] {
            let got = set2(&vm, with_file(1, 0x10_0000, bytes, offset), Some(file));
            assert_eq!(got, expected, "{dialect} {bytes:#x} at {offset:#x}");
            if got.is_ok() {
                vm.delete_slot(1).unwrap();
            }
        }
        let other_vm = Kvm::new(kernel(dialect)).create_vm(VmType::Snp).unwrap();
        let foreign = other_vm.create_guest_memfd(0x8000).unwrap();
        assert_eq!(set2(&vm, with_file(1, 0x10_0000, 0x1000, 0), Some(foreign)), EINVAL, "of another VM");
    }
}

#[test]
fn a_guest_finds_each_of_many_slots() {
    const SLOTS: u32 = 509;
    let vm = plain();
    for slot in 0..SLOTS {
        // In an order that is not that of the addresses.
        let gpa = u64::from(slot * 7 % SLOTS) * 0x4000;
        set(&vm, region(slot, gpa, 0x1000)).unwrap();
        vm.write_shared(Gpa(gpa), &slot.to_le_bytes()).unwrap();
    }
    let addresses: Vec<_> = vm.slots().iter().map(|slot| slot.range.gpa().0).collect();
    assert!(addresses.is_sorted());
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        for slot in 0..SLOTS {
            let gpa = u64::from(slot * 7 % SLOTS) * 0x4000;
            log.push(cpu.read_u64(Gpa(gpa), Access::Shared).await);
            cpu.read_u64(Gpa(gpa + 0x1000), Access::Shared).await?;
        }
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    for _ in 0..SLOTS {
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::MMIO, "beside a slot there is no memory");
    }
    run_to_halt(&mut vcpu);
    let expected: Vec<Result<u64, GuestFault>> = (0..SLOTS).map(|slot| Ok(u64::from(slot))).collect();
    assert_eq!(seen.take(), expected);
}

#[test]
fn a_ghcb_that_kvm_has_mapped_outlives_its_slot_and_its_page() {
    let ghcb = Gpa(0x1_0000_0000);
    let uaddr = 0x7f00_0000_0000;
    for unmaps in [false, true] {
        let process = Arc::new(SparseMemory::new());
        let user: Arc<SparseMemory> = Arc::clone(&process);
        let vm = Kvm::default().create_vm_in(VmType::Snp, user).unwrap();
        vm.add_slot(Slot::shared(1, ghcb, PAGE_SIZE).unwrap().with_userspace_addr(uaddr)).unwrap();
        vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << 12).unwrap();
        vm.sev_init2(0).unwrap();
        vm.launch().unwrap();
        let program = move |cpu: Cpu| async move {
            cpu.vmgexit(ghcb.0 | REGISTER_GPA_REQUEST).await?;
            let entries = [5, 9].map(|gfn| Entry::new(gfn, psc::operation::PRIVATE, false));
            let answer = Ghcb::at(ghcb).page_state_change(&cpu, &entries).await;
            assert_eq!(answer, Err(GuestFault::NoMemory { gpa: ghcb.0 }), "the guest's memory is gone");
            Ok(())
        };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::HYPERCALL);
        vm.delete_slot(1).unwrap();
        // The memory of the process behind the page has a new owner, or none.
        if unmaps {
            process.protect(uaddr, Protection::None);
        }
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), if unmaps { ExitReason::HLT } else { ExitReason::HYPERCALL });
        if !unmaps {
            assert_eq!(vcpu.enter(), Ok(()));
            assert_eq!(reason(&vcpu), ExitReason::HLT);
            let mut header = [0; 2];
            process.read(uaddr + 0x800, &mut header).unwrap();
            assert_eq!(header, [2, 0], "both entries are recorded in the page");
        }
        assert_eq!(vm.check_invariants(), Ok(()));
    }
}

#[test]
fn a_write_to_a_read_only_slot_reaches_no_memory() {
    let vm = plain();
    let slot = Slot::shared(0, Gpa(0), 0x2000).unwrap().with_flags(MEM_READONLY);
    vm.add_slot(slot).unwrap();
    vm.write_shared(Gpa(0x1000), b"rom").unwrap();
    let program = |cpu: Cpu| async move {
        assert_eq!(cpu.read(Gpa(0x1000), 3, Access::Shared).await?, b"rom");
        let _ = cpu.write(Gpa(0x1000), b"ram", Access::Shared).await;
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    let _ = vcpu.enter();
    let mut got = [0; 3];
    vm.read_shared(Gpa(0x1000), &mut got).unwrap();
    assert_eq!(&got, b"rom");
}
