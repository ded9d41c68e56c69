//! `/dev/kvm` and `/dev/sev` beyond making VMs: CPUID, registers, attributes, the platform.

use crate::process::{ARG, Process, READ_ONLY, UNMAPPED};
use exeunt_abi::kvm::cpuid::{Cpuid2, CpuidEntry2};
use exeunt_abi::kvm::device_attr::{DeviceAttr, X86_GRP_SEV, X86_GRP_SYSTEM, sev_attr};
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::msr::MsrEntry;
use exeunt_abi::kvm::sev::platform::{SevIssueCmd, SnpPlatformStatus, command};
use exeunt_abi::{Dialect, Errno};
use exeunt_model::Host;
use exeunt_model::device::Path;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const DATA: u64 = 0x7100_0000;

fn supported(process: &Process, nent: u32) -> Result<Vec<CpuidEntry2>, Errno> {
    process.with(process.kvm(), nr::KVM_GET_SUPPORTED_CPUID, &Cpuid2 { nent, padding: 0 })?;
    let count = usize::try_from(process.argument::<Cpuid2>().nent).unwrap();
    let mut bytes = vec![0; count * size_of::<CpuidEntry2>()];
    process.memory.read(ARG + 8, &mut bytes).unwrap();
    Ok(bytes.chunks_exact(40).map(|entry| CpuidEntry2::read_from_bytes(entry).unwrap()).collect())
}

#[test]
fn the_table_of_the_host_shows_sev_on_amd_alone_and_does_not_fit_a_smaller_buffer() {
    let process = Process::new();
    let table = supported(&process, 256).unwrap();
    let leaf = |function| table.iter().find(|entry| entry.function == function);
    let encryption = leaf(0x8000_001f).unwrap();
    assert_eq!(encryption.eax, 0b11_1010, "SEV, SEV-ES, SNP, VMPL");
    assert_eq!(encryption.ebx & 0x3f, 51, "the C-bit of the model's guests");
    assert_eq!(leaf(0x4000_0000).unwrap().ebx.to_le_bytes(), *b"KVMK");
    let count = u32::try_from(table.len()).unwrap();
    for nent in 0..count {
        assert_eq!(supported(&process, nent).err(), Some(Errno::E2BIG), "{nent}");
        assert_eq!(process.argument::<Cpuid2>().nent, nent, "not written");
    }
    assert_eq!(supported(&process, u32::MAX).unwrap().len(), table.len());
    let intel = Process::on(Dialect::Linux7_2, Host::INTEL);
    assert!(supported(&intel, 256).unwrap().iter().all(|entry| entry.function != 0x8000_001f));
    let old = Process::on(Dialect::Linux6_1, Host::AMD);
    let old = supported(&old, 256).unwrap();
    let eax = old.iter().find(|entry| entry.function == 0x8000_001f).unwrap().eax;
    assert_eq!(eax, 0b1010, "without SNP");
}

#[test]
fn a_guest_takes_the_hosts_table_and_gives_it_back() {
    let process = Process::new();
    let table = supported(&process, 256).unwrap();
    let vcpu = process.vcpu(process.vm(exeunt_abi::kvm::vm_type::VmType::Default), 0);
    assert_eq!(process.ioctl(vcpu, nr::KVM_SET_CPUID2, ARG), Ok(0));
    process.memory.write(ARG, Cpuid2 { nent: 1, padding: 0 }.as_bytes()).unwrap();
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_CPUID2, ARG), Err(Errno::E2BIG));
    process.memory.write(ARG, Cpuid2 { nent: 256, padding: 0 }.as_bytes()).unwrap();
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_CPUID2, ARG), Ok(0));
    assert_eq!(process.argument::<Cpuid2>().nent, u32::try_from(table.len()).unwrap());
    process.memory.write(ARG, Cpuid2 { nent: 257, padding: 0 }.as_bytes()).unwrap();
    assert_eq!(process.ioctl(vcpu, nr::KVM_SET_CPUID2, ARG), Err(Errno::E2BIG));
}

