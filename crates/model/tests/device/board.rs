//! The board of a VM: interrupt controllers, timer, clock, routes, event files, memory's logs and files.

use crate::process::{ARG, Process, UNMAPPED, fd};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::device_attr::{DeviceAttr, EnableCap};
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::irq::{
    CREATE_DEVICE_TEST, ClockData, CoalescedMmioZone, CreateDevice, DEV_TYPE_VFIO, IOEVENTFD_FLAG_DATAMATCH,
    IOEVENTFD_FLAG_DEASSIGN, IRQFD_FLAG_DEASSIGN, Ioeventfd, IrqRoutingEntry, Irqfd, Msi,
};
use exeunt_abi::kvm::memory::{
    ClearDirtyLog, CreateGuestMemfd, DirtyLog, MEM_LOG_DIRTY_PAGES, UserspaceMemoryRegion,
};
use exeunt_abi::kvm::msr::{MsrFilter, MsrFilterRange};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::{Host, falloc};
use zerocopy::{FromZeros, IntoBytes};

fn with_irqchip() -> (Process, i32) {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_IRQCHIP, 0), Ok(0));
    (process, vm)
}

#[test]
fn the_interrupt_controllers_come_once_and_before_the_vcpus() {
    let (process, vm) = with_irqchip();
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_IRQCHIP, 0), Err(Errno::EEXIST));
    let late = process.vm(VmType::Default);
    process.vcpu(late, 0);
    assert_eq!(process.ioctl(late, nr::KVM_CREATE_IRQCHIP, 0), Err(Errno::EINVAL));
    let split = EnableCap { cap: Cap::SPLIT_IRQCHIP.0, flags: 0, args: [24, 0, 0, 0], pad: [0; 64] };
    assert_eq!(process.with(vm, nr::KVM_ENABLE_CAP, &split), Err(Errno::EEXIST));
}

#[test]
fn a_controller_reads_back_as_it_was_set() {
    let (process, vm) = with_irqchip();
    for (id, bytes) in [(0u32, 16), (1, 16), (2, 216)] {
        let mut chip = [0u8; 520];
        chip[..4].copy_from_slice(&id.to_le_bytes());
        chip[8..].fill(0x40 | u8::try_from(id).unwrap());
        assert_eq!(process.with(vm, nr::KVM_SET_IRQCHIP, &chip), Ok(0));
        let mut empty = [0u8; 520];
        empty[..4].copy_from_slice(&id.to_le_bytes());
        assert_eq!(process.with(vm, nr::KVM_GET_IRQCHIP, &empty), Ok(0));
        let got: [u8; 520] = process.argument();
        assert_eq!(got[8..8 + bytes], chip[8..8 + bytes], "{id}");
        assert!(got[8 + bytes..].iter().all(|byte| *byte == 0), "behind the state of {id}");
    }
    let unknown = [3u8; 520];
    assert_eq!(process.with(vm, nr::KVM_GET_IRQCHIP, &unknown), Err(Errno::EINVAL));
    let without = process.vm(VmType::Default);
    assert_eq!(process.with(without, nr::KVM_GET_IRQCHIP, &unknown), Err(Errno::ENXIO));
    assert_eq!(process.ioctl(without, nr::KVM_GET_IRQCHIP, UNMAPPED), Err(Errno::EFAULT), "copied first");
    assert_eq!(process.with(without, nr::KVM_IRQ_LINE, &[0u32, 1]), Err(Errno::ENXIO));
    assert_eq!(process.with(vm, nr::KVM_IRQ_LINE, &[0u32, 1]), Ok(0));
}

