//! `KVM_EXIT_MEMORY_FAULT`: each cause with its error number, and the failures that are none.

use super::convert;
use crate::world::{DATA, launched, reason, run_to_halt, snp};
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::{ExitReason, MEMORY_EXIT_FLAG_PRIVATE, MemoryFault, UNION_BYTES};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa, Kernel, PAGE_SIZE};
use exeunt_model::guest::{Access, Cpu};
use exeunt_model::{Fault, FaultPlan, Kvm, Point, Protection, Slot, SparseMemory, Vcpu, Vm};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::{DecodeError, Exit, decode};
use exeunt_proto::host::{Action, Backing, Host as _, Vcpu as _};
use std::sync::Arc;

const PRIVATE: u64 = MEMORY_EXIT_FLAG_PRIVATE;

/// Enters with the union full of stale bytes, and returns the error number and what was written.
fn enter_stale(vcpu: &mut Vcpu) -> (Errno, ExitReason, usize) {
    vcpu.page_mut().set_bytes(0, &[0x5a; UNION_BYTES]);
    let errno = vcpu.enter().unwrap_err();
    let stale = vcpu.page().exit.iter().rev().take_while(|byte| **byte == 0x5a).count();
    (errno, reason(vcpu), UNION_BYTES - stale)
}

/// A guest that reads privately again and again.
fn reader(vm: &Vm, gpa: Gpa) -> Vcpu {
    let program = move |cpu: Cpu| async move {
        loop {
            let _ = cpu.pvalidate(gpa, true).await;
            cpu.read_u64(gpa, Access::Private).await?;
            cpu.hlt().await;
        }
    };
    vm.create_vcpu(0, program).unwrap()
}

fn written(vcpu: &Vcpu) -> MemoryFault {
    vcpu.page().payload()
}

#[test]
fn an_allocation_that_fails_comes_with_its_own_number_and_24_bytes() {
    for errno in [Errno::ENOMEM, Errno::EIO, Errno::ENOENT, Errno::EINVAL, Errno::EINTR, Errno::EFAULT] {
        let vm = snp();
        convert(&vm, MEMORY_ATTRIBUTE_PRIVATE);
        let mut vcpu = reader(&vm, DATA);
        vm.set_fault_plan(FaultPlan::new().with(Point::GmemPage, 0, Fault::Fails(errno)));
        assert_eq!(enter_stale(&mut vcpu), (errno, ExitReason::MEMORY_FAULT, 24), "{errno}");
        assert_eq!(written(&vcpu), MemoryFault { flags: PRIVATE, gpa: DATA.0, size: PAGE_SIZE });
        // Of these, only `EFAULT` says to a VMM that the page has a meaning.
        let kernel = Kernel::default();
        match decode(Err(errno), vcpu.page(), kernel) {
            Ok(Exit::MemoryFault(fault)) => assert_eq!((errno, fault.gpa), (Errno::EFAULT, DATA)),
            Ok(Exit::Again(_)) => assert_eq!(errno, Errno::EINTR),
            Err(DecodeError::Failed { .. }) => assert_ne!(errno, Errno::EFAULT),
            other => panic!("{errno}: {other:?}"),
        }
        run_to_halt(&mut vcpu);
        assert_eq!(vm.check_invariants(), Ok(()));
    }
}

#[test]
fn a_poisoned_page_comes_as_ehwpoison_until_its_hole_is_punched() {
    let vm = snp();
    convert(&vm, MEMORY_ATTRIBUTE_PRIVATE);
    let mut vcpu = reader(&vm, DATA);
    run_to_halt(&mut vcpu);
    vm.poison_guest_memfd(vm.slots()[0].guest_memfd.unwrap().0, DATA.0);
    for _ in 0..3 {
        assert_eq!(enter_stale(&mut vcpu), (Errno::EHWPOISON, ExitReason::MEMORY_FAULT, 24));
        assert_eq!(written(&vcpu), MemoryFault { flags: PRIVATE, gpa: DATA.0, size: PAGE_SIZE });
        assert_eq!(vm.check_invariants(), Ok(()));
    }
    let range = PageRange::new(DATA.gfn(), 1).unwrap();
    vm.effects().apply(&Action::Discard { range, backing: Backing::Private }).unwrap();
    run_to_halt(&mut vcpu);
}

