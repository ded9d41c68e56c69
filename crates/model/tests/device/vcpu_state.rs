//! The states of a vCPU that read back as they were set, and what their ioctls refuse.

use crate::process::{ARG, Process, UNMAPPED};
use exeunt_abi::kvm::debug::{GuestDebug, Translation, X86Mce};
use exeunt_abi::kvm::device_attr::DeviceAttr;
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::memory::UserspaceMemoryRegion;
use exeunt_abi::kvm::mp_state;
use exeunt_abi::kvm::regs::{DebugRegs, Fpu, Sregs, Sregs2, Xcr, Xcrs};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno};
use exeunt_model::Host;

fn vcpu() -> (Process, i32) {
    let process = Process::new();
    let vcpu = process.vcpu(process.vm(VmType::Default), 0);
    (process, vcpu)
}

#[test]
fn the_floating_point_registers_are_a_part_of_the_extended_ones() {
    let (process, vcpu) = vcpu();
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_FPU, ARG), Ok(0));
    let mut fpu: Fpu = process.argument();
    assert_eq!((fpu.fcw, fpu.mxcsr), (0x37f, 0), "KVM does not fill MXCSR");
    (fpu.fsw, fpu.ftwx, fpu.last_opcode, fpu.last_ip, fpu.last_dp) = (1, 2, 3, 4, 5);
    fpu.fpr[7] = [0x77; 16];
    fpu.xmm[15] = [0x88; 16];
    fpu.mxcsr = 0x1234;
    assert_eq!(process.with(vcpu, nr::KVM_SET_FPU, &fpu), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_FPU, ARG), Ok(0));
    fpu.mxcsr = 0;
    assert_eq!(process.argument::<Fpu>(), fpu);
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_XSAVE, ARG), Ok(0));
    let mut area: [u8; 4096] = process.argument();
    assert_eq!(
        (&area[24..28], &area[160 + 15 * 16..160 + 16 * 16]),
        (&0x1f80u32.to_le_bytes()[..], &[0x88; 16][..])
    );
    area[512] = 7;
    assert_eq!(process.with(vcpu, nr::KVM_SET_XSAVE, &area), Ok(0));
    for (at, value) in [(513, 0x80), (520, 1), (575, 1), (26, 1)] {
        let mut wrong = area;
        wrong[at] = value;
        assert_eq!(process.with(vcpu, nr::KVM_SET_XSAVE, &wrong), Err(Errno::EINVAL), "byte {at}");
    }
}

#[test]
fn the_debug_registers_have_32_bits_and_no_flags() {
    let (process, vcpu) = vcpu();
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_DEBUGREGS, ARG), Ok(0));
    let reset: DebugRegs = process.argument();
    assert_eq!((reset.dr6, reset.dr7), (0xffff_0ff0, 0x400));
    let set = DebugRegs { db: [1, 2, 3, 4], dr6: 0xffff_0ff1, dr7: 0x401, flags: 0, reserved: [9; 9] };
    assert_eq!(process.with(vcpu, nr::KVM_SET_DEBUGREGS, &set), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_DEBUGREGS, ARG), Ok(0));
    assert_eq!(process.argument::<DebugRegs>(), DebugRegs { reserved: [0; 9], ..set });
    for wrong in
        [DebugRegs { flags: 1, ..set }, DebugRegs { dr6: 1 << 32, ..set }, DebugRegs { dr7: 1 << 32, ..set }]
    {
        assert_eq!(process.with(vcpu, nr::KVM_SET_DEBUGREGS, &wrong), Err(Errno::EINVAL));
    }
}