#[test]
fn the_timer_needs_the_pics_comes_once_and_reads_back() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    let config = [0u8; 64];
    assert_eq!(process.with(vm, nr::KVM_CREATE_PIT2, &config), Err(Errno::ENOENT));
    assert_eq!(process.ioctl(vm, nr::KVM_GET_PIT2, ARG), Err(Errno::ENXIO));
    assert_eq!(process.ioctl(vm, nr::KVM_GET_PIT2, UNMAPPED), Err(Errno::ENXIO), "checked first");
    assert_eq!(process.ioctl(vm, nr::KVM_GET_PIT, UNMAPPED), Err(Errno::EFAULT), "copied first");
    assert_eq!(process.with(vm, nr::KVM_REINJECT_CONTROL, &[0u8; 32]), Err(Errno::ENXIO));
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_IRQCHIP, 0), Ok(0));
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_PIT2, UNMAPPED), Err(Errno::EFAULT));
    assert_eq!(process.with(vm, nr::KVM_CREATE_PIT2, &config), Ok(0));
    assert_eq!(process.ioctl(vm, nr::KVM_CREATE_PIT, 0), Err(Errno::EEXIST));
    let state = [7u8; 112];
    assert_eq!(process.with(vm, nr::KVM_SET_PIT2, &state), Ok(0));
    assert_eq!(process.with(vm, nr::KVM_SET_PIT, &[8u8; 72]), Ok(0));
    assert_eq!(process.ioctl(vm, nr::KVM_GET_PIT2, ARG), Ok(0));
    let got: [u8; 112] = process.argument();
    assert!(got[..72].iter().all(|byte| *byte == 8) && got[72..].iter().all(|byte| *byte == 7));
}

#[test]
fn the_clock_is_what_it_was_set_to_and_unknown_flags_are_refused() {
    for (dialect, known) in [(Dialect::Linux5_10, 2u32), (Dialect::Linux7_2, 0xe)] {
        let process = Process::on(dialect, Host::AMD);
        let vm = process.vm(VmType::Default);
        for bit in 0..32 {
            let clock = ClockData { clock: 5, flags: 1 << bit, ..ClockData::default() };
            let expected = if known >> bit & 1 == 1 { Ok(0) } else { Err(Errno::EINVAL) };
            assert_eq!(process.with(vm, nr::KVM_SET_CLOCK, &clock), expected, "{dialect} bit {bit}");
        }
        assert_eq!(process.ioctl(vm, nr::KVM_GET_CLOCK, ARG), Ok(0));
        assert_eq!(process.argument::<ClockData>().clock, 5);
    }
}

#[test]
fn the_frequency_of_the_counter_is_the_hosts_at_zero_and_late_for_a_vm_since_6_17() {
    for (dialect, late) in [(Dialect::Linux6_12, Ok(0)), (Dialect::Linux7_2, Err(Errno::EINVAL))] {
        let process = Process::on(dialect, Host::AMD);
        let vm = process.vm(VmType::Default);
        let host = process.ioctl(vm, nr::KVM_GET_TSC_KHZ, 0).unwrap();
        assert_eq!(process.ioctl(vm, nr::KVM_SET_TSC_KHZ, 0x7fff_ffff), Err(Errno::EINVAL));
        assert_eq!(process.ioctl(vm, nr::KVM_SET_TSC_KHZ, 1_000_000), Ok(0));
        assert_eq!(process.ioctl(vm, nr::KVM_GET_TSC_KHZ, 0), Ok(1_000_000));
        assert_eq!(process.ioctl(vm, nr::KVM_SET_TSC_KHZ, 0), Ok(0));
        assert_eq!(process.ioctl(vm, nr::KVM_GET_TSC_KHZ, 0), Ok(host));
        let vcpu = process.vcpu(vm, 0);
        assert_eq!(process.ioctl(vm, nr::KVM_SET_TSC_KHZ, 1_000_000), late, "{dialect}");
        assert_eq!(process.ioctl(vcpu, nr::KVM_SET_TSC_KHZ, 3_000_000), Ok(0));
        assert_eq!(process.ioctl(vcpu, nr::KVM_GET_TSC_KHZ, 0), Ok(3_000_000));
    }
}