#[test]
fn the_lists_of_registers_say_how_long_they_are_and_each_listed_one_is_read() {
    let process = Process::new();
    let vcpu = process.vcpu(process.vm(exeunt_abi::kvm::vm_type::VmType::Default), 0);
    let kvm = process.kvm();
    for (list, fd) in
        [(nr::KVM_GET_MSR_INDEX_LIST, vcpu), (nr::KVM_GET_MSR_FEATURE_INDEX_LIST, process.kvm())]
    {
        assert_eq!(process.with(kvm, list, &0u32), Err(Errno::E2BIG), "{list}");
        let count: u32 = process.argument();
        assert!(count > 0);
        assert_eq!(process.with(kvm, list, &count), Ok(0));
        let mut bytes = vec![0; usize::try_from(count).unwrap() * 4];
        process.memory.read(ARG + 4, &mut bytes).unwrap();
        let entries: Vec<MsrEntry> = bytes
            .chunks_exact(4)
            .map(|index| u32::from_le_bytes(index.try_into().unwrap()))
            // The auxiliary register of the time stamp counter needs a feature that CPUID does not show here.
            .filter(|index| *index != 0xc000_0103)
            .map(|index| MsrEntry { index, reserved: 0, data: 0 })
            .collect();
        let count = u32::try_from(entries.len()).unwrap();
        let argument = [&u64::from(count).to_le_bytes()[..], entries.as_bytes()].concat();
        assert_eq!(process.with(fd, nr::KVM_GET_MSRS, &*argument), Ok(count), "{list}");
    }
    assert_eq!(process.ioctl(kvm, nr::KVM_GET_MSR_INDEX_LIST, READ_ONLY), Err(Errno::EFAULT));
}

#[test]
fn a_list_of_msrs_ends_at_the_first_that_fails_and_256_are_too_many() {
    let process = Process::new();
    let vcpu = process.vcpu(process.vm(exeunt_abi::kvm::vm_type::VmType::Default), 0);
    let set = |entries: &[MsrEntry]| {
        let count = u64::try_from(entries.len()).unwrap();
        let argument = [&count.to_le_bytes()[..], entries.as_bytes()].concat();
        process.with(vcpu, nr::KVM_SET_MSRS, &*argument)
    };
    let entry = |index, data| MsrEntry { index, reserved: 0, data };
    assert_eq!(set(&[entry(0x174, 1), entry(0xdead, 1), entry(0x174, 2)]), Ok(1));
    assert_eq!(set(&[entry(0x277, 2), entry(0x174, 3)]), Ok(0), "no such memory type");
    assert_eq!(set(&[]), Ok(0));
    assert_eq!(set(&vec![entry(0x174, 1); 255]), Ok(255));
    assert_eq!(set(&vec![entry(0x174, 1); 256]), Err(Errno::E2BIG));
    assert_eq!(process.ioctl(vcpu, nr::KVM_SET_MSRS, UNMAPPED), Err(Errno::EFAULT));
}

#[test]
fn attributes_of_dev_kvm_are_those_of_release_and_host() {
    let get = |process: &Process, group, attr, addr| {
        let attr = DeviceAttr { flags: 0, group, attr, addr };
        process.with(process.kvm(), nr::KVM_GET_DEVICE_ATTR, &attr)
    };
    let process = Process::new();
    for attr in 0..3 {
        assert_eq!(get(&process, X86_GRP_SEV, attr, DATA), Ok(0), "{attr}");
    }
    assert_eq!(get(&process, X86_GRP_SEV, 3, DATA), Err(Errno::ENXIO));
    assert_eq!(get(&process, X86_GRP_SYSTEM, 0, DATA), Ok(0));
    assert_eq!(get(&process, X86_GRP_SYSTEM, 1, DATA), Err(Errno::ENXIO));
    assert_eq!(get(&process, 2, 0, DATA), Err(Errno::ENXIO));
    assert_eq!(get(&process, X86_GRP_SEV, 0, UNMAPPED), Err(Errno::EFAULT));
    let has = DeviceAttr { flags: 0, group: X86_GRP_SEV, attr: 0, addr: UNMAPPED };
    assert_eq!(process.with(process.kvm(), nr::KVM_HAS_DEVICE_ATTR, &has), Ok(0), "the address is not used");
    let intel = Process::on(Dialect::Linux7_2, Host::INTEL);
    assert_eq!(get(&intel, X86_GRP_SEV, 0, DATA), Err(Errno::ENXIO));
    let older = Process::on(Dialect::Linux6_12, Host::AMD);
    assert_eq!(get(&older, X86_GRP_SEV, sev_attr::SEV_SNP_REQ_CERTS, DATA), Err(Errno::ENXIO));
    let oldest = Process::on(Dialect::Linux5_10, Host::AMD);
    assert_eq!(get(&oldest, X86_GRP_SYSTEM, 0, DATA), Err(Errno::EINVAL), "no such ioctl");
}

