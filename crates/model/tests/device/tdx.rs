//! A TD by ioctls: its commands, and what KVM cannot do for it.

use crate::process::{ARG, Process};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::cpuid::{Cpuid2, CpuidEntry2};
use exeunt_abi::kvm::device_attr::EnableCap;
use exeunt_abi::kvm::ioctl::{self as nr, Ioctl};
use exeunt_abi::kvm::msr::{MsrEntry, Msrs};
use exeunt_abi::kvm::regs::LAPIC_BYTES;
use exeunt_abi::kvm::tdx::{InitVm, TdxCmd, id};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::tdx::attributes;
use exeunt_abi::{Dialect, Errno};
use exeunt_model::Host;
use zerocopy::{FromZeros, IntoBytes};

/// Where the argument of a command is.
const DATA: u64 = ARG + 0x1000;

/// A TD with a split irqchip, and its first vCPU.
fn td() -> (Process, i32, i32) {
    let process = Process::on(Dialect::Linux7_2, Host::INTEL);
    let vm = process.vm(VmType::Tdx);
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_VCPU, 0), Err(Errno::EIO), "before KVM_TDX_INIT_VM");
    assert_eq!(init(&process, vm), Ok(0));
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_VCPU, 0), Err(Errno::EINVAL), "without local APICs");
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_IRQCHIP, 0), Err(Errno::ENOTTY));
    let split = EnableCap { cap: Cap::SPLIT_IRQCHIP.0, args: [24, 0, 0, 0], ..EnableCap::new_zeroed() };
    assert_eq!(process.with(vm, nr::KVM_ENABLE_CAP, &split), Ok(0));
    let vcpu = process.vcpu(vm, 0);
    (process, vm, vcpu)
}

fn command(process: &Process, fd: i32, id: u32, data: u64) -> Result<u32, Errno> {
    let cmd = TdxCmd { id, flags: 0, data, hw_error: 0 };
    process.with(fd, nr::KVM_MEMORY_ENCRYPT_OP, &cmd)
}

fn init(process: &Process, vm: i32) -> Result<u32, Errno> {
    let mut init = InitVm::new_zeroed();
    init.attributes = attributes::SEPT_VE_DISABLE;
    init.xfam = 0xe7;
    let entries = [CpuidEntry2 { function: 0x8000_0008, eax: 48 << 16, ..CpuidEntry2::default() }];
    init.cpuid_nent = 1;
    process.memory.write(DATA, &[init.as_bytes(), entries.as_bytes()].concat()).unwrap();
    command(process, vm, id::INIT_VM, DATA)
}

fn set_cpuid(process: &Process, vcpu: i32) {
    let leaf = |function, eax, ecx| CpuidEntry2 { function, eax, ecx, ..CpuidEntry2::default() };
    let entries =
        [leaf(0, 1, 0), leaf(1, 0, 1 << 21), leaf(0x8000_0000, 0x8000_0008, 0), leaf(0x8000_0008, 52, 0)];
    let bytes = [Cpuid2 { nent: 4, padding: 0 }.as_bytes(), entries.as_bytes()].concat();
    assert_eq!(process.with(vcpu, nr::KVM_SET_CPUID2, bytes.as_slice()), Ok(0));
}

#[test]
fn a_td_is_made_by_its_ioctls_and_runs() {
    let (process, vm, vcpu) = td();
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(Errno::EINVAL));
    set_cpuid(&process, vcpu);
    assert_eq!(command(&process, vcpu, id::INIT_VCPU, 0), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(Errno::EINVAL));
    assert_eq!(command(&process, vm, id::FINALIZE_VM, 0), Ok(0));
    // It halts in the kernel, and nobody wakes it.
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(Errno::EINTR));
}

#[test]
fn commands_go_to_the_file_that_has_them() {
    let (process, vm, vcpu) = td();
    for (fd, id) in [(vm, id::INIT_VCPU), (vm, 99), (vcpu, id::FINALIZE_VM), (vcpu, 99)] {
        assert_eq!(command(&process, fd, id, 0), Err(Errno::EINVAL), "{id}");
    }
    assert_eq!(command(&process, vm, id::CAPABILITIES, crate::process::UNMAPPED), Err(Errno::EFAULT));
    assert_eq!(process.ioctl(vm, nr::KVM_MEMORY_ENCRYPT_OP, crate::process::UNMAPPED), Err(Errno::EFAULT));
    let plain = process.vm(VmType::Default);
    assert_eq!(command(&process, plain, id::CAPABILITIES, DATA), Err(Errno::ENOTTY));
    let vcpu = process.vcpu(plain, 0);
    assert_eq!(command(&process, vcpu, id::INIT_VCPU, 0), Err(Errno::EINVAL));
}

#[test]
fn the_registers_the_local_apic_and_the_clock_of_a_td_are_closed_from_the_first() {
    let (process, _, vcpu) = td();
    let gets = [nr::KVM_GET_REGS, nr::KVM_GET_SREGS, nr::KVM_GET_SREGS2, nr::KVM_GET_FPU, nr::KVM_GET_XSAVE];
    let sets = [nr::KVM_SET_REGS, nr::KVM_SET_SREGS, nr::KVM_SET_XSAVE, nr::KVM_SET_GUEST_DEBUG];
    let more = [nr::KVM_GET_XCRS, nr::KVM_SET_XCRS, nr::KVM_GET_DEBUGREGS, nr::KVM_SET_DEBUGREGS];
    let refused = |request: Ioctl| {
        assert_eq!(process.with(vcpu, request, &[0u8; 4096]), Err(Errno::EINVAL), "{:#x}", request.0);
    };
    gets.into_iter().chain(sets).chain(more).for_each(refused);
    refused(nr::KVM_GET_LAPIC);
    assert_eq!(process.with(vcpu, nr::KVM_SET_LAPIC, &[0u8; LAPIC_BYTES]), Err(Errno::EINVAL));
    assert_eq!(process.ioctl(vcpu, nr::KVM_SET_TSC_KHZ, 1_000_000), Err(Errno::EINVAL));
}

#[test]
fn userspace_reaches_the_msrs_of_a_td_that_kvm_emulates() {
    let (process, _, vcpu) = td();
    // EFER, PAT, LSTAR.
    for (index, reads, writes) in [(0xc000_0080, 1, 0), (0x277, 1, 1), (0xc000_0082, 0, 0)] {
        let list = |data| {
            let entry = MsrEntry { index, reserved: 0, data };
            [Msrs { nmsrs: 1, pad: 0 }.as_bytes(), entry.as_bytes()].concat()
        };
        assert_eq!(process.with(vcpu, nr::KVM_GET_MSRS, list(0).as_slice()), Ok(reads), "{index:#x}");
        let value = process.argument::<[u64; 3]>()[2];
        assert_eq!(process.with(vcpu, nr::KVM_SET_MSRS, list(value).as_slice()), Ok(writes), "{index:#x}");
        if index == 0xc000_0080 {
            assert_eq!(value, 0xd01);
        }
    }
}

#[test]
fn a_td_has_no_more_vcpus_than_the_host_has_processors() {
    let (process, vm, _) = td();
    let ask = |cap: Cap| process.ioctl(vm, nr::KVM_CHECK_EXTENSION, u64::from(cap.0));
    let most = ask(Cap::MAX_VCPUS).unwrap();
    assert_eq!((ask(Cap::NR_VCPUS), most), (Ok(most), 8));
    for id in 1..u64::from(most) {
        process.vcpu(vm, id);
    }
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_VCPU, u64::from(most)), Err(Errno::EINVAL));
}