#[test]
fn addresses_and_pages_of_the_mmu_have_their_limits() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    assert_eq!(process.ioctl(vm, nr::KVM_SET_TSS_ADDR, 0xffff_d000), Ok(0));
    assert_eq!(process.ioctl(vm, nr::KVM_SET_TSS_ADDR, 0xffff_d001), Err(Errno::EINVAL));
    assert_eq!(process.ioctl(vm, nr::KVM_SET_NR_MMU_PAGES, 63), Err(Errno::EINVAL));
    assert_eq!(process.ioctl(vm, nr::KVM_SET_NR_MMU_PAGES, 64), Ok(0));
    assert_eq!(process.with(vm, nr::KVM_SET_IDENTITY_MAP_ADDR, &0x1000u64), Ok(0));
    process.vcpu(vm, 0);
    assert_eq!(
        process.ioctl(vm, nr::KVM_SET_IDENTITY_MAP_ADDR, UNMAPPED),
        Err(Errno::EINVAL),
        "checked first"
    );
}

fn route(entry_type: u32, to: [u32; 2]) -> IrqRoutingEntry {
    let [first, second] = to;
    IrqRoutingEntry { entry_type, to: [first, second, 0, 0, 0, 0, 0, 0], ..IrqRoutingEntry::default() }
}

fn set_routes(process: &Process, vm: i32, head: [u32; 2], routes: &[IrqRoutingEntry]) -> Result<u32, Errno> {
    process.with(vm, nr::KVM_SET_GSI_ROUTING, &*[head.as_bytes(), routes.as_bytes()].concat())
}

#[test]
fn routes_are_checked_one_by_one() {
    let (process, vm) = with_irqchip();
    let one = |entry| set_routes(&process, vm, [1, 0], &[entry]);
    for pin in 0..40 {
        for chip in 0..4 {
            let pins = [8, 8, 24, 0][chip as usize];
            let expected = if pin < pins { Ok(0) } else { Err(Errno::EINVAL) };
            assert_eq!(one(route(1, [chip, pin])), expected, "chip {chip} pin {pin}");
        }
    }
    assert_eq!(one(route(2, [0xfee0_0000, 0])), Ok(0));
    assert_eq!(one(route(3, [0, 0])), Err(Errno::EINVAL));
    assert_eq!(one(IrqRoutingEntry { gsi: 4096, ..route(2, [0, 0]) }), Err(Errno::EINVAL));
    assert_eq!(one(IrqRoutingEntry { flags: 1, ..route(2, [0, 0]) }), Ok(0));
    assert_eq!(one(IrqRoutingEntry { flags: 1, ..route(1, [0, 0]) }), Err(Errno::EINVAL));
    assert_eq!(set_routes(&process, vm, [4097, 0], &[]), Err(Errno::EINVAL));
    assert_eq!(set_routes(&process, vm, [0, 1], &[]), Err(Errno::EINVAL));
    assert_eq!(set_routes(&process, process.vm(VmType::Default), [0, 0], &[]), Err(Errno::EINVAL));
}

#[test]
fn an_irqfd_wants_an_event_file_that_raises_nothing_else() {
    let (process, vm) = with_irqchip();
    let event = process.device.eventfd().unwrap().unsigned_abs();
    let irqfd =
        |fd, gsi, flags| process.with(vm, nr::KVM_IRQFD, &Irqfd { fd, gsi, flags, ..Irqfd::default() });
    assert_eq!(irqfd(event, 1, 4), Err(Errno::EINVAL));
    assert_eq!(irqfd(999, 1, 0), Err(Errno::EBADF));
    assert_eq!(irqfd(vm.unsigned_abs(), 1, 0), Err(Errno::EINVAL), "another file");
    assert_eq!(irqfd(event, 1, 0), Ok(0));
    assert_eq!(irqfd(event, 2, 0), Err(Errno::EBUSY));
    assert_eq!(irqfd(event, 1, IRQFD_FLAG_DEASSIGN), Ok(0));
    assert_eq!(irqfd(event, 1, IRQFD_FLAG_DEASSIGN), Ok(0), "taking away what is not there is fine");
    assert_eq!(irqfd(event, 2, 0), Ok(0));
    let without = process.vm(VmType::Default);
    let args = Irqfd { fd: event, ..Irqfd::default() };
    assert_eq!(process.with(without, nr::KVM_IRQFD, &args), Err(Errno::EINVAL));
}

