//! `guest_memfd`: how it is made, filled, emptied and closed.

use super::{assert_fault, convert};
use crate::world::{DATA, kernel, launched, reason, run_to_halt, snp};
use exeunt_abi::kvm::memory::{
    CreateGuestMemfd, GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, MEMORY_ATTRIBUTE_PRIVATE,
};
use exeunt_abi::kvm::run::{ExitReason, MEMORY_EXIT_FLAG_PRIVATE};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa, PAGE_SIZE};
use exeunt_model::falloc::{KEEP_SIZE, PUNCH_HOLE};
use exeunt_model::guest::{Access, Cpu};
use exeunt_model::{Fault, FaultPlan, GuestMemfd, Kvm, Point, Slot, Vm};
use exeunt_proto::host::Vcpu as _;

const MMAP: u64 = GUEST_MEMFD_FLAG_MMAP;
const SHARED: u64 = GUEST_MEMFD_FLAG_INIT_SHARED;

fn create(vm: &Vm, size: u64, flags: u64) -> Result<GuestMemfd, Errno> {
    // What is reserved is not looked at.
    vm.create_guest_memfd_with(&CreateGuestMemfd { size, flags, reserved: [u64::MAX; 6] })
}

#[test]
fn each_kind_of_vm_has_the_flags_of_its_release() {
    for (dialect, vm_type, none, mmap, shared) in [
        (Dialect::Linux7_2, VmType::Default, true, true, true),
        (Dialect::Linux7_2, VmType::SevEs, true, true, true),
        (Dialect::Linux7_2, VmType::SwProtected, true, true, false),
        (Dialect::Linux7_2, VmType::Snp, true, true, false),
        // No slot of an ordinary VM takes it.
        (Dialect::Linux6_12, VmType::Default, true, false, false),
        (Dialect::Linux6_12, VmType::SwProtected, true, false, false),
        (Dialect::Linux6_12, VmType::Snp, true, false, false),
        (Dialect::Linux6_1, VmType::Default, false, false, false),
    ] {
        let vm = Kvm::new(kernel(dialect)).create_vm(vm_type).unwrap();
        for flags in [0, MMAP, SHARED, MMAP | SHARED, 4, 1 << 63] {
            let expected = match flags {
                0 => none,
                MMAP => none && mmap,
                flags if flags & !(MMAP | SHARED) == 0 => shared,
                _ => false,
            };
            let got = create(&vm, PAGE_SIZE, flags);
            assert_eq!(got.is_ok(), expected, "{dialect} {vm_type:?} {flags:#x}");
            if !expected {
                assert_eq!(got, Err(Errno::EINVAL));
            }
        }
    }
}

#[test]
fn a_size_is_positive_when_signed_and_made_of_pages() {
    let vm = snp();
    for size in [0, 1, 0x1001, 1 << 63, u64::MAX, !0xfff] {
        assert_eq!(create(&vm, size, 0), Err(Errno::EINVAL), "{size:#x}");
    }
    for size in [PAGE_SIZE, (1 << 63) - PAGE_SIZE] {
        assert!(create(&vm, size, 0).is_ok(), "{size:#x}");
    }
}

