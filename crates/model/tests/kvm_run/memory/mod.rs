//! Private and shared memory: who may touch what, and what a conversion does to it.

mod dirty_log;
mod faults;
mod gmem;
mod host_view;
mod mmio;
mod pre_fault;
mod rmp;
mod slots;

use crate::world::{DATA, MEMORY_BYTES, Seen, launched, reason, run_to_halt, snp};
use exeunt_abi::kvm::memory::{MEMORY_ATTRIBUTE_PRIVATE, MemoryAttributes};
use exeunt_abi::kvm::run::{ExitReason, MEMORY_EXIT_FLAG_PRIVATE, MemoryFault};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa, PAGE_SIZE};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Fault, FaultPlan, Point, Slot, Vcpu, Vm};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::host::{Action, Backing, Host, Vcpu as _};

const SECRET: u64 = 0x5ec2_e700_5ec2_e700;

pub(crate) fn convert(vm: &Vm, attributes: u64) {
    vm.set_memory_attributes(DATA, PAGE_SIZE, attributes).unwrap();
}

pub(crate) fn punch(vm: &Vm) {
    let range = PageRange::new(DATA.gfn(), 1).unwrap();
    vm.effects().apply(&Action::Discard { range, backing: Backing::Private }).unwrap();
}

pub(crate) fn assert_fault(vcpu: &mut Vcpu, gpa: Gpa, flags: u64) {
    assert_eq!(vcpu.enter(), Err(Errno::EFAULT));
    assert_eq!(reason(vcpu), ExitReason::MEMORY_FAULT);
    let fault: MemoryFault = vcpu.page().payload();
    assert_eq!(fault, MemoryFault { flags, gpa: gpa.0, size: PAGE_SIZE });
}

#[test]
fn a_private_access_without_the_attribute_faults_until_it_is_there_and_the_page_is_validated() {
    let vm = snp();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        log.push(cpu.read_u64(Gpa(DATA.0 + 8), Access::Private).await);
        let unchanged = cpu.pvalidate(DATA, true).await?;
        assert!(!unchanged, "the page was validated already");
        log.push(cpu.read_u64(Gpa(DATA.0 + 8), Access::Private).await);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    vm.write_shared(DATA, &[0xee; 64]).unwrap();
    for _ in 0..3 {
        assert_fault(&mut vcpu, DATA, MEMORY_EXIT_FLAG_PRIVATE);
    }
    convert(&vm, MEMORY_ATTRIBUTE_PRIVATE);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [Err(GuestFault::NotValidated { gpa: DATA.0 }), Ok(0)]);
}

#[test]
fn a_shared_access_to_a_private_page_faults_without_the_flag() {
    let vm = snp();
    convert(&vm, MEMORY_ATTRIBUTE_PRIVATE);
    let program = |cpu: Cpu| async move { cpu.write(DATA, &[1], Access::Shared).await };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_fault(&mut vcpu, DATA, 0);
    convert(&vm, 0);
    run_to_halt(&mut vcpu);
}

#[test]
fn an_access_across_two_pages_faults_at_the_page_that_misses() {
    let vm = snp();
    convert(&vm, MEMORY_ATTRIBUTE_PRIVATE);
    let next = Gpa(DATA.0 + PAGE_SIZE);
    let program = move |cpu: Cpu| async move {
        cpu.pvalidate(DATA, true).await?;
        cpu.write(Gpa(next.0 - 4), &[1; 8], Access::Private).await
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_fault(&mut vcpu, next, MEMORY_EXIT_FLAG_PRIVATE);
}

#[test]
fn private_memory_needs_a_guest_memfd_behind_it() {
    let vm = snp();
    let bare = Gpa(MEMORY_BYTES);
    let nowhere = Gpa(2 * MEMORY_BYTES);
    vm.add_slot(Slot::shared(1, bare, PAGE_SIZE).unwrap()).unwrap();
    for gpa in [bare, nowhere] {
        vm.set_memory_attributes(gpa, PAGE_SIZE, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
        let program = move |cpu: Cpu| async move { cpu.write(gpa, &[1], Access::Private).await };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        assert_fault(&mut vcpu, gpa, MEMORY_EXIT_FLAG_PRIVATE);
        assert_fault(&mut vcpu, gpa, MEMORY_EXIT_FLAG_PRIVATE);
    }
}

/// A guest that writes a secret, waits in `HLT` for the host, and reads it back.
fn keeps_a_secret(vm: &Vm) -> (Vcpu, Seen<Result<u64, GuestFault>>) {
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        cpu.pvalidate(DATA, true).await?;
        cpu.write(DATA, &SECRET.to_le_bytes(), Access::Private).await?;
        cpu.hlt().await;
        log.push(cpu.read_u64(DATA, Access::Private).await);
        Ok(())
    };
    convert(vm, MEMORY_ATTRIBUTE_PRIVATE);
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    run_to_halt(&mut vcpu);
    (vcpu, seen)
}

#[test]
fn private_to_shared_and_back_keeps_the_page_and_its_validation() {
    let vm = snp();
    let (mut vcpu, seen) = keeps_a_secret(&vm);
    convert(&vm, 0);
    let mut shared = [0xff; 8];
    vm.read_shared(DATA, &mut shared).unwrap();
    assert_eq!(shared, [0; 8], "the host does not see the secret");
    convert(&vm, MEMORY_ATTRIBUTE_PRIVATE);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [Ok(SECRET)]);
}

