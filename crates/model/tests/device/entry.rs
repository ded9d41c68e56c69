//! The checks of `KVM_RUN` in their order, each seen at the bytes of the page.

use crate::process::{ARG, Process};
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::mp_state;
use exeunt_abi::kvm::regs::{Regs, SYNC_ALL, SYNC_EVENTS, SYNC_REGS, SYNC_SREGS, Sregs, SyncRegs};
use exeunt_abi::kvm::run::{ExitReason, Io};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno};
use exeunt_model::Host;
use exeunt_model::device::RUN_BYTES;
use zerocopy::{FromBytes, IntoBytes};

/// Where the registers of the page are.
const VALID: usize = 288;
const DIRTY: usize = 296;
const SYNC: usize = 288;

fn set(process: &Process, vcpu: i32, at: usize, bytes: &[u8]) {
    process.device.write_run_page(vcpu, at, bytes).unwrap();
}

fn sync(process: &Process, vcpu: i32) -> SyncRegs {
    let mut bytes = vec![0; size_of::<SyncRegs>()];
    process.device.read_run_page(vcpu, SYNC, &mut bytes).unwrap();
    SyncRegs::read_from_bytes(&bytes).unwrap()
}

/// A vCPU whose page says that an earlier exit was a memory fault.
fn stale(process: &Process, vm_type: VmType) -> i32 {
    let vcpu = process.vcpu(process.vm(vm_type), 0);
    set(process, vcpu, 8, &39u32.to_le_bytes());
    vcpu
}

#[test]
fn an_argument_is_refused_before_anything_is_written() {
    let process = Process::new();
    let vcpu = stale(&process, VmType::Default);
    set(&process, vcpu, 14, &[7, 7]);
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 1), Err(Errno::EINVAL));
    let page = process.page(vcpu);
    assert_eq!((page.reason(), page.flags), (ExitReason::MEMORY_FAULT, 0x707));
}

#[test]
fn immediate_exit_ends_it_with_a_stale_reason_and_clears_the_flags() {
    let process = Process::new();
    let vcpu = stale(&process, VmType::Default);
    set(&process, vcpu, 1, &[1]);
    set(&process, vcpu, 14, &[7, 7]);
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(Errno::EINTR));
    let page = process.page(vcpu);
    assert_eq!((page.reason(), page.flags), (ExitReason::MEMORY_FAULT, 0));
    assert_eq!((page.apic_base, page.if_flag), (0xfee0_0900, 0), "written on the way out");
}

#[test]
fn a_kicked_vcpu_that_had_no_init_is_interrupted_and_says_so_only_if_it_wanted_to_run() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_IRQCHIP, 0), Ok(0));
    let vcpu = process.vcpu(vm, 1);
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_MP_STATE, ARG), Ok(0));
    assert_eq!(process.argument::<u32>(), mp_state::UNINITIALIZED);
    set(&process, vcpu, 8, &39u32.to_le_bytes());
    set(&process, vcpu, 1, &[1]);
    // A bit of `kvm_valid_regs` that no kernel knows is not looked at yet.
    set(&process, vcpu, VALID, &[0xff]);
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(Errno::EINTR));
    assert_eq!(process.page(vcpu).reason(), ExitReason::MEMORY_FAULT, "stale");
    set(&process, vcpu, 1, &[0]);
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(Errno::EINTR));
    assert_eq!(process.page(vcpu).reason(), ExitReason::INTR);
}

#[test]
fn each_unknown_bit_of_the_synchronised_registers_is_refused_and_all_are_for_a_protected_type() {
    for vm_type in [VmType::Default, VmType::SevEs, VmType::Snp] {
        let supported = if vm_type == VmType::Default { SYNC_ALL } else { 0 };
        for bit in 0..64 {
            let process = Process::new();
            let vcpu = stale(&process, vm_type);
            set(&process, vcpu, VALID, &(1u64 << bit).to_le_bytes());
            // EINTR comes after it, so that no VM has to be launched.
            set(&process, vcpu, 1, &[1]);
            let expected = if supported >> bit & 1 == 1 { Errno::EINTR } else { Errno::EINVAL };
            assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(expected), "{vm_type:?} bit {bit}");
            assert_eq!(process.page(vcpu).reason(), ExitReason::MEMORY_FAULT, "stale");
        }
    }
}

#[test]
fn dirty_registers_are_loaded_and_their_marks_cleared_and_valid_ones_stored() {
    let process = Process::new();
    let vcpu = process.vcpu(process.vm(VmType::Default), 0);
    let mut regs = sync(&process, vcpu);
    regs.regs = Regs { rbx: 0xb, rip: 0x1234, ..Regs::default() };
    regs.kvm_dirty_regs = SYNC_REGS;
    set(&process, vcpu, SYNC, regs.as_bytes());
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Ok(0));
    assert_eq!(sync(&process, vcpu).kvm_dirty_regs, 0);
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_REGS, ARG), Ok(0));
    let got: Regs = process.argument();
    assert_eq!((got.rbx, got.rip, got.rflags), (0xb, 0x1234, 2));
    set(&process, vcpu, VALID, &(SYNC_REGS | SYNC_SREGS | SYNC_EVENTS).to_le_bytes());
    set(&process, vcpu, 1, &[1]);
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(Errno::EINTR), "stored after an error, too");
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_SREGS, ARG), Ok(0));
    assert_eq!(sync(&process, vcpu).sregs, process.argument::<Sregs>());
    assert_eq!(sync(&process, vcpu).regs, got);
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_VCPU_EVENTS, ARG), Ok(0));
    assert_eq!(sync(&process, vcpu).events, process.argument::<VcpuEvents>());
}