#[test]
fn private_accesses_that_nothing_can_answer_fault_with_efault() {
    // No slot; the page that the APIC would have, which KVM would have to emulate; a slot without a file.
    let apic = Gpa(0xfee0_0000);
    let bare = Gpa(0x1_0000_0000);
    for gpa in [Gpa(0x8000_0000), apic, bare] {
        let vm = snp();
        vm.add_slot(Slot::shared(1, bare, PAGE_SIZE).unwrap()).unwrap();
        vm.set_memory_attributes(gpa, PAGE_SIZE, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
        let mut vcpu = reader(&vm, gpa);
        for _ in 0..3 {
            assert_eq!(enter_stale(&mut vcpu), (Errno::EFAULT, ExitReason::MEMORY_FAULT, 24));
            assert_eq!(written(&vcpu), MemoryFault { flags: PRIVATE, gpa: gpa.0, size: PAGE_SIZE });
        }
    }
}

#[test]
fn the_attribute_is_asked_before_the_slot_and_the_slot_before_its_file() {
    let vm = snp();
    let file = vm.slots()[0].guest_memfd.unwrap().0;
    vm.poison_guest_memfd(file, DATA.0);
    let mut vcpu = reader(&vm, DATA);
    assert_eq!(enter_stale(&mut vcpu).0, Errno::EFAULT, "the attribute");
    convert(&vm, MEMORY_ATTRIBUTE_PRIVATE);
    assert_eq!(enter_stale(&mut vcpu).0, Errno::EHWPOISON, "the page");
    vm.close_guest_memfd(file);
    assert_eq!(enter_stale(&mut vcpu).0, Errno::EFAULT, "the file");
}

#[test]
fn a_fault_says_the_page_and_not_the_byte() {
    let vm = snp();
    let program =
        |cpu: Cpu| async move { cpu.read_u64(Gpa(DATA.0 + 0xabc), Access::Private).await.map(|_| ()) };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(enter_stale(&mut vcpu), (Errno::EFAULT, ExitReason::MEMORY_FAULT, 24));
    assert_eq!(written(&vcpu).gpa, DATA.0);
}

/// A VM in a process of the test's own.
fn vm_in_process() -> (Vm, Arc<SparseMemory>, u64) {
    let process = Arc::new(SparseMemory::new());
    let user: Arc<SparseMemory> = Arc::clone(&process);
    let vm = Kvm::default().create_vm_in(VmType::Default, user).unwrap();
    let uaddr = 0x7f00_1234_0000;
    vm.add_slot(Slot::shared(0, Gpa(0), 0x4000).unwrap().with_userspace_addr(uaddr)).unwrap();
    (vm, process, uaddr)
}

#[test]
fn memory_that_the_process_does_not_map_fails_kvm_run_and_says_nothing() {
    for (protection, write) in
        [(Protection::None, false), (Protection::None, true), (Protection::ReadOnly, true)]
    {
        let (vm, process, uaddr) = vm_in_process();
        let program = move |cpu: Cpu| async move {
            if write {
                cpu.write(Gpa(0x1008), &[7], Access::Shared).await
            } else {
                cpu.read_u64(Gpa(0x1008), Access::Shared).await.map(|_| ())
            }
        };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        process.protect(uaddr + 0x1000, protection);
        for _ in 0..3 {
            assert_eq!(enter_stale(&mut vcpu), (Errno::EFAULT, ExitReason::UNKNOWN, 0), "{protection:?}");
        }
        process.protect(uaddr + 0x1000, Protection::ReadWrite);
        run_to_halt(&mut vcpu);
    }
}

#[test]
fn memory_that_may_only_be_read_is_read() {
    let (vm, process, uaddr) = vm_in_process();
    process.protect(uaddr, Protection::ReadOnly);
    let program = |cpu: Cpu| async move { cpu.read_u64(Gpa(0), Access::Shared).await.map(|_| ()) };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
}

#[test]
fn a_process_of_ones_own_holds_what_the_guest_writes() {
    use exeunt_model::UserMemory as _;
    let (vm, process, uaddr) = vm_in_process();
    process.write(uaddr + 0x2000, b"from the VMM").unwrap();
    let program = |cpu: Cpu| async move {
        assert_eq!(cpu.read(Gpa(0x2000), 12, Access::Shared).await?, b"from the VMM");
        cpu.write(Gpa(0x2ffe), b"guest", Access::Shared).await
    };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
    let mut got = [0; 5];
    process.read(uaddr + 0x2ffe, &mut got).unwrap();
    assert_eq!(&got, b"guest");
}

#[test]
fn implicit_conversions_go_both_ways_in_a_software_protected_vm() {
    // Its accesses are what the attribute says, so what faults is only what has no file.
    let vm = launched(Dialect::Linux6_12, VmType::SwProtected);
    let bare = Gpa(0x1_0000_0000);
    vm.add_slot(Slot::shared(1, bare, PAGE_SIZE).unwrap()).unwrap();
    let mut vcpu =
        vm.create_vcpu(0, move |cpu: Cpu| async move { cpu.write(bare, &[1], Access::Shared).await });
    let vcpu = vcpu.as_mut().unwrap();
    vm.set_memory_attributes(bare, PAGE_SIZE, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    assert_eq!(enter_stale(vcpu), (Errno::EFAULT, ExitReason::MEMORY_FAULT, 24));
    assert_eq!(written(vcpu).flags, PRIVATE);
    vm.set_memory_attributes(bare, PAGE_SIZE, 0).unwrap();
    run_to_halt(vcpu);
}
