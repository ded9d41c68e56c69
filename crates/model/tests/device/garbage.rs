//! Whatever bytes a process gives, each ioctl has an answer.

use crate::process::{ARG, Process};
use exeunt_abi::Dialect;
use exeunt_abi::kvm::ioctl::{self as nr, KNOWN};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_model::Host;
use exeunt_model::device::Path;
use proptest::prelude::*;

/// Ioctls whose argument is a plain number that makes something, which would only fill the table.
fn makes_descriptors(known: &nr::Known) -> bool {
    matches!(known.ioctl, nr::KVM_CREATE_VM | nr::KVM_GET_STATS_FD)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_struct_panics_any_ioctl(
        bytes in prop::collection::vec(prop_oneof![4 => Just(0u8), 2 => 0u8..8, 1 => any::<u8>()], 4500),
        calls in prop::collection::vec((0..KNOWN.len(), 0usize..4, prop_oneof![3 => Just(ARG), 1 => any::<u64>()]), 1..60),
        vm_type in 0u64..6,
        intel in any::<bool>(),
        dialect in 0..Dialect::RELEASES.len(),
    ) {
        let host = if intel { Host::INTEL } else { Host::AMD };
        let process = Process::on(Dialect::RELEASES[dialect], host);
        let vm = process.ioctl(process.kvm(), nr::KVM_CREATE_VM, vm_type);
        let vm = vm.map_or_else(|_| process.vm(VmType::Default), |vm| i32::try_from(vm).unwrap());
        let vcpu = process.ioctl(vm, nr::KVM_CREATE_VCPU, 0).map_or(vm, |vcpu| i32::try_from(vcpu).unwrap());
        let sev = process.device.open(Path::Sev).unwrap_or(vm);
        let fds = [process.kvm(), vm, vcpu, sev];
        for (index, fd, arg) in calls {
            let known = &KNOWN[index];
            if makes_descriptors(known) {
                continue;
            }
            process.memory.write(ARG, &bytes).unwrap();
            // Any answer will do; a vCPU runs with whatever it was given.
            let _ = process.ioctl(fds[fd], known.ioctl, arg);
            let _ = process.ioctl(vcpu, nr::KVM_RUN, 0);
        }
    }

    #[test]
    fn no_run_page_panics_the_entry(bytes in prop::collection::vec(any::<u8>(), 2352), vm_type in 0u64..5) {
        let process = Process::new();
        let vm = process.vm(VmType::from_number(vm_type).unwrap());
        let vcpu = process.vcpu(vm, 0);
        process.device.write_run_page(vcpu, 0, &bytes).unwrap();
        for _ in 0..3 {
            let _ = process.ioctl(vcpu, nr::KVM_RUN, 0);
        }
        process.device.write_run_page(vcpu, 288, &[0; 16]).unwrap();
        process.device.write_run_page(vcpu, 0, &[0; 32]).unwrap();
        let _ = process.ioctl(vcpu, nr::KVM_RUN, 0);
    }
}
