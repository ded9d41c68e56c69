//! `KVM_PRE_FAULT_MEMORY`.

use crate::world::{MEMORY_BYTES, kernel, launched, new_vm, reason, snp};
use exeunt_abi::kvm::memory::{MEMORY_ATTRIBUTE_PRIVATE, PreFaultMemory};
use exeunt_abi::kvm::run::{ExitReason, MEMORY_EXIT_FLAG_PRIVATE, MemoryFault};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::rmp::State;
use exeunt_abi::{Dialect, Errno, Gpa, PAGE_SIZE};
use exeunt_model::guest::Cpu;
use exeunt_model::{Fault, FaultPlan, Kvm, Point, Protection, Slot, SparseMemory, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;
use std::sync::Arc;

const PRIVATE: u64 = MEMORY_ATTRIBUTE_PRIVATE;

fn vcpu_of(vm: &Vm) -> Vcpu {
    vm.create_vcpu(0, |cpu: Cpu| async move {
        cpu.hlt().await;
        Ok(())
    })
    .unwrap()
}

fn range(gpa: u64, size: u64) -> PreFaultMemory {
    // Padding is not looked at.
    PreFaultMemory { gpa, size, flags: 0, padding: [u64::MAX; 5] }
}

/// The result, and where the range stands then.
fn pre_fault(vcpu: &mut Vcpu, gpa: u64, size: u64) -> (Result<(), Errno>, u64, u64) {
    let mut range = range(gpa, size);
    let result = vcpu.pre_fault_memory(&mut range);
    (result, range.gpa, range.size)
}

#[test]
fn private_pages_are_there_and_assigned_and_the_guest_has_to_validate_them() {
    let vm = snp();
    let file = vm.slots()[0].guest_memfd.unwrap().0;
    vm.set_memory_attributes(Gpa(0x4000), 0x3000, PRIVATE).unwrap();
    let mut vcpu = vcpu_of(&vm);
    assert_eq!(pre_fault(&mut vcpu, 0x2000, 0x8000), (Ok(()), 0xa000, 0));
    assert_eq!(vm.present_pages(file), 3);
    for gfn in 0..16 {
        let expected = if (4..7).contains(&gfn) { State::GuestInvalid } else { State::Hypervisor };
        assert_eq!(vm.rmp_entry(exeunt_abi::Gfn(gfn)).state(), expected, "{gfn}");
    }
    assert_eq!(vm.check_invariants(), Ok(()));
}

#[test]
fn a_range_that_is_no_range_is_refused() {
    let mut vcpu = vcpu_of(&snp());
    for (gpa, size) in [(1, 0x1000), (0, 0x1001), (0, 0), (!0xfff, 0x1000), (0x1000, !0xfff)] {
        assert_eq!(pre_fault(&mut vcpu, gpa, size), (Err(Errno::EINVAL), gpa, size), "{gpa:#x} {size:#x}");
    }
    for bit in 0..64 {
        let mut flagged = PreFaultMemory { flags: 1 << bit, ..range(0, 0x1000) };
        assert_eq!(vcpu.pre_fault_memory(&mut flagged), Err(Errno::EINVAL), "flag {bit}");
    }
}

#[test]
fn a_guest_with_private_memory_is_launched_first() {
    for (vm_type, expected) in [
        (VmType::Snp, Err(Errno::EOPNOTSUPP)),
        (VmType::SevEs, Ok(())),
        (VmType::SwProtected, Ok(())),
        (VmType::Default, Ok(())),
    ] {
        let vm = new_vm(kernel(Dialect::Linux7_2), vm_type);
        assert_eq!(pre_fault(&mut vcpu_of(&vm), 0, 0x1000).0, expected, "{vm_type:?}");
    }
    assert_eq!(pre_fault(&mut vcpu_of(&snp()), 0, 0x1000).0, Ok(()));
    let old = launched(Dialect::Linux6_1, VmType::Default);
    assert_eq!(pre_fault(&mut vcpu_of(&old), 0, 0x1000).0, Err(Errno::ENOTTY));
}

#[test]
fn what_stops_it_is_an_error_only_if_nothing_was_done() {
    let vm = snp();
    let mut vcpu = vcpu_of(&vm);
    let end = MEMORY_BYTES;
    assert_eq!(pre_fault(&mut vcpu, end - 0x2000, 0x5000), (Ok(()), end, 0x3000));
    assert_eq!(pre_fault(&mut vcpu, end, 0x3000), (Err(Errno::ENOENT), end, 0x3000));
    for (fault, errno) in [
        (Fault::Signal, Errno::EINTR),
        (Fault::Fails(Errno::EAGAIN), Errno::EAGAIN),
        (Fault::Fails(Errno::ENOMEM), Errno::ENOMEM),
    ] {
        vm.set_fault_plan(FaultPlan::new().with(Point::PreFault, 2, fault).with(Point::PreFault, 3, fault));
        assert_eq!(pre_fault(&mut vcpu, 0, 0x8000), (Ok(()), 0x2000, 0x6000));
        assert_eq!(pre_fault(&mut vcpu, 0x2000, 0x6000), (Err(errno), 0x2000, 0x6000));
        assert_eq!(pre_fault(&mut vcpu, 0x2000, 0x6000), (Ok(()), 0x8000, 0));
    }
}

#[test]
fn a_private_page_that_fails_is_written_into_the_run_page() {
    let vm = snp();
    vm.set_memory_attributes(Gpa(0x4000), 0x4000, PRIVATE).unwrap();
    vm.poison_guest_memfd(vm.slots()[0].guest_memfd.unwrap().0, 0x6000);
    let mut vcpu = vcpu_of(&vm);
    assert_eq!(pre_fault(&mut vcpu, 0x4000, 0x4000), (Ok(()), 0x6000, 0x2000));
    assert_eq!(pre_fault(&mut vcpu, 0x6000, 0x2000), (Err(Errno::EHWPOISON), 0x6000, 0x2000));
    assert_eq!(reason(&vcpu), ExitReason::MEMORY_FAULT);
    let fault: MemoryFault = vcpu.page().payload();
    assert_eq!(fault, MemoryFault { flags: MEMORY_EXIT_FLAG_PRIVATE, gpa: 0x6000, size: PAGE_SIZE });
    let bare = 2 * MEMORY_BYTES;
    vm.add_slot(Slot::shared(1, Gpa(bare), PAGE_SIZE).unwrap()).unwrap();
    vm.set_memory_attributes(Gpa(bare), 2 * PAGE_SIZE, PRIVATE).unwrap();
    for gpa in [bare, bare + PAGE_SIZE] {
        assert_eq!(pre_fault(&mut vcpu, gpa, PAGE_SIZE).0, Err(Errno::EFAULT), "no file, no slot");
    }
}

#[test]
fn shared_memory_that_the_process_does_not_map_fails() {
    let process = Arc::new(SparseMemory::new());
    let user: Arc<SparseMemory> = Arc::clone(&process);
    let vm = Kvm::default().create_vm_in(VmType::Default, user).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), 0x4000).unwrap().with_userspace_addr(0x10_0000)).unwrap();
    process.protect(0x10_2000, Protection::None);
    let mut vcpu = vcpu_of(&vm);
    assert_eq!(pre_fault(&mut vcpu, 0, 0x4000), (Ok(()), 0x2000, 0x2000));
    assert_eq!(pre_fault(&mut vcpu, 0x2000, 0x2000), (Err(Errno::EFAULT), 0x2000, 0x2000));
    assert_eq!(reason(&vcpu), ExitReason::UNKNOWN);
    process.protect(0x10_2000, Protection::ReadOnly);
    assert_eq!(pre_fault(&mut vcpu, 0x2000, 0x2000), (Ok(()), 0x4000, 0));
}
