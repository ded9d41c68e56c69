//! The state of a vCPU by the bytes of its ioctls.

use exeunt_abi::kvm::cpuid::CpuidEntry2;
use exeunt_abi::kvm::mp_state;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use exeunt_model::{Host, Kvm, Vcpu};
use exeunt_proto::state::{Area, State};
use zerocopy::IntoBytes;

fn vcpu(vm_type: VmType, arch: Arch) -> Vcpu {
    let kernel = Kernel { dialect: Dialect::Linux7_2, arch };
    let vm = Kvm::on(Host::AMD, kernel).create_vm(vm_type).unwrap();
    if vm_type.has_ghcb() {
        vm.sev_init2(0).unwrap();
    }
    let vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    if vm_type.has_ghcb() {
        vm.launch().unwrap();
    }
    vcpu
}

fn read(vcpu: &mut Vcpu, area: Area) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; area.max_bytes()];
    let length = vcpu.area(area, &mut bytes)?.unwrap();
    bytes.truncate(length);
    Ok(bytes)
}

#[test]
fn every_area_is_read_and_another_vcpu_takes_it_byte_for_byte() {
    let (mut source, mut target) = (vcpu(VmType::Default, Arch::X86), vcpu(VmType::Default, Arch::X86));
    let entry = CpuidEntry2 { function: 1, ecx: 0x20, ..CpuidEntry2::default() };
    source.set_area(Area::Cpuid, [entry, entry].as_bytes()).unwrap();
    let mut regs = read(&mut source, Area::Regs).unwrap();
    regs[..8].copy_from_slice(&0x1234_5678_9abc_def0_u64.to_le_bytes());
    regs[24] = 7;
    source.set_area(Area::Regs, &regs).unwrap();
    let mut sregs = read(&mut source, Area::Sregs).unwrap();
    sregs[240] = 0x40;
    source.set_area(Area::Sregs, &sregs).unwrap();
    for area in Area::ALL {
        let saved = read(&mut source, area).unwrap();
        target.set_area(area, &saved).unwrap();
        assert_eq!(read(&mut target, area), Ok(saved), "{area}");
    }
    assert_eq!(read(&mut target, Area::Regs), Ok(regs));
    assert_eq!((State::mp_state(&mut source), source.vcpu_id()), (Ok(mp_state::RUNNABLE), 0));
    assert_eq!(State::set_mp_state(&mut target, 77), Err(Errno::EINVAL));
}

#[test]
fn bytes_of_another_length_are_refused_and_a_buffer_without_room_is_not_written() {
    let mut vcpu = vcpu(VmType::Default, Arch::X86);
    for area in Area::ALL {
        let saved = read(&mut vcpu, area).unwrap();
        for length in [1, saved.len() + 1] {
            assert_eq!(vcpu.set_area(area, &vec![0; length]), Err(Errno::EINVAL), "{area} of {length}");
        }
        assert_eq!(read(&mut vcpu, area), Ok(saved));
    }
    assert_eq!(vcpu.area(Area::Regs, &mut [0; 143]), Err(Errno::EFAULT));
}

#[test]
fn the_registers_of_a_launched_confidential_guest_are_not_to_be_had_and_its_mp_state_is() {
    let mut vcpu = vcpu(VmType::Snp, Arch::X86);
    for area in Area::ALL.into_iter().filter(|area| *area != Area::Cpuid) {
        assert_eq!(read(&mut vcpu, area), Err(Errno::EINVAL), "{area}");
        assert_eq!(vcpu.set_area(area, &vec![0; area.max_bytes()]), Err(Errno::EINVAL), "{area}");
    }
    assert_eq!(State::mp_state(&mut vcpu), Ok(mp_state::RUNNABLE));
}

#[test]
fn other_architectures_have_no_such_areas_and_a_dead_vm_has_nothing() {
    let mut arm = vcpu(VmType::Default, Arch::Arm64);
    for area in Area::ALL {
        assert_eq!(arm.area(area, &mut vec![0; area.max_bytes()]), Ok(None));
        assert_eq!(arm.set_area(area, &[]), Err(Errno::EOPNOTSUPP));
    }
    let kernel = Kernel { dialect: Dialect::Linux7_2, arch: Arch::X86 };
    let vm = Kvm::on(Host::AMD, kernel).create_vm(VmType::Default).unwrap();
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    vm.kill();
    assert_eq!(read(&mut vcpu, Area::Regs), Err(Errno::EIO));
    assert_eq!(State::mp_state(&mut vcpu), Err(Errno::EIO));
}
