//! `KVM_CHECK_EXTENSION`, `KVM_ENABLE_CAP`, and the limits of what can be made.

use crate::process::{Process, UNMAPPED};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::device_attr::EnableCap;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno};
use exeunt_model::Host;

fn enable(process: &Process, fd: i32, cap: Cap, argument: u64) -> Result<u32, Errno> {
    let enable = EnableCap { cap: cap.0, flags: 0, args: [argument, 0, 0, 0], pad: [0; 64] };
    process.with(fd, nr::KVM_ENABLE_CAP, &enable)
}

#[test]
fn a_type_that_release_and_host_do_not_offer_is_einval_and_takes_no_descriptor() {
    for dialect in Dialect::RELEASES {
        for host in [Host::AMD, Host::INTEL] {
            let process = Process::on(dialect, host);
            let kvm = process.kvm();
            let mask = process.ioctl(kvm, nr::KVM_CHECK_EXTENSION, u64::from(Cap::VM_TYPES.0)).unwrap();
            for number in (0..40).chain([1 << 32, u64::MAX]) {
                let is_listed = number < 32 && mask >> number & 1 == 1;
                let offered = if mask == 0 { number == 0 } else { is_listed };
                let made = process.ioctl(kvm, nr::KVM_CREATE_VM, number);
                assert_eq!(made.is_ok(), offered, "{dialect} {number:#x}");
                match made {
                    Ok(fd) => process.device.close(i32::try_from(fd).unwrap()).unwrap(),
                    Err(errno) => assert_eq!(errno, Errno::EINVAL),
                }
            }
            assert_eq!(process.kvm(), kvm + 1, "every number was given back");
        }
    }
}

#[test]
fn dev_kvm_and_a_vm_answer_the_same_but_for_what_the_type_changes() {
    let process = Process::new();
    let kvm = process.kvm();
    let vm = process.vm(VmType::Default);
    let differ = (0..400u64).filter(|cap| {
        process.ioctl(kvm, nr::KVM_CHECK_EXTENSION, *cap) != process.ioctl(vm, nr::KVM_CHECK_EXTENSION, *cap)
    });
    assert_eq!(differ.collect::<Vec<_>>(), [u64::from(Cap::MEMORY_ATTRIBUTES.0)]);
    assert_eq!(process.ioctl(kvm, nr::KVM_CHECK_EXTENSION, 1 << 32), Ok(0));
}

#[test]
fn flags_and_unknown_bits_of_arguments_are_einval() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    assert_eq!(process.ioctl(vm, nr::KVM_ENABLE_CAP, UNMAPPED), Err(Errno::EFAULT));
    let masks = [
        (Cap::EXIT_HYPERCALL, 1 << 12),
        (Cap::X86_USER_SPACE_MSR, 7),
        (Cap::X2APIC_API, 3),
        (Cap::X86_DISABLE_EXITS, 0xf),
        (Cap::EXIT_ON_EMULATION_FAILURE, 1),
        (Cap::PMU_CAPABILITY, 1),
        (Cap::HALT_POLL, 0xffff_ffff),
        (Cap::DISABLE_QUIRKS2, 0x5ff),
    ];
    for (cap, mask) in masks {
        for bit in 0..64 {
            let argument = 1u64 << bit;
            let expected = if argument & mask == 0 { Err(Errno::EINVAL) } else { Ok(0) };
            assert_eq!(enable(&process, vm, cap, argument), expected, "{cap} bit {bit}");
        }
        let flagged = EnableCap { cap: cap.0, flags: 1, args: [0; 4], pad: [0; 64] };
        assert_eq!(process.with(vm, nr::KVM_ENABLE_CAP, &flagged), Err(Errno::EINVAL), "{cap}");
    }
    for cap in [Cap::EXCEPTION_PAYLOAD, Cap::X86_TRIPLE_FAULT_EVENT] {
        assert_eq!(enable(&process, vm, cap, u64::MAX), Ok(0), "{cap}");
    }
    for cap in [Cap::IRQCHIP, Cap(0x1234), Cap::VM_TYPES, Cap::X86_NOTIFY_VMEXIT] {
        assert_eq!(enable(&process, vm, cap, 1), Err(Errno::EINVAL), "{cap}");
    }
    assert_eq!(enable(&process, vm, Cap::MANUAL_DIRTY_LOG_PROTECT2, 2), Err(Errno::EINVAL));
    assert_eq!(enable(&process, vm, Cap::MANUAL_DIRTY_LOG_PROTECT2, 3), Ok(0));
}