#[test]
fn xcr0_needs_cpuid_and_only_the_first_of_the_list_counts() {
    let (process, vcpu) = vcpu();
    let list = |first: Xcr, nr_xcrs, flags| {
        let mut xcrs = Xcrs { nr_xcrs, flags, ..Xcrs::default() };
        xcrs.xcrs[0] = first;
        process.with(vcpu, nr::KVM_SET_XCRS, &xcrs)
    };
    let xcr0 = |value| Xcr { xcr: 0, reserved: 0, value };
    assert_eq!(list(xcr0(1), 1, 0), Ok(0));
    assert_eq!(list(xcr0(3), 1, 0), Err(Errno::EINVAL), "CPUID does not show SSE");
    assert_eq!(list(xcr0(0), 1, 0), Err(Errno::EINVAL), "x87 cannot be off");
    assert_eq!(list(xcr0(3), 0, 0), Ok(0), "none in the list");
    assert_eq!(list(Xcr { xcr: 7, reserved: 0, value: 3 }, 1, 0), Ok(0), "another register");
    assert_eq!(list(xcr0(1), 17, 0), Err(Errno::EINVAL));
    assert_eq!(list(xcr0(1), 1, 1), Err(Errno::EINVAL));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_XCRS, ARG), Ok(0));
    let got: Xcrs = process.argument();
    assert_eq!((got.nr_xcrs, got.xcrs[0]), (1, xcr0(1)));
}

#[test]
fn the_page_directory_pointers_go_with_pae_paging_only() {
    let (process, vcpu) = vcpu();
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_SREGS2, ARG), Ok(0));
    let mut sregs: Sregs2 = process.argument();
    assert_eq!(sregs.flags, 0);
    sregs.flags = 1;
    sregs.pdptrs = [1, 2, 3, 4];
    assert_eq!(process.with(vcpu, nr::KVM_SET_SREGS2, &sregs), Err(Errno::EINVAL));
    sregs.head.cr0 |= 1 << 31 | 1;
    sregs.head.cr4 |= 1 << 5;
    assert_eq!(process.with(vcpu, nr::KVM_SET_SREGS2, &sregs), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_SREGS2, ARG), Ok(0));
    assert_eq!(process.argument::<Sregs2>(), sregs);
    sregs.flags = 2;
    assert_eq!(process.with(vcpu, nr::KVM_SET_SREGS2, &sregs), Err(Errno::EINVAL));
}

#[test]
fn special_registers_that_no_processor_has_are_refused() {
    let (process, vcpu) = vcpu();
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_SREGS, ARG), Ok(0));
    let reset: Sregs = process.argument();
    assert_eq!((reset.head.cr0, reset.head.apic_base), (0x6000_0010, 0xfee0_0900));
    let changes: [fn(&mut Sregs); 8] = [
        |sregs| sregs.head.cr0 = 1 << 32,
        |sregs| sregs.head.cr0 = 1 << 29,
        |sregs| sregs.head.cr4 = 1 << 40,
        |sregs| sregs.head.efer = 1 << 8,
        |sregs| sregs.head.efer = 1 << 10,
        |sregs| sregs.head.cs.l = 1,
        |sregs| sregs.head.apic_base |= 1 << 10,
        |sregs| sregs.head.apic_base = 1 << 50,
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut sregs = reset;
        change(&mut sregs);
        assert_eq!(process.with(vcpu, nr::KVM_SET_SREGS, &sregs), Err(Errno::EINVAL), "change {index}");
    }
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_SREGS, ARG), Ok(0));
    assert_eq!(process.argument::<Sregs>(), reset, "nothing was taken");
    let mut sregs = reset;
    sregs.head.cr8 = 0x10;
    assert_eq!(process.with(vcpu, nr::KVM_SET_SREGS, &sregs), Ok(0), "a CR8 that is none is dropped");
}