#[test]
fn fallocate_is_refused_as_the_kernel_refuses_it() {
    let vm = snp();
    let file = create(&vm, 0x8000, 0).unwrap();
    let hole = KEEP_SIZE | PUNCH_HOLE;
    for (mode, offset, len, expected) in [
        (KEEP_SIZE, 0, 0x8000, Ok(())),
        (hole, 0, 0x8000, Ok(())),
        (hole, 0x10_0000, 0x1000, Ok(())),
        (KEEP_SIZE, 0x8000, 0x1000, Err(Errno::EINVAL)),
        (KEEP_SIZE, 0x1000, 0x8000, Err(Errno::EINVAL)),
        (0, 0, 0x1000, Err(Errno::EOPNOTSUPP)),
        (PUNCH_HOLE, 0, 0x1000, Err(Errno::EOPNOTSUPP)),
        (KEEP_SIZE | 0x10, 0, 0x1000, Err(Errno::EOPNOTSUPP)),
        (hole | 0x40, 0, 0x1000, Err(Errno::EOPNOTSUPP)),
        (hole, 1, 0x1000, Err(Errno::EINVAL)),
        (hole, 0, 0x1001, Err(Errno::EINVAL)),
        (hole, 0, 0, Err(Errno::EINVAL)),
        (hole, -0x1000, 0x1000, Err(Errno::EINVAL)),
        (hole, 0, -0x1000, Err(Errno::EINVAL)),
        (hole, i64::MAX - 0xfff, 0x1000, Err(Errno::EFBIG)),
        (0, i64::MAX - 0xfff, 0x1000, Err(Errno::EFBIG)),
    ] {
        assert_eq!(vm.fallocate(file, mode, offset, len), expected, "{mode:#x} {offset:#x} {len:#x}");
    }
    let other = snp();
    assert_eq!(other.fallocate(file, hole, 0, 0x1000), Err(Errno::EBADF));
    vm.close_guest_memfd(file);
    assert_eq!(vm.fallocate(file, hole, 0, 0x1000), Err(Errno::EBADF));
}

#[test]
fn pages_are_made_ahead_and_freed_one_by_one() {
    let vm = snp();
    let file = create(&vm, 0x8000, 0).unwrap();
    vm.fallocate(file, KEEP_SIZE, 0x1000, 0x4000).unwrap();
    assert_eq!(vm.present_pages(file), 4);
    vm.fallocate(file, KEEP_SIZE | PUNCH_HOLE, 0x2000, 0x1000).unwrap();
    assert_eq!(vm.present_pages(file), 3);
    // An allocation that fails part way keeps what it made.
    for errno in [Errno::EINTR, Errno::ENOMEM] {
        vm.fallocate(file, KEEP_SIZE | PUNCH_HOLE, 0, 0x8000).unwrap();
        vm.set_fault_plan(FaultPlan::new().with(Point::GmemPage, 3, Fault::Fails(errno)));
        assert_eq!(vm.fallocate(file, KEEP_SIZE, 0, 0x8000), Err(errno));
        assert_eq!(vm.present_pages(file), 3);
        assert_eq!(vm.fallocate(file, KEEP_SIZE, 0, 0x8000), Ok(()));
        assert_eq!(vm.present_pages(file), 8);
    }
    assert_eq!(vm.check_invariants(), Ok(()));
}

#[test]
fn a_huge_file_is_filled_and_emptied_at_once() {
    let vm = snp();
    let bytes = (1 << 62) - PAGE_SIZE;
    let file = create(&vm, bytes, 0).unwrap();
    let len = i64::try_from(bytes).unwrap();
    for _ in 0..100 {
        vm.fallocate(file, KEEP_SIZE, 0, len).unwrap();
        assert_eq!(vm.present_pages(file) as u64, bytes / PAGE_SIZE);
        vm.fallocate(file, KEEP_SIZE | PUNCH_HOLE, 0, len).unwrap();
        assert_eq!(vm.present_pages(file), 0);
    }
    // A plan counts pages, so that a signal ends what would take too long.
    vm.set_fault_plan(FaultPlan::new());
    assert_eq!(vm.fallocate(file, KEEP_SIZE, 0, len), Err(Errno::EINTR));
}

#[test]
fn a_private_page_of_a_closed_file_faults_for_ever() {
    let vm = snp();
    let file = vm.slots()[0].guest_memfd.unwrap().0;
    convert(&vm, MEMORY_ATTRIBUTE_PRIVATE);
    let program = |cpu: Cpu| async move {
        cpu.pvalidate(DATA, true).await?;
        cpu.hlt().await;
        cpu.write(DATA, &[1], Access::Private).await
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    run_to_halt(&mut vcpu);
    assert_eq!(vm.present_pages(file), 1);
    vm.close_guest_memfd(file);
    for _ in 0..3 {
        assert_fault(&mut vcpu, DATA, MEMORY_EXIT_FLAG_PRIVATE);
        assert_eq!(vm.check_invariants(), Ok(()));
    }
    assert_eq!(vm.guest_memfd_bytes(file), None);
    assert_eq!(vm.delete_slot(0), Ok(()), "the slot can be deleted still");
    assert_fault(&mut vcpu, DATA, MEMORY_EXIT_FLAG_PRIVATE);
}

/// An ordinary VM whose memory is a file that can be mapped.
fn mapped(flags: u64) -> (Vm, GuestMemfd) {
    let vm = Kvm::default().create_vm(VmType::Default).unwrap();
    let file = create(&vm, 0x10_0000, flags).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), 0x10_0000).unwrap().with_guest_memfd(file, 0)).unwrap();
    (vm, file)
}