#[test]
fn what_comes_after_the_first_vcpu_comes_too_late() {
    let too_late = [
        (Cap::SPLIT_IRQCHIP, 24, Errno::EEXIST),
        (Cap::PMU_CAPABILITY, 1, Errno::EINVAL),
        (Cap::VM_DISABLE_NX_HUGE_PAGES, 0, Errno::EINVAL),
    ];
    for (cap, argument, errno) in too_late {
        let process = Process::new();
        let vm = process.vm(VmType::Default);
        assert_eq!(enable(&process, vm, cap, argument), Ok(0), "{cap}");
        let vm = process.vm(VmType::Default);
        process.vcpu(vm, 0);
        assert_eq!(enable(&process, vm, cap, argument), Err(errno), "{cap}");
    }
    let process = Process::on(Dialect::Linux7_2, Host::INTEL);
    let vm = process.vm(VmType::Default);
    assert_eq!(enable(&process, vm, Cap::X86_NOTIFY_VMEXIT, 1 << 32 | 3), Ok(0));
}

#[test]
fn the_tick_of_the_apics_bus_needs_the_apics_and_fits_the_longest_count() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    let cap = Cap::X86_APIC_BUS_CYCLES_NS;
    assert_eq!(enable(&process, vm, cap, 0), Err(Errno::EINVAL));
    assert_eq!(enable(&process, vm, cap, 1 << 26), Err(Errno::EINVAL), "it would wrap");
    assert_eq!(enable(&process, vm, cap, 40), Err(Errno::ENXIO));
    assert_eq!(enable(&process, vm, Cap::SPLIT_IRQCHIP, 24), Ok(0));
    assert_eq!(enable(&process, vm, cap, 40), Ok(0));
    process.vcpu(vm, 0);
    assert_eq!(enable(&process, vm, cap, 40), Err(Errno::EINVAL));
}

#[test]
fn a_vcpu_has_any_free_id_below_the_limit_and_keeps_it_when_it_is_closed() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    let highest = process.ioctl(vm, nr::KVM_CHECK_EXTENSION, u64::from(Cap::MAX_VCPU_ID.0)).unwrap() - 1;
    let vcpu = process.vcpu(vm, 7);
    process.vcpu(vm, u64::from(highest));
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_VCPU, u64::from(highest) + 1), Err(Errno::EINVAL));
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_VCPU, 1 << 32), Err(Errno::EINVAL));
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_VCPU, 7), Err(Errno::EEXIST));
    process.device.close(vcpu).unwrap();
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_VCPU, 7), Err(Errno::EEXIST));
}

#[test]
fn the_limit_of_ids_is_set_once_and_not_below_the_boot_processor() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    assert_eq!(process.ioctl(vm, nr::KVM_SET_BOOT_CPU_ID, 3), Ok(0));
    assert_eq!(enable(&process, vm, Cap::MAX_VCPU_ID, 2), Err(Errno::EINVAL));
    assert_eq!(enable(&process, vm, Cap::MAX_VCPU_ID, 5000), Err(Errno::EINVAL));
    assert_eq!(enable(&process, vm, Cap::MAX_VCPU_ID, 4), Ok(0));
    assert_eq!(enable(&process, vm, Cap::MAX_VCPU_ID, 4), Ok(0));
    assert_eq!(enable(&process, vm, Cap::MAX_VCPU_ID, 8), Err(Errno::EINVAL));
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_VCPU, 4), Err(Errno::EINVAL));
    process.vcpu(vm, 3);
    assert_eq!(process.ioctl(vm, nr::KVM_SET_BOOT_CPU_ID, 3), Err(Errno::EBUSY));
}