#[test]
fn dirty_registers_that_are_refused_keep_their_mark_and_those_before_are_taken() {
    let process = Process::new();
    let vcpu = process.vcpu(process.vm(VmType::Default), 0);
    let mut regs = sync(&process, vcpu);
    regs.regs = Regs { rbx: 0xb, ..Regs::default() };
    regs.sregs.head.cr0 = 1 << 31;
    regs.kvm_dirty_regs = SYNC_REGS | SYNC_SREGS;
    set(&process, vcpu, SYNC, regs.as_bytes());
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(Errno::EINVAL));
    assert_eq!(sync(&process, vcpu).kvm_dirty_regs, SYNC_SREGS);
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_REGS, ARG), Ok(0));
    assert_eq!(process.argument::<Regs>().rbx, 0xb);
}

#[test]
fn cr8_is_loaded_with_a_local_apic_in_userspace_and_an_illegal_one_is_refused() {
    for in_kernel in [false, true] {
        let process = Process::new();
        let vm = process.vm(VmType::Default);
        if in_kernel {
            assert_eq!(process.ioctl(vm, nr::KVM_CREATE_IRQCHIP, 0), Ok(0));
        }
        let vcpu = process.vcpu(vm, 0);
        for cr8 in 0..0x20u64 {
            set(&process, vcpu, 16, &cr8.to_le_bytes());
            set(&process, vcpu, 1, &[1]);
            let refused = !in_kernel && cr8 > 0xf;
            let expected = if refused { Errno::EINVAL } else { Errno::EINTR };
            assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(expected), "{cr8} {in_kernel}");
            let left = match (in_kernel, refused) {
                (true, _) => 0,
                (false, true) => 0xf,
                (false, false) => cr8,
            };
            assert_eq!(process.page(vcpu).cr8, left, "{cr8} {in_kernel}");
        }
    }
}

#[test]
fn a_completion_comes_before_immediate_exit_and_after_cr8() {
    let process = Process::new();
    process.device.set_guest(|_, cpu| {
        Box::pin(async move {
            let value = cpu.port_in(0x60, 1).await?;
            cpu.port_out(0x61, 1, u32::try_from(value).unwrap_or(0)).await
        })
    });
    let vcpu = process.vcpu(process.vm(VmType::Default), 0);
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Ok(0));
    assert_eq!(process.page(vcpu).reason(), ExitReason::IO);
    process.device.with_port_data(vcpu, |data| data[0] = 0x5a).unwrap();
    set(&process, vcpu, 16, &[0x10]);
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(Errno::EINVAL), "the answer still waits");
    set(&process, vcpu, 16, &[0]);
    set(&process, vcpu, 1, &[1]);
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(Errno::EINTR));
    process.device.with_port_data(vcpu, |data| data[0] = 0).unwrap();
    set(&process, vcpu, 1, &[0]);
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Ok(0));
    let io: Io = process.page(vcpu).payload();
    assert_eq!((io.direction, io.port, io.data_offset), (1, 0x61, 0x1000));
    assert_eq!(process.device.with_port_data(vcpu, |data| data[0]), Ok(0x5a), "taken before");
}

#[test]
fn a_vm_that_needs_an_init_does_not_run() {
    for vm_type in [VmType::Sev, VmType::SevEs, VmType::Snp] {
        let process = Process::new();
        let vcpu = stale(&process, vm_type);
        assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(Errno::EINVAL), "{vm_type:?}");
        assert_eq!(process.page(vcpu).reason(), ExitReason::MEMORY_FAULT, "stale");
    }
}

#[test]
fn a_process_with_its_own_pages_gets_all_but_its_own_bytes_back() {
    let process = Process::new();
    process.device.set_guest(|_, cpu| Box::pin(async move { cpu.port_out(0x80, 4, 0x0403_0201).await }));
    let vcpu = process.vcpu(process.vm(VmType::Default), 0);
    let (mut run, mut port_data) = ([0u8; 4096], [0u8; 4096]);
    run[0] = 3;
    run[RUN_BYTES..].fill(0xee);
    let result = process.device.run_on_pages(vcpu, 0, &process.memory, &mut run, &mut port_data);
    assert_eq!(result, Ok(0));
    assert_eq!((run[0], u32::from_le_bytes(run[8..12].try_into().unwrap())), (3, ExitReason::IO.0));
    assert_eq!(port_data[..4], [1, 2, 3, 4]);
    run[1] = 1;
    let result = process.device.run_on_pages(vcpu, 0, &process.memory, &mut run, &mut port_data);
    assert_eq!((result, run[1]), (Err(Errno::EINTR), 1));
    let dirty = u64::from_le_bytes(run[DIRTY..DIRTY + 8].try_into().unwrap());
    assert_eq!(dirty, 0);
}

#[test]
fn a_kick_ends_a_kvm_run_on_another_thread() {
    let process = Process::on(Dialect::Linux7_2, Host::AMD);
    let vm = process.vm(VmType::Default);
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_IRQCHIP, 0), Ok(0));
    let vcpu = process.vcpu(vm, 0);
    process.device.vm(vm).unwrap().set_blocking(true);
    let kick = process.device.kick(vcpu).unwrap();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| process.ioctl(vcpu, nr::KVM_RUN, 0));
        while !kick.is_asleep() {
            std::thread::yield_now();
        }
        kick.set(true);
        assert_eq!(run.join().unwrap(), Err(Errno::EINTR));
    });
    assert_eq!(process.page(vcpu).reason(), ExitReason::INTR);
}