#[test]
fn dev_sev_answers_a_command_for_the_platform_and_no_other_ioctl() {
    let process = Process::new();
    let sev = process.device.open(Path::Sev).unwrap();
    let mut cmd = SevIssueCmd::new_zeroed();
    cmd.cmd = command::SNP_PLATFORM_STATUS.into();
    cmd.data = DATA.into();
    assert_eq!(process.with(sev, nr::SEV_ISSUE_CMD, &cmd), Ok(0));
    let mut status = SnpPlatformStatus::new_zeroed();
    process.memory.read(DATA, status.as_mut_bytes()).unwrap();
    assert_eq!(status.api_major, 1);
    cmd.cmd = 0x1000.into();
    assert_eq!(process.with(sev, nr::SEV_ISSUE_CMD, &cmd), Err(Errno::EINVAL));
    assert_eq!(process.ioctl(sev, nr::SEV_ISSUE_CMD, UNMAPPED), Err(Errno::EFAULT));
    assert_eq!(process.ioctl(sev, nr::KVM_GET_API_VERSION, 0), Err(Errno::EINVAL));
    let reader = process.device.open_sev(false).unwrap();
    cmd.cmd = command::FACTORY_RESET.into();
    assert_eq!(process.with(reader, nr::SEV_ISSUE_CMD, &cmd), Err(Errno::EPERM));
    let copy = process.device.dup(sev).unwrap();
    assert_eq!(process.with(copy, nr::SEV_ISSUE_CMD, &cmd), Ok(0));
    let intel = Process::on(Dialect::Linux7_2, Host::INTEL);
    assert_eq!(intel.device.open(Path::Sev), Err(Errno::ENOENT));
}

#[test]
fn what_qemu_writes_into_a_vcpu_it_was_given_is_taken_to_the_last_register() {
    let process = Process::new();
    let vcpu = process.vcpu(process.vm(exeunt_abi::kvm::vm_type::VmType::Default), 0);
    assert_eq!(process.with(vcpu, nr::KVM_X86_SETUP_MCE, &(1u64 << 8 | 0xa)), Ok(0));
    let zero = [
        0x174,
        0x175,
        0x176,
        0xc000_0081,
        0xc001_0117,
        0x10,
        0xc000_0083,
        0xc000_0102,
        0xc000_0084,
        0xc000_0082,
        0x12,
        0x11,
        0x4b56_4d02,
        0x4b56_4d06,
        0x4b56_4d04,
        0x4b56_4d03,
        0x2ff,
        0x250,
        0x258,
        0x26f,
        0x200,
        0x20f,
        0x17a,
    ];
    let mut entries: Vec<MsrEntry> =
        zero.into_iter().map(|index| MsrEntry { index, reserved: 0, data: 0 }).collect();
    let others = [(0x277, 0x0007_0406_0007_0406), (0x1a0, 1), (0x4b56_4d05, 1), (0x17b, u64::MAX)];
    entries.extend(others.map(|(index, data)| MsrEntry { index, reserved: 0, data }));
    entries.extend((0x400..0x428).step_by(4).map(|index| MsrEntry { index, reserved: 0, data: u64::MAX }));
    entries.extend((0x401..0x428).step_by(4).map(|index| MsrEntry { index, reserved: 0, data: 0 }));
    let count = u32::try_from(entries.len()).unwrap();
    let argument = [&u64::from(count).to_le_bytes()[..], entries.as_bytes()].concat();
    assert_eq!(process.with(vcpu, nr::KVM_SET_MSRS, &*argument), Ok(count));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_MSRS, ARG), Ok(count));
    let behind = MsrEntry { index: 0x428, reserved: 0, data: 0 };
    let argument = [&1u64.to_le_bytes()[..], behind.as_bytes()].concat();
    assert_eq!(process.with(vcpu, nr::KVM_SET_MSRS, &*argument), Ok(0), "the bank behind the last");
}