#[test]
fn an_ioeventfd_is_refused_where_another_would_be_signalled_too() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    let event = process.device.eventfd().unwrap();
    let base = Ioeventfd { datamatch: 0, addr: 0x1000, len: 4, fd: event, flags: 0, pad: [0; 36] };
    let set = |args: Ioeventfd| process.with(vm, nr::KVM_IOEVENTFD, &args);
    for len in 0..10 {
        let fits = matches!(len, 0 | 1 | 2 | 4 | 8);
        let at = Ioeventfd { addr: 0x10_0000 + u64::from(len) * 16, len, ..base };
        assert_eq!(set(at), if fits { Ok(0) } else { Err(Errno::EINVAL) }, "{len}");
    }
    assert_eq!(set(Ioeventfd { addr: u64::MAX, ..base }), Err(Errno::EINVAL), "it wraps");
    assert_eq!(set(Ioeventfd { flags: 0x10, ..base }), Err(Errno::EINVAL));
    assert_eq!(set(Ioeventfd { len: 0, flags: IOEVENTFD_FLAG_DATAMATCH, ..base }), Err(Errno::EINVAL));
    assert_eq!(set(Ioeventfd { fd: 999, ..base }), Err(Errno::EBADF));
    let matching = |datamatch| Ioeventfd { datamatch, flags: IOEVENTFD_FLAG_DATAMATCH, ..base };
    assert_eq!(set(matching(1)), Ok(0));
    assert_eq!(set(matching(2)), Ok(0));
    assert_eq!(set(matching(2)), Err(Errno::EEXIST));
    assert_eq!(set(base), Err(Errno::EEXIST), "any value");
    assert_eq!(set(Ioeventfd { len: 8, ..base }), Ok(0), "another length");
    let gone = Ioeventfd { flags: IOEVENTFD_FLAG_DATAMATCH | IOEVENTFD_FLAG_DEASSIGN, ..matching(2) };
    assert_eq!(set(gone), Ok(0));
    assert_eq!(set(gone), Err(Errno::ENOENT));
    let many = (0..2000u64).map(|at| set(Ioeventfd { addr: 0x100_0000 + at * 16, ..base }));
    assert_eq!(many.filter(|result| *result == Err(Errno::ENOSPC)).count(), 2000 - (1000 - 7));
}

#[test]
fn a_message_for_nobody_reads_as_eperm() {
    let (process, vm) = with_irqchip();
    process.vcpu(vm, 0);
    let msi = |destination: u32, flags| {
        let msi = Msi { address_lo: 0xfee0_0000 | destination << 12, data: 0x40, flags, ..Msi::default() };
        process.with(vm, nr::KVM_SIGNAL_MSI, &msi)
    };
    assert_eq!(msi(0, 1), Err(Errno::EINVAL));
    assert_eq!(msi(9, 0), Err(Errno::EPERM));
    let without = process.vm(VmType::Default);
    assert_eq!(process.with(without, nr::KVM_SIGNAL_MSI, &Msi::default()), Err(Errno::EINVAL));
}

#[test]
fn a_message_waits_in_the_local_apic_that_is_on() {
    let (process, vm) = with_irqchip();
    let vcpu = process.vcpu(vm, 0);
    let msi = Msi { address_lo: 0xfee0_0000, data: 0x45, ..Msi::default() };
    assert_eq!(process.with(vm, nr::KVM_SIGNAL_MSI, &msi), Err(Errno::EPERM), "off after a reset");
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_LAPIC, ARG), Ok(0));
    let mut lapic: [u8; 1024] = process.argument();
    lapic[0xf1] |= 1;
    assert_eq!(process.with(vcpu, nr::KVM_SET_LAPIC, &lapic), Ok(0));
    assert_eq!(process.with(vm, nr::KVM_SIGNAL_MSI, &msi), Ok(1));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_LAPIC, ARG), Ok(0));
    assert_eq!(process.argument::<[u8; 1024]>()[0x220], 1 << 5, "requested: bit 5 of the third word");
}

