//! Accesses of plain guests to addresses without memory, and to memory that the process does not map.

use crate::world::{MEMORY_BYTES, Seen, launched, reason, run_to_halt};
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::{ExitReason, Mmio};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Gpa, Kernel};
use exeunt_model::guest::{Access, Cpu};
use exeunt_model::{Kvm, Protection, Slot, SparseMemory, Vcpu};
use exeunt_proto::host::Vcpu as _;
use std::sync::Arc;

const NOWHERE: Gpa = Gpa(0xd000_0000);

fn mmio(vcpu: &mut Vcpu) -> Mmio {
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(vcpu), ExitReason::MMIO);
    vcpu.page().payload()
}

#[test]
fn a_write_where_no_memory_is_leaves_the_bytes_behind_its_own_stale() {
    let program = |cpu: Cpu| async move { cpu.write(NOWHERE, &[1, 2], Access::Shared).await };
    let mut vcpu = launched(Dialect::Linux6_1, VmType::Default).create_vcpu(0, program).unwrap();
    vcpu.page_mut().exit.fill(0xaa);
    let data = [1, 2, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa];
    let expected = Mmio { phys_addr: NOWHERE.0, data, len: 2, is_write: 1, pad: [0xaa; 3] };
    assert_eq!(mmio(&mut vcpu), expected);
    assert_eq!(vcpu.page().exit[24..], [0xaa; 232]);
    run_to_halt(&mut vcpu);
}

#[test]
fn a_read_where_no_memory_is_gets_what_userspace_left_in_the_union() {
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        log.push(cpu.read(NOWHERE, 4, Access::Shared).await?);
        Ok(())
    };
    let mut vcpu = launched(Dialect::Linux6_1, VmType::Default).create_vcpu(0, program).unwrap();
    let exit = mmio(&mut vcpu);
    assert_eq!((exit.phys_addr, exit.len, exit.is_write), (NOWHERE.0, 4, 0));
    vcpu.page_mut().set_bytes(8, &[1, 2, 3, 4, 5]);
    // The answer is taken whether the guest runs or not.
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
    vcpu.page_mut().set_bytes(8, &[9; 5]);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [[1, 2, 3, 4]]);
}

#[test]
fn a_write_across_the_end_of_memory_does_the_part_that_has_memory_and_asks_for_the_other() {
    let vm = launched(Dialect::Linux6_1, VmType::Default);
    let at = Gpa(MEMORY_BYTES - 2);
    let program = move |cpu: Cpu| async move { cpu.write(at, &[1, 2, 3, 4], Access::Shared).await };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    let exit = mmio(&mut vcpu);
    assert_eq!((exit.phys_addr, exit.len, &exit.data[..2]), (MEMORY_BYTES, 2, &[3u8, 4][..]));
    let mut memory = [0; 2];
    vm.read_shared(at, &mut memory).unwrap();
    assert_eq!(memory, [1, 2]);
    run_to_halt(&mut vcpu);
}

#[test]
fn memory_that_the_process_does_not_map_fails_the_entry_without_a_memory_fault() {
    let user = Arc::new(SparseMemory::new());
    user.protect(0x5000, Protection::None);
    let kernel = Kernel { dialect: Dialect::Linux6_12, arch: Arch::X86 };
    let vm = Kvm::new(kernel).create_vm_in(VmType::Default, Arc::<SparseMemory>::clone(&user)).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), 0x1000).unwrap().with_userspace_addr(0x5000)).unwrap();
    let program = |cpu: Cpu| async move { cpu.write(Gpa(8), &[1], Access::Shared).await };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    for _ in 0..2 {
        assert_eq!(vcpu.enter(), Err(Errno::EFAULT));
        assert_eq!(reason(&vcpu), ExitReason::UNKNOWN);
    }
    user.protect(0x5000, Protection::ReadWrite);
    run_to_halt(&mut vcpu);
}

#[test]
fn an_entry_that_fails_leaves_the_reason_of_an_earlier_exit_before_linux_6_8() {
    for (dialect, expected) in
        [(Dialect::Linux6_1, ExitReason::IO), (Dialect::Linux6_12, ExitReason::UNKNOWN)]
    {
        let user = Arc::new(SparseMemory::new());
        user.protect(0x5000, Protection::None);
        let vm = Kvm::new(Kernel { dialect, arch: Arch::X86 });
        let vm = vm.create_vm_in(VmType::Default, user).unwrap();
        vm.add_slot(Slot::shared(0, Gpa(0), 0x1000).unwrap().with_userspace_addr(0x5000)).unwrap();
        let program = |cpu: Cpu| async move {
            cpu.port_out(0x80, 1, 0).await?;
            cpu.write(Gpa(8), &[1], Access::Shared).await
        };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(vcpu.enter(), Err(Errno::EFAULT));
        assert_eq!(reason(&vcpu), expected, "{dialect}");
    }
}

#[test]
fn a_frame_without_a_slot_goes_on_to_be_emulated_when_it_becomes_private_until_the_slots_change() {
    let vm = launched(Dialect::Linux6_12, VmType::SwProtected);
    let program = |cpu: Cpu| async move {
        loop {
            cpu.write(NOWHERE, &[1], Access::Shared).await?;
        }
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    mmio(&mut vcpu);
    vm.set_memory_attributes(NOWHERE, 0x1000, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    mmio(&mut vcpu);
    vm.add_slot(Slot::shared(7, Gpa(1 << 32), 0x1000).unwrap()).unwrap();
    assert_eq!(vcpu.enter(), Err(Errno::EFAULT));
    assert_eq!(reason(&vcpu), ExitReason::MEMORY_FAULT);
}
