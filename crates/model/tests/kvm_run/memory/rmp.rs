//! The reverse map as a guest meets it: page sizes, privilege levels, pages at the wrong place.

use super::{convert, punch};
use crate::world::{DATA, MEMORY_BYTES, Seen, launched, reason, run_to_halt, snp};
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::rmp::{State, instruction, npf, vmpl};
use exeunt_abi::{Dialect, Errno, Gfn, Gpa, PAGE_SIZE};
use exeunt_model::guest::{Access, Cpu, GuestFault, Pvalidated};
use exeunt_model::{Slot, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;

const PRIVATE: u64 = MEMORY_ATTRIBUTE_PRIVATE;

/// The guest meets a fault that KVM does not resolve: it makes no progress, and a signal gets the VMM out.
fn assert_stuck(vm: &Vm, vcpu: &mut Vcpu, error_code: u64) {
    for _ in 0..3 {
        let before = vcpu.rmp_faults();
        assert_eq!(vcpu.enter(), Err(Errno::EINTR));
        assert_eq!(reason(vcpu), ExitReason::INTR);
        assert!(vcpu.rmp_faults() > before);
        assert_eq!(vcpu.last_rmp_fault(), Some(error_code), "{:#x?}", vcpu.last_rmp_fault());
        assert_eq!(vm.check_invariants(), Ok(()));
    }
}

/// Bits of every nested page fault of a private access here.
const ANY: u64 = npf::PRESENT | npf::USER | npf::GUEST_FINAL | npf::GUEST_RMP;

#[test]
fn a_page_goes_from_the_host_to_the_guest_and_back() {
    let vm = snp();
    let state = || vm.rmp_entry(DATA.gfn()).state();
    assert_eq!(state(), State::Hypervisor);
    convert(&vm, PRIVATE);
    assert_eq!(state(), State::Hypervisor, "an attribute is no page");
    let program = |cpu: Cpu| async move {
        assert!(cpu.read_u64(DATA, Access::Private).await.is_err());
        cpu.hlt().await;
        assert!(!cpu.pvalidate(DATA, true).await?);
        assert!(cpu.pvalidate(DATA, true).await?, "nothing changed");
        cpu.hlt().await;
        assert!(!cpu.pvalidate(DATA, false).await?);
        assert!(cpu.pvalidate(DATA, false).await?);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    for expected in [State::GuestInvalid, State::GuestValid, State::GuestInvalid] {
        run_to_halt(&mut vcpu);
        assert_eq!(state(), expected);
        assert_eq!(vm.check_invariants(), Ok(()));
    }
    convert(&vm, 0);
    assert_eq!(state(), State::GuestInvalid, "an attribute takes no page away");
    punch(&vm);
    assert_eq!(state(), State::Hypervisor);
}

#[test]
fn validation_keeps_what_was_in_the_page() {
    let vm = snp();
    convert(&vm, PRIVATE);
    let program = |cpu: Cpu| async move {
        cpu.pvalidate(DATA, true).await?;
        cpu.write(DATA, b"kept", Access::Private).await?;
        cpu.pvalidate(DATA, false).await?;
        let gone = cpu.read(DATA, 4, Access::Private).await;
        assert_eq!(gone, Err(GuestFault::NotValidated { gpa: DATA.0 }));
        cpu.pvalidate(DATA, true).await?;
        assert_eq!(cpu.read(DATA, 4, Access::Private).await?, b"kept");
        Ok(())
    };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
}

#[test]
fn a_guest_falls_back_to_small_pages_because_kvm_has_no_others() {
    let vm = snp();
    vm.set_memory_attributes(DATA, 0x20_0000, PRIVATE).unwrap();
    let program = |cpu: Cpu| async move {
        let unchanged = false;
        let mismatch = Pvalidated { code: u64::from(instruction::FAIL_SIZEMISMATCH), unchanged };
        assert_eq!(cpu.pvalidate_2m(DATA, true).await?, mismatch);
        let bad = Pvalidated { code: u64::from(instruction::FAIL_INPUT), unchanged };
        assert_eq!(cpu.pvalidate_2m(Gpa(DATA.0 + PAGE_SIZE), true).await?, bad);
        for page in 0..512 {
            assert!(!cpu.pvalidate(Gpa(DATA.0 + page * PAGE_SIZE), true).await?);
        }
        Ok(())
    };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
    assert!((0..512).all(|page| vm.rmp_entry(Gfn(DATA.gfn().0 + page)).state() == State::GuestValid));
}

#[test]
fn a_large_page_is_split_when_the_guest_wants_a_part_of_it() {
    let vm = snp();
    vm.set_huge_folios(true);
    vm.set_memory_attributes(DATA, 0x20_0000, PRIVATE).unwrap();
    let sub_page = Gpa(DATA.0 + 7 * PAGE_SIZE);
    let program = move |cpu: Cpu| async move {
        let code = u64::from(instruction::SUCCESS);
        assert_eq!(cpu.pvalidate_2m(DATA, true).await?, Pvalidated { code, unchanged: false });
        assert_eq!(cpu.pvalidate_2m(DATA, true).await?, Pvalidated { code, unchanged: true });
        cpu.write(sub_page, b"sub", Access::Private).await?;
        cpu.hlt().await;
        assert!(!cpu.pvalidate(sub_page, false).await?);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    run_to_halt(&mut vcpu);
    assert!(vm.rmp_entry(sub_page.gfn()).fields().is_2m);
    assert_eq!((vcpu.rmp_faults(), vm.check_invariants()), (0, Ok(())));
    run_to_halt(&mut vcpu);
    let code = ANY | npf::WRITE | npf::GUEST_ENC | npf::GUEST_SIZEM;
    assert_eq!((vcpu.rmp_faults(), vcpu.last_rmp_fault()), (1, Some(code)), "KVM resolved it");
    for page in 0..512 {
        let entry = vm.rmp_entry(Gfn(DATA.gfn().0 + page));
        let expected = if page == 7 { State::GuestInvalid } else { State::GuestValid };
        assert_eq!((entry.state(), entry.fields().is_2m), (expected, false), "{page}");
    }
    assert_eq!(vm.check_invariants(), Ok(()));
}

#[test]
fn a_hole_in_a_large_page_splits_it() {
    let vm = snp();
    vm.set_huge_folios(true);
    vm.set_memory_attributes(Gpa(0), MEMORY_BYTES, PRIVATE).unwrap();
    let program = |cpu: Cpu| async move { cpu.pvalidate_2m(DATA, true).await.map(|_| ()) };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
    punch(&vm);
    assert_eq!(vm.rmp_entry(DATA.gfn()).state(), State::Hypervisor);
    let entry = vm.rmp_entry(Gfn(DATA.gfn().0 + 1));
    assert_eq!((entry.state(), entry.fields().is_2m), (State::GuestValid, false));
    assert_eq!(vm.check_invariants(), Ok(()));
}

#[test]
fn a_page_that_was_prepared_for_another_address_never_comes_through() {
    let vm = snp();
    let file = vm.create_guest_memfd(0x1000).unwrap();
    let (first, second) = (Gpa(0x1_0000_0000), Gpa(0x2_0000_0000));
    let at = |gpa| Slot::shared(1, gpa, 0x1000).unwrap().with_guest_memfd(file, 0);
    for gpa in [first, second] {
        vm.set_memory_attributes(gpa, PAGE_SIZE, PRIVATE).unwrap();
    }
    let reader = |gpa: Gpa| {
        let program = move |cpu: Cpu| async move {
            cpu.pvalidate(gpa, true).await?;
            cpu.read_u64(gpa, Access::Private).await.map(|_| ())
        };
        vm.create_vcpu(0, program).unwrap()
    };
    vm.add_slot(at(first)).unwrap();
    run_to_halt(&mut reader(first));
    vm.delete_slot(1).unwrap();
    vm.add_slot(at(second)).unwrap();
    // PVALIDATE wants to write the entry, so the fault is one of a write.
    let mut stuck = reader(second);
    assert_stuck(&vm, &mut stuck, ANY | npf::GUEST_ENC | npf::WRITE);
    vm.delete_slot(1).unwrap();
    vm.add_slot(at(first)).unwrap();
    let program = move |cpu: Cpu| async move { cpu.read_u64(first, Access::Private).await.map(|_| ()) };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
}

#[test]
fn a_privilege_level_does_what_it_was_permitted_and_no_more() {
    for permissions in 0..16u8 {
        let vm = snp();
        convert(&vm, PRIVATE);
        let set_up = move |cpu: Cpu| async move {
            cpu.pvalidate(DATA, true).await?;
            cpu.write(DATA, b"data", Access::Private).await?;
            let code = cpu.rmpadjust(DATA, false, 2 | u64::from(permissions) << 8).await?;
            assert_eq!(code, u64::from(instruction::SUCCESS));
            Ok(())
        };
        run_to_halt(&mut vm.create_vcpu(0, set_up).unwrap());
        assert_eq!(vm.rmp_entry(DATA.gfn()).permissions(2), permissions);
        for write in [false, true] {
            let program = move |cpu: Cpu| async move {
                if write {
                    cpu.write(DATA, b"new!", Access::Private).await
                } else {
                    cpu.read(DATA, 4, Access::Private).await.map(|_| ())
                }
            };
            let mut vcpu = vm.create_vcpu(0, program).unwrap();
            vcpu.set_vmpl(2);
            let wanted = if write { vmpl::WRITE } else { vmpl::READ };
            if permissions & wanted == 0 {
                let bits = if write { npf::WRITE } else { 0 };
                assert_stuck(&vm, &mut vcpu, ANY | npf::GUEST_ENC | npf::GUEST_VMPL | bits);
            } else {
                run_to_halt(&mut vcpu);
            }
        }
        let got = Seen::new();
        let log = got.clone();
        let program = |cpu: Cpu| async move {
            log.push(cpu.read(DATA, 4, Access::Private).await?);
            Ok(())
        };
        run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
        let expected: &[u8] = if permissions & vmpl::WRITE == 0 { b"data" } else { b"new!" };
        assert_eq!(got.take(), [expected.to_vec()]);
    }
}

#[test]
fn only_vmpl_0_validates_and_makes_vmsas() {
    let vm = snp();
    convert(&vm, PRIVATE);
    let vmsa = 1 << 16;
    let program = move |cpu: Cpu| async move {
        cpu.pvalidate(DATA, true).await?;
        assert_eq!(cpu.rmpadjust(DATA, false, 1 | vmsa).await?, u64::from(instruction::SUCCESS));
        assert_eq!(cpu.rmpadjust(DATA, false, 0).await?, u64::from(instruction::FAIL_PERMISSION));
        assert_eq!(cpu.rmpadjust(DATA, true, 1).await?, u64::from(instruction::FAIL_SIZEMISMATCH));
        assert_eq!(cpu.rmpadjust(DATA, true, 1 | vmsa).await?, u64::from(instruction::FAIL_INPUT));
        assert_eq!(cpu.rmpadjust(DATA, false, 4).await?, u64::from(instruction::FAIL_INPUT));
        Ok(())
    };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
    assert!(vm.rmp_entry(DATA.gfn()).is_vmsa());
    assert_eq!(vm.check_invariants(), Ok(()));
    let program = move |cpu: Cpu| async move {
        assert_eq!(cpu.pvalidate(DATA, false).await, Err(GuestFault::GeneralProtection));
        assert_eq!(cpu.rmpadjust(DATA, false, 2 | vmsa).await?, u64::from(instruction::FAIL_PERMISSION));
        assert_eq!(cpu.rmpadjust(DATA, false, 2).await?, u64::from(instruction::SUCCESS));
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    vcpu.set_vmpl(1);
    run_to_halt(&mut vcpu);
    assert!(vm.rmp_entry(DATA.gfn()).is_vmsa(), "the VMSA stays one");
}

#[test]
fn a_page_that_is_not_validated_cannot_be_adjusted() {
    let vm = snp();
    convert(&vm, PRIVATE);
    let program = |cpu: Cpu| async move {
        let refused = cpu.rmpadjust(DATA, false, 1).await;
        assert_eq!(refused, Err(GuestFault::NotValidated { gpa: DATA.0 }));
        Ok(())
    };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
}

#[test]
fn guests_without_a_reverse_map_do_not_have_its_instructions() {
    for vm_type in [VmType::Default, VmType::SwProtected, VmType::SevEs] {
        let vm = launched(Dialect::Linux7_2, vm_type);
        let program = |cpu: Cpu| async move {
            assert_eq!(cpu.pvalidate(DATA, true).await, Err(GuestFault::InvalidOpcode));
            assert_eq!(cpu.rmpadjust(DATA, false, 1).await, Err(GuestFault::InvalidOpcode));
            Ok(())
        };
        run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
    }
}

#[test]
fn a_page_of_the_guests_own_is_not_reached_without_the_c_bit() {
    use exeunt_abi::kvm::memory::{CreateGuestMemfd, GUEST_MEMFD_FLAG_MMAP};
    let vm = snp();
    let args = CreateGuestMemfd { size: PAGE_SIZE, flags: GUEST_MEMFD_FLAG_MMAP, reserved: [0; 6] };
    let file = vm.create_guest_memfd_with(&args).unwrap();
    let gpa = Gpa(0x1_0000_0000);
    // Shared accesses of such a slot go to the file too, where every page is assigned when it is handed out.
    vm.add_slot(Slot::shared(1, gpa, PAGE_SIZE).unwrap().with_guest_memfd(file, 0)).unwrap();
    let program = move |cpu: Cpu| async move { cpu.write(gpa, &[1], Access::Shared).await };
    assert_stuck(&vm, &mut vm.create_vcpu(0, program).unwrap(), ANY | npf::WRITE);
}