#[test]
fn zones_of_gathered_writes_are_ports_or_memory() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    let zone = |pio| CoalescedMmioZone { addr: 0x1000, size: 0x100, pio };
    for pio in 0..3 {
        let expected = if pio < 2 { Ok(0) } else { Err(Errno::EINVAL) };
        assert_eq!(process.with(vm, nr::KVM_REGISTER_COALESCED_MMIO, &zone(pio)), expected);
        assert_eq!(process.with(vm, nr::KVM_UNREGISTER_COALESCED_MMIO, &zone(pio)), expected);
        assert_eq!(process.with(vm, nr::KVM_UNREGISTER_COALESCED_MMIO, &zone(pio)), expected);
    }
}

#[test]
fn the_one_device_of_x86_is_there_once() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    for device_type in 0..20 {
        let test = CreateDevice { device_type, fd: 7, flags: CREATE_DEVICE_TEST };
        let expected = if device_type == DEV_TYPE_VFIO { Ok(0) } else { Err(Errno::ENODEV) };
        assert_eq!(process.with(vm, nr::KVM_CREATE_DEVICE, &test), expected, "{device_type}");
    }
    let create = CreateDevice { device_type: DEV_TYPE_VFIO, fd: 0, flags: 0 };
    assert_eq!(process.with(vm, nr::KVM_CREATE_DEVICE, &create), Ok(0));
    let device = i32::try_from(process.argument::<CreateDevice>().fd).unwrap();
    assert_eq!(process.with(vm, nr::KVM_CREATE_DEVICE, &create), Err(Errno::EBUSY));
    let attr = |group, attr| DeviceAttr { flags: 0, group, attr, addr: ARG };
    assert_eq!(process.with(device, nr::KVM_HAS_DEVICE_ATTR, &attr(1, 1)), Ok(0));
    assert_eq!(process.with(device, nr::KVM_HAS_DEVICE_ATTR, &attr(1, 3)), Err(Errno::ENXIO));
    assert_eq!(
        process.ioctl(device, nr::KVM_GET_DEVICE_ATTR, UNMAPPED),
        Err(Errno::EPERM),
        "not even copied"
    );
}

#[test]
fn a_filter_of_registers_is_judged_range_by_range() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    let with = |flags, range: MsrFilterRange| {
        let mut filter = MsrFilter { flags, ..MsrFilter::default() };
        filter.ranges[3] = range;
        process.with(vm, nr::KVM_X86_SET_MSR_FILTER, &filter)
    };
    let range = MsrFilterRange { flags: 3, nmsrs: 64, base: 0x174, padding: 0, bitmap: ARG };
    assert_eq!(with(1, range), Ok(0));
    assert_eq!(with(2, range), Err(Errno::EINVAL));
    assert_eq!(with(1, MsrFilterRange::default()), Err(Errno::EINVAL), "it would deny everything");
    assert_eq!(with(0, MsrFilterRange::default()), Ok(0));
    assert_eq!(with(0, MsrFilterRange { flags: 0, ..range }), Err(Errno::EINVAL));
    assert_eq!(with(0, MsrFilterRange { flags: 4, ..range }), Err(Errno::EINVAL));
    assert_eq!(with(0, MsrFilterRange { nmsrs: 0x3001, ..range }), Err(Errno::EINVAL));
    assert_eq!(with(0, MsrFilterRange { nmsrs: 0x3000, ..range }), Ok(0));
    assert_eq!(with(0, MsrFilterRange { bitmap: UNMAPPED, ..range }), Err(Errno::EFAULT));
}