#[test]
fn an_interrupt_goes_to_the_controller_that_userspace_has() {
    let interrupt = |process: &Process, vcpu, irq: u32| process.with(vcpu, nr::KVM_INTERRUPT, &irq);
    let (process, vcpu) = vcpu();
    assert_eq!(interrupt(&process, vcpu, 256), Err(Errno::EINVAL));
    assert_eq!(interrupt(&process, vcpu, 0x40), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_VCPU_EVENTS, ARG), Ok(0));
    let events: VcpuEvents = process.argument();
    assert_eq!((events.interrupt_injected, events.interrupt_nr), (1, 0x40));
    let vm = process.vm(VmType::Default);
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_IRQCHIP, 0), Ok(0));
    assert_eq!(interrupt(&process, process.vcpu(vm, 0), 0x40), Err(Errno::ENXIO));
    let split = exeunt_abi::kvm::device_attr::EnableCap {
        cap: exeunt_abi::kvm::caps::Cap::SPLIT_IRQCHIP.0,
        flags: 0,
        args: [24, 0, 0, 0],
        pad: [0; 64],
    };
    let vm = process.vm(VmType::Default);
    assert_eq!(process.with(vm, nr::KVM_ENABLE_CAP, &split), Ok(0));
    let vcpu = process.vcpu(vm, 0);
    assert_eq!(interrupt(&process, vcpu, 0x40), Ok(0));
    assert_eq!(interrupt(&process, vcpu, 0x41), Err(Errno::EEXIST), "the first still waits");
}

#[test]
fn nmis_and_smis_are_requested() {
    let (process, vcpu) = vcpu();
    assert_eq!(process.ioctl(vcpu, nr::KVM_NMI, 0), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_SMI, 0), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_VCPU_EVENTS, ARG), Ok(0));
    let events: VcpuEvents = process.argument();
    assert_eq!((events.nmi_pending, events.smi_pending), (1, 1));
}

#[test]
fn the_local_apic_of_userspace_has_no_registers_here() {
    let (process, vcpu) = vcpu();
    for request in [nr::KVM_GET_LAPIC, nr::KVM_SET_LAPIC, nr::KVM_SET_VAPIC_ADDR] {
        assert_eq!(process.ioctl(vcpu, request, UNMAPPED), Err(Errno::EINVAL), "{request}: checked first");
    }
    for state in [mp_state::UNINITIALIZED, mp_state::HALTED, mp_state::AP_RESET_HOLD, mp_state::STOPPED] {
        assert_eq!(process.with(vcpu, nr::KVM_SET_MP_STATE, &state), Err(Errno::EINVAL), "{state}");
    }
    let vm = process.vm(VmType::Default);
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_IRQCHIP, 0), Ok(0));
    let vcpu = process.vcpu(vm, 3);
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_LAPIC, ARG), Ok(0));
    let mut lapic: [u8; 1024] = process.argument();
    assert_eq!((&lapic[0x20..0x24], &lapic[0x30..0x34]), (&[0, 0, 0, 3][..], &[0x14, 0, 5, 0][..]));
    lapic[0x80] = 0x20;
    assert_eq!(process.with(vcpu, nr::KVM_SET_LAPIC, &lapic), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_LAPIC, ARG), Ok(0));
    assert_eq!(process.argument::<[u8; 1024]>(), lapic);
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_SREGS, ARG), Ok(0));
    let mut sregs: Sregs = process.argument();
    assert_eq!(sregs.head.cr8, 2, "the task priority");
    sregs.head.cr8 = 9;
    assert_eq!(process.with(vcpu, nr::KVM_SET_SREGS, &sregs), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_LAPIC, ARG), Ok(0));
    assert_eq!(process.argument::<[u8; 1024]>()[0x80], 0x90);
    assert_eq!(process.with(vcpu, nr::KVM_SET_MP_STATE, &mp_state::HALTED), Ok(0));
    assert_eq!(process.with(vcpu, nr::KVM_SET_VAPIC_ADDR, &0x1000u64), Err(Errno::EINVAL), "no memory there");
}

