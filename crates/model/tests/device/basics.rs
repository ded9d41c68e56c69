//! Opening, making and closing; who may use what.

use crate::process::{ARG, Process, READ_ONLY, UNMAPPED};
use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::regs::{Regs, Sregs};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_model::device::{Mapping, Path, VcpuPage};
use exeunt_model::{SparseMemory, UserMemory};
use std::sync::Arc;

#[test]
fn a_vcpu_that_is_made_by_ioctls_halts() {
    let process = Process::new();
    let kvm = process.kvm();
    assert_eq!(process.ioctl(kvm, nr::KVM_GET_API_VERSION, 0), Ok(12));
    assert_eq!(process.ioctl(kvm, nr::KVM_GET_VCPU_MMAP_SIZE, 0), Ok(0x3000));
    let vm = process.vm(VmType::Default);
    let vcpu = process.vcpu(vm, 0);
    assert_eq!([kvm, vm, vcpu], [3, 5, 6], "the lowest numbers, with the second /dev/kvm on 4");
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Ok(0));
    assert_eq!(process.page(vcpu).reason(), ExitReason::HLT);
}

#[test]
fn a_number_that_is_not_open_is_ebadf_and_a_closed_one_is_given_again() {
    let process = Process::new();
    assert_eq!(process.ioctl(3, nr::KVM_GET_API_VERSION, 0), Err(Errno::EBADF));
    let kvm = process.kvm();
    let copy = process.device.dup(kvm).unwrap();
    process.device.close(kvm).unwrap();
    assert_eq!(process.device.close(kvm), Err(Errno::EBADF));
    assert_eq!(process.ioctl(copy, nr::KVM_GET_API_VERSION, 0), Ok(12));
    assert_eq!(process.device.open(Path::Sev), Ok(kvm));
    assert_eq!(process.ioctl(kvm, nr::KVM_GET_API_VERSION, 0), Err(Errno::EINVAL), "another file");
    let last = (0..2000).map(|_| process.device.open(Path::Kvm)).find(Result::is_err);
    assert_eq!(last, Some(Err(Errno::EMFILE)));
}

#[test]
fn a_vm_that_another_process_uses_or_that_is_dead_gives_eio_before_anything_else() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    let vcpu = process.vcpu(vm, 0);
    let other: Arc<dyn UserMemory> = Arc::new(SparseMemory::new());
    let unknown = 0xdead_beef;
    for fd in [vm, vcpu] {
        for request in [nr::KVM_RUN.0, nr::KVM_CHECK_EXTENSION.0, nr::SEV_ISSUE_CMD.0, unknown] {
            assert_eq!(process.device.ioctl(fd, request, 1, &other), Err(Errno::EIO), "{request:#x}");
        }
    }
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Ok(0));
    let reason = process.page(vcpu).reason();
    process.device.vm(vm).unwrap().kill();
    for fd in [vm, vcpu] {
        assert_eq!(process.ioctl(fd, nr::KVM_RUN, 0), Err(Errno::EIO));
    }
    assert_eq!(process.page(vcpu).reason(), reason, "stale");
}

#[test]
fn an_argument_that_cannot_be_copied_is_efault() {
    let process = Process::new();
    let vcpu = process.vcpu(process.vm(VmType::Default), 0);
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_REGS, UNMAPPED), Err(Errno::EFAULT));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_REGS, READ_ONLY), Err(Errno::EFAULT));
    assert_eq!(process.ioctl(vcpu, nr::KVM_SET_REGS, UNMAPPED), Err(Errno::EFAULT));
    assert_eq!(process.ioctl(vcpu, nr::KVM_SET_REGS, READ_ONLY), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_REGS, ARG), Ok(0));
    let expected = Regs { rflags: 2, ..Regs::default() };
    assert_eq!(process.argument::<Regs>(), expected);
}

#[test]
fn the_mapping_of_a_vcpu_has_three_pages_and_faults_behind_them() {
    let process = Process::new();
    let vcpu = process.vcpu(process.vm(VmType::Default), 0);
    let all = [Some(VcpuPage::Run), Some(VcpuPage::PortData), Some(VcpuPage::CoalescedRing), None];
    assert_eq!(process.device.mmap(vcpu, 0, 0x4000), Ok(Mapping::Vcpu(all.to_vec())));
    assert_eq!(process.device.mmap(vcpu, 0x1000, 1), Ok(Mapping::Vcpu(all[1..2].to_vec())));
    assert_eq!(process.device.mmap(vcpu, 0, 0), Err(Errno::EINVAL));
    assert_eq!(process.device.mmap(vcpu, 1, 0x1000), Err(Errno::EINVAL));
    assert_eq!(process.device.mmap(process.kvm(), 0, 0x1000), Err(Errno::ENODEV));
}

#[test]
fn registers_read_back_as_they_were_set() {
    let process = Process::new();
    let vcpu = process.vcpu(process.vm(VmType::Default), 0);
    let regs = Regs { rax: 1, rsi: 2, r8_to_r15: [3; 8], rip: 0x1000, rflags: 0x200, ..Regs::default() };
    assert_eq!(process.with(vcpu, nr::KVM_SET_REGS, &regs), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_REGS, ARG), Ok(0));
    assert_eq!(process.argument::<Regs>(), Regs { rflags: 0x202, ..regs });
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_SREGS, ARG), Ok(0));
    let mut sregs: Sregs = process.argument();
    sregs.head.cr2 = 0x77;
    sregs.interrupt_bitmap = [0, 1 << 5, 1, 0];
    assert_eq!(process.with(vcpu, nr::KVM_SET_SREGS, &sregs), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_SREGS, ARG), Ok(0));
    let expected = Sregs { interrupt_bitmap: [0, 1 << 5, 0, 0], ..sregs };
    assert_eq!(process.argument::<Sregs>(), expected, "the lowest interrupt is taken");
    sregs.head.cr0 |= 1 << 31;
    assert_eq!(
        process.with(vcpu, nr::KVM_SET_SREGS, &sregs),
        Err(Errno::EINVAL),
        "paging without protection"
    );
    sregs.head.cr0 |= 1;
    assert_eq!(process.with(vcpu, nr::KVM_SET_SREGS, &sregs), Ok(0));
}