#[test]
fn a_log_of_written_pages_is_copied_out_and_cleared_by_hand() {
    let process = Process::new();
    let vm = process.vm(VmType::Default);
    let region = UserspaceMemoryRegion {
        slot: 1,
        flags: MEM_LOG_DIRTY_PAGES,
        guest_phys_addr: 0,
        memory_size: 0x4_0000,
        userspace_addr: 0x10_0000_0000,
    };
    assert_eq!(process.with(vm, nr::KVM_SET_USER_MEMORY_REGION, &region), Ok(0));
    let by_hand =
        EnableCap { cap: Cap::MANUAL_DIRTY_LOG_PROTECT2.0, flags: 0, args: [1, 0, 0, 0], pad: [0; 64] };
    assert_eq!(process.with(vm, nr::KVM_ENABLE_CAP, &by_hand), Ok(0));
    process.device.set_guest(|_, cpu| {
        Box::pin(async move { cpu.write(Gpa(0x3000), &[1], exeunt_model::guest::Access::Shared).await })
    });
    let vcpu = process.vcpu(vm, 0);
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Ok(0));
    let bitmap = 0x7200_0000;
    let get = |slot| {
        process.with(vm, nr::KVM_GET_DIRTY_LOG, &DirtyLog { slot, padding1: 0, dirty_bitmap: bitmap })?;
        let mut word = 0u64;
        process.memory.read(bitmap, word.as_mut_bytes()).map(|()| word)
    };
    assert_eq!(get(1), Ok(0b1000));
    assert_eq!(get(1), Ok(0b1000), "still there");
    assert_eq!(get(2), Err(Errno::ENOENT));
    let clear = ClearDirtyLog { slot: 1, num_pages: 64, first_page: 0, dirty_bitmap: bitmap };
    let unaligned = ClearDirtyLog { first_page: 1, ..clear };
    assert_eq!(process.with(vm, nr::KVM_CLEAR_DIRTY_LOG, &unaligned), Err(Errno::EINVAL));
    let unmapped = ClearDirtyLog { dirty_bitmap: UNMAPPED, ..clear };
    assert_eq!(process.with(vm, nr::KVM_CLEAR_DIRTY_LOG, &unmapped), Err(Errno::EFAULT));
    assert_eq!(get(1), Ok(0b1000), "nothing was cleared");
    assert_eq!(process.with(vm, nr::KVM_CLEAR_DIRTY_LOG, &clear), Ok(0));
    assert_eq!(get(1), Ok(0));
}

#[test]
fn the_pages_of_a_guest_memfd_go_with_its_last_descriptor() {
    let process = Process::new();
    let vm = process.vm(VmType::SwProtected);
    let args = CreateGuestMemfd { size: 0x4000, ..CreateGuestMemfd::new_zeroed() };
    let file = fd(process.with(vm, nr::KVM_CREATE_GUEST_MEMFD, &args));
    let device = &process.device;
    assert_eq!(device.fallocate(file, falloc::KEEP_SIZE, 0, 0x3000), Ok(()));
    assert_eq!(device.fstat(file).map(|stat| (stat.size, stat.blocks)), Ok((0x4000, 24)));
    assert_eq!(device.fallocate(file, falloc::KEEP_SIZE | falloc::PUNCH_HOLE, 0x1000, 0x1000), Ok(()));
    assert_eq!(device.fstat(file).map(|stat| stat.blocks), Ok(16));
    assert_eq!(device.fallocate(file, 0, 0, 0x1000), Err(Errno::EOPNOTSUPP));
    assert_eq!(device.fallocate(vm, falloc::KEEP_SIZE, 0, 0x1000), Err(Errno::ENODEV));
    assert_eq!(device.ftruncate(file, 0x1000), Err(Errno::EINVAL));
    let copy = device.dup(file).unwrap();
    device.close(file).unwrap();
    assert_eq!(device.fstat(copy).map(|stat| stat.blocks), Ok(16));
    device.close(copy).unwrap();
    assert_eq!(device.fstat(copy), Err(Errno::EBADF));
}