#[test]
fn a_machine_check_that_the_guest_does_not_take_is_a_triple_fault() {
    let (process, vcpu) = vcpu();
    assert_eq!(process.with(vcpu, nr::KVM_X86_SETUP_MCE, &0u64), Err(Errno::EINVAL));
    assert_eq!(process.with(vcpu, nr::KVM_X86_SETUP_MCE, &(1u64 << 8 | 0xa)), Ok(0));
    let mce = X86Mce { status: 1 << 63 | 1 << 61 | 1 << 56, mcg_status: 4, bank: 9, ..X86Mce::default() };
    assert_eq!(process.with(vcpu, nr::KVM_X86_SET_MCE, &X86Mce { bank: 10, ..mce }), Err(Errno::EINVAL));
    assert_eq!(process.with(vcpu, nr::KVM_X86_SET_MCE, &mce), Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Ok(0));
    assert_eq!(process.page(vcpu).reason(), exeunt_abi::kvm::run::ExitReason::SHUTDOWN);
}

#[test]
fn the_offset_of_the_counter_is_the_one_attribute_of_a_vcpu() {
    let (process, vcpu) = vcpu();
    let value = 0x7100_0000;
    process.memory.write(value, &77u64.to_le_bytes()).unwrap();
    let attr = |group, attr, addr| DeviceAttr { flags: 0, group, attr, addr };
    assert_eq!(process.with(vcpu, nr::KVM_SET_DEVICE_ATTR, &attr(0, 0, value)), Ok(0));
    assert_eq!(process.with(vcpu, nr::KVM_GET_DEVICE_ATTR, &attr(0, 0, value + 8)), Ok(0));
    let mut got = [0; 8];
    process.memory.read(value + 8, &mut got).unwrap();
    assert_eq!(u64::from_le_bytes(got), 77);
    for (group, number) in [(1, 0), (0, 1)] {
        assert_eq!(process.with(vcpu, nr::KVM_HAS_DEVICE_ATTR, &attr(group, number, 0)), Err(Errno::ENXIO));
    }
    assert_eq!(process.with(vcpu, nr::KVM_GET_DEVICE_ATTR, &attr(0, 0, UNMAPPED)), Err(Errno::EFAULT));
}

#[test]
fn a_signal_mask_is_eight_bytes_or_none() {
    let (process, vcpu) = vcpu();
    assert_eq!(process.ioctl(vcpu, nr::KVM_SET_SIGNAL_MASK, 0), Ok(0));
    assert_eq!(process.with(vcpu, nr::KVM_SET_SIGNAL_MASK, &[8u32, 0, 0]), Ok(0));
    assert_eq!(process.with(vcpu, nr::KVM_SET_SIGNAL_MASK, &[4u32, 0, 0]), Err(Errno::EINVAL));
    assert_eq!(process.ioctl(vcpu, nr::KVM_SET_SIGNAL_MASK, UNMAPPED), Err(Errno::EFAULT));
}

#[test]
fn an_injected_debug_exception_waits_for_no_other() {
    let (process, vcpu) = vcpu();
    let debug = |control| {
        process.with(vcpu, nr::KVM_SET_GUEST_DEBUG, &GuestDebug { control, ..GuestDebug::default() })
    };
    assert_eq!(debug(3), Ok(0));
    assert_eq!(debug(1 | 0x4_0000), Ok(0));
    assert_eq!(debug(1 | 0x8_0000), Err(Errno::EBUSY));
}