#[test]
fn a_punched_page_comes_back_zeroed_and_not_validated() {
    let vm = snp();
    let (mut vcpu, seen) = keeps_a_secret(&vm);
    convert(&vm, 0);
    punch(&vm);
    convert(&vm, MEMORY_ATTRIBUTE_PRIVATE);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [Err(GuestFault::NotValidated { gpa: DATA.0 })]);

    let again = seen.clone();
    let program = |cpu: Cpu| async move {
        cpu.pvalidate(DATA, true).await?;
        again.push(cpu.read_u64(DATA, Access::Private).await);
        Ok(())
    };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
    assert_eq!(seen.take(), [Ok(0)]);
}

#[test]
fn attributes_need_no_slot() {
    let vm = snp();
    let whole = !(PAGE_SIZE - 1);
    assert_eq!(vm.set_memory_attributes(Gpa(0), whole, MEMORY_ATTRIBUTE_PRIVATE), Ok(()));
    assert_eq!(vm.set_memory_attributes(Gpa(whole / 2 + PAGE_SIZE / 2), PAGE_SIZE, 0), Ok(()));
}

#[test]
fn attributes_are_refused_as_the_kernel_refuses_them() {
    let vm = snp();
    let private = MEMORY_ATTRIBUTE_PRIVATE;
    for (gpa, bytes, attributes) in [
        (0, PAGE_SIZE, 1),
        (0, PAGE_SIZE, private | 1 << 63),
        (0, 0, private),
        (1, PAGE_SIZE, private),
        (0, PAGE_SIZE - 1, private),
        (PAGE_SIZE, !(PAGE_SIZE - 1), private),
        (!(PAGE_SIZE - 1), PAGE_SIZE, private),
    ] {
        let got = vm.set_memory_attributes(Gpa(gpa), bytes, attributes);
        assert_eq!(got, Err(Errno::EINVAL), "{gpa:#x} {bytes:#x} {attributes:#x}");
    }
    for bit in 0..64 {
        let args = MemoryAttributes { address: 0, size: PAGE_SIZE, attributes: 0, flags: 1 << bit };
        assert_eq!(vm.set_attributes(&args), Err(Errno::EINVAL), "flag {bit}");
        let args = MemoryAttributes { attributes: 1 << bit, flags: 0, ..args };
        let expected = if 1 << bit == private { Ok(()) } else { Err(Errno::EINVAL) };
        assert_eq!(vm.set_attributes(&args), expected, "attribute {bit}");
    }
}

#[test]
fn only_vms_with_private_memory_have_the_attribute_and_only_newer_kernels_the_ioctl() {
    for (dialect, vm_type, private, shared) in [
        (Dialect::Linux7_2, VmType::Snp, Ok(()), Ok(())),
        (Dialect::Linux7_2, VmType::SwProtected, Ok(()), Ok(())),
        (Dialect::Linux7_2, VmType::Default, Err(Errno::EINVAL), Ok(())),
        (Dialect::Linux7_2, VmType::SevEs, Err(Errno::EINVAL), Ok(())),
        (Dialect::Linux6_1, VmType::Default, Err(Errno::ENOTTY), Err(Errno::ENOTTY)),
    ] {
        let vm = launched(dialect, vm_type);
        assert_eq!(
            vm.set_memory_attributes(DATA, PAGE_SIZE, MEMORY_ATTRIBUTE_PRIVATE),
            private,
            "{vm_type:?}"
        );
        assert_eq!(vm.set_memory_attributes(DATA, PAGE_SIZE, 0), shared, "{vm_type:?}");
        assert_eq!(vm.check_invariants(), Ok(()));
    }
}

#[test]
fn a_change_that_lacks_memory_changes_nothing_and_no_change_lacks_none() {
    let vm = snp();
    vm.set_memory_attributes(DATA, PAGE_SIZE, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    let fails =
        || vm.set_fault_plan(FaultPlan::new().with(Point::AttributeChange, 0, Fault::Fails(Errno::ENOMEM)));
    fails();
    assert_eq!(
        vm.set_memory_attributes(DATA, PAGE_SIZE, MEMORY_ATTRIBUTE_PRIVATE),
        Ok(()),
        "it has it already"
    );
    assert_eq!(vm.set_memory_attributes(Gpa(0), PAGE_SIZE, 0), Ok(()), "it is shared already");
    let two = 2 * PAGE_SIZE;
    assert_eq!(vm.set_memory_attributes(DATA, two, MEMORY_ATTRIBUTE_PRIVATE), Err(Errno::ENOMEM));
    assert_eq!(vm.page_state(Gpa(DATA.0 + PAGE_SIZE).gfn()), PageState::Shared);
    assert_eq!(vm.set_memory_attributes(DATA, two, MEMORY_ATTRIBUTE_PRIVATE), Ok(()));
    fails();
    assert_eq!(vm.set_memory_attributes(DATA, PAGE_SIZE, 0), Err(Errno::ENOMEM));
    assert_eq!(vm.page_state(DATA.gfn()), PageState::Private);
}

#[test]
fn a_range_of_nearly_everything_is_work_for_one_run() {
    let vm = snp();
    for _ in 0..1000 {
        for attributes in [MEMORY_ATTRIBUTE_PRIVATE, 0] {
            assert_eq!(vm.set_memory_attributes(Gpa(0), 1 << 52, attributes), Ok(()));
        }
    }
}

#[test]
fn a_vm_has_256_vcpus_and_more() {
    let vm = snp();
    let vcpus: Vec<_> = (0..256)
        .map(|seed| {
            vm.create_vcpu(seed, |cpu: Cpu| async move {
                cpu.hlt().await;
                Ok(())
            })
        })
        .collect();
    assert!(vcpus.iter().all(Result::is_ok));
    for vcpu in vcpus {
        run_to_halt(&mut vcpu.unwrap());
    }
}