#[test]
fn an_ordinary_vm_in_a_file_that_can_be_mapped_shares_it_with_its_vmm() {
    let (vm, file) = mapped(MMAP | SHARED);
    vm.write_shared(Gpa(0x5000), b"host").unwrap();
    let program = |cpu: Cpu| async move {
        assert_eq!(cpu.read(Gpa(0x5000), 4, Access::Shared).await?, b"host");
        cpu.write(Gpa(0x6000), b"guest", Access::Shared).await?;
        cpu.hlt().await;
        cpu.read_u64(Gpa(0x5000), Access::Shared).await.map(|_| ())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    run_to_halt(&mut vcpu);
    let mut got = [0; 5];
    vm.read_shared(Gpa(0x6000), &mut got).unwrap();
    assert_eq!((&got, vm.present_pages(file)), (b"guest", 2));

    // What a stock kernel shows of memory faults: the descriptor is closed and the guest reads.
    vm.close_guest_memfd(file);
    for _ in 0..2 {
        assert_fault(&mut vcpu, Gpa(0x5000), 0);
    }
    assert_eq!(vm.read_shared(Gpa(0x6000), &mut got), Err(Errno::EFAULT));
}

#[test]
fn a_file_that_is_not_shared_is_the_guests_and_not_the_hosts() {
    for flags in [MMAP, 0] {
        let (vm, file) = mapped(flags);
        let program = |cpu: Cpu| async move { cpu.write(Gpa(0x6000), b"guest", Access::Shared).await };
        run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
        let mut got = [1; 5];
        if flags == MMAP {
            assert_eq!(vm.read_shared(Gpa(0x6000), &mut got), Err(Errno::EFAULT), "the mapping is SIGBUS");
            assert_eq!(vm.write_shared(Gpa(0x6000), b"host"), Err(Errno::EFAULT));
            assert_eq!(vm.present_pages(file), 1);
        } else {
            // Nothing is private here, so the guest uses the process's memory and the file stays empty.
            vm.read_shared(Gpa(0x6000), &mut got).unwrap();
            assert_eq!((&got, vm.present_pages(file)), (b"guest", 0));
        }
    }
}

#[test]
fn software_protected_memory_is_the_files_where_the_attribute_is_private() {
    let vm = launched(Dialect::Linux7_2, VmType::SwProtected);
    let file = vm.slots()[0].guest_memfd.unwrap().0;
    vm.write_shared(DATA, b"shared!").unwrap();
    let program = |cpu: Cpu| async move {
        for content in [b"shared!", b"private", b"shared!", b"private"] {
            // Such a guest has no C-bit: both kinds of access are the same.
            for access in [Access::Shared, Access::Private] {
                let got = cpu.read(DATA, 7, access).await?;
                assert!(got == content || got == [0; 7], "{got:?}");
                cpu.write(DATA, content, access).await?;
            }
            cpu.hlt().await;
        }
        assert!(cpu.pvalidate(DATA, true).await.is_err(), "there is no reverse map");
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    for attributes in [0, MEMORY_ATTRIBUTE_PRIVATE, 0, MEMORY_ATTRIBUTE_PRIVATE, 0] {
        convert(&vm, attributes);
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::HLT);
        let mut got = [0; 7];
        vm.read_shared(DATA, &mut got).unwrap();
        assert_eq!(&got, b"shared!");
        assert_eq!(vm.check_invariants(), Ok(()));
    }
    assert_eq!(vm.present_pages(file), 1);
}