#[test]
fn a_linear_address_is_translated_by_the_guests_tables() {
    let (process, vcpu) = vcpu();
    let vm_fd = process.vm(VmType::Default);
    let vcpu_with_memory = process.vcpu(vm_fd, 0);
    let region = UserspaceMemoryRegion {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: 0x10_0000,
        userspace_addr: 0x10_0000_0000,
    };
    assert_eq!(process.with(vm_fd, nr::KVM_SET_USER_MEMORY_REGION, &region), Ok(0));
    let translate = |vcpu, linear_address| {
        let translation = Translation { linear_address, ..Translation::default() };
        assert_eq!(process.with(vcpu, nr::KVM_TRANSLATE, &translation), Ok(0));
        let got: Translation = process.argument();
        (got.valid == 1).then_some(got.physical_address)
    };
    assert_eq!(translate(vcpu, 0x1234), Some(0x1234), "without paging");
    // 32-bit paging: directory at 0x1000, its entry 1 leads to the table at 0x2000, whose entry 2 leads to 0x5000.
    let host = 0x10_0000_0000;
    process.memory.write(host + 0x1004, &0x2001u32.to_le_bytes()).unwrap();
    process.memory.write(host + 0x2008, &0x5001u32.to_le_bytes()).unwrap();
    assert_eq!(process.ioctl(vcpu_with_memory, nr::KVM_GET_SREGS, ARG), Ok(0));
    let mut sregs: Sregs = process.argument();
    sregs.head.cr0 |= 1 << 31 | 1;
    sregs.head.cr3 = 0x1000;
    assert_eq!(process.with(vcpu_with_memory, nr::KVM_SET_SREGS, &sregs), Ok(0));
    assert_eq!(translate(vcpu_with_memory, 0x40_2abc), Some(0x5abc));
    assert_eq!(translate(vcpu_with_memory, 0x40_3abc), None);
    assert_eq!(translate(vcpu_with_memory, 0x80_0000), None);
}

#[test]
fn the_nested_state_of_a_vcpu_without_l2_is_its_header() {
    for (host, format, flags) in [(Host::AMD, 1u16, 0x100u16), (Host::INTEL, 0, 0)] {
        let process = Process::on(Dialect::Linux7_2, host);
        let vcpu = process.vcpu(process.vm(VmType::Default), 0);
        let mut state = [0u8; 128];
        state[4] = 127;
        assert_eq!(process.with(vcpu, nr::KVM_GET_NESTED_STATE, &state), Err(Errno::E2BIG));
        assert_eq!(process.argument::<[u8; 128]>()[4], 128);
        assert_eq!(process.ioctl(vcpu, nr::KVM_GET_NESTED_STATE, ARG), Ok(0));
        let got: [u8; 128] = process.argument();
        assert_eq!(got[..4], [flags.to_le_bytes(), format.to_le_bytes()].concat());
        assert_eq!(process.ioctl(vcpu, nr::KVM_SET_NESTED_STATE, ARG), Ok(0));
        for (at, value) in [(4, 127), (1, 2), (0, 2), (2, 1 - u8::try_from(format).unwrap())] {
            let mut wrong = got;
            wrong[at] = value;
            assert_eq!(process.with(vcpu, nr::KVM_SET_NESTED_STATE, &wrong), Err(Errno::EINVAL), "byte {at}");
        }
    }
}

#[test]
fn registers_by_id_are_msrs_and_came_late() {
    let id = |index: u64| 0x2030_0002_0000_0000 | index;
    let value = 0x7100_0000u64;
    let old = Process::on(Dialect::Linux6_12, Host::AMD);
    let vcpu_of_old = old.vcpu(old.vm(VmType::Default), 0);
    assert_eq!(old.with(vcpu_of_old, nr::KVM_GET_ONE_REG, &[id(0x174), value]), Err(Errno::EINVAL));
    let (process, vcpu) = vcpu();
    process.memory.write(value, &5u64.to_le_bytes()).unwrap();
    assert_eq!(process.with(vcpu, nr::KVM_SET_ONE_REG, &[id(0x174), value]), Ok(0));
    assert_eq!(process.with(vcpu, nr::KVM_GET_ONE_REG, &[id(0x174), value + 8]), Ok(0));
    let mut got = [0; 8];
    process.memory.read(value + 8, &mut got).unwrap();
    assert_eq!(u64::from_le_bytes(got), 5);
    for wrong in [id(0xdead), id(0x174) & !(0xff << 56), id(0x174) | 1 << 40, id(0x174) ^ 1 << 52] {
        assert_eq!(
            process.with(vcpu, nr::KVM_GET_ONE_REG, &[wrong, value]),
            Err(Errno::EINVAL),
            "{wrong:#x}"
        );
    }
    assert_eq!(process.with(vcpu, nr::KVM_GET_ONE_REG, &[id(0x174), UNMAPPED]), Err(Errno::EFAULT));
}
