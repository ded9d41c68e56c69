//! Accesses where no memory is: `KVM_EXIT_MMIO` in guests that KVM can look into, an exception in the others.

use crate::world::{Seen, launched, reason, run_to_halt};
use exeunt_abi::kvm::memory::MEM_READONLY;
use exeunt_abi::kvm::run::{ExitReason, Mmio};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Kvm, Slot, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;

/// Where no memory is.
const DEVICE: u64 = 0x8000_0000;

/// A VM with memory in the page before the device.
fn vm() -> Vm {
    let vm = Kvm::default().create_vm(VmType::Default).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(DEVICE - 0x1000), 0x1000).unwrap()).unwrap();
    vm
}

/// Enters, expects the exit, and answers a read with bytes that count up.
fn expect(vcpu: &mut Vcpu, gpa: u64, len: u32, write: Option<&[u8]>) {
    let stale = [0xee; 8];
    let mut mmio: Mmio = vcpu.page().payload();
    mmio.data = stale;
    vcpu.page_mut().set_payload(&mmio);
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(vcpu), ExitReason::MMIO);
    let mmio: Mmio = vcpu.page().payload();
    assert_eq!((mmio.phys_addr, mmio.len, mmio.is_write), (gpa, len, u8::from(write.is_some())));
    match write {
        Some(data) => {
            assert_eq!(mmio.data[..data.len()], *data);
            assert_eq!(mmio.data[data.len()..], stale[data.len()..], "what is not written stays");
        }
        None => assert_eq!(mmio.data, stale, "a read leaves the data to userspace"),
    }
}

fn answer(vcpu: &mut Vcpu, first: u8) {
    let mut mmio: Mmio = vcpu.page().payload();
    for (byte, value) in mmio.data.iter_mut().zip(first..) {
        *byte = value;
    }
    vcpu.page_mut().set_payload(&mmio);
}

#[test]
fn a_write_of_each_length_exits_once_with_its_bytes() {
    for len in 1..=8 {
        let data: Vec<u8> = (1..=len).collect();
        let written = data.clone();
        let program = |cpu: Cpu| async move { cpu.write(Gpa(DEVICE + 3), &written, Access::Shared).await };
        let mut vcpu = vm().create_vcpu(0, program).unwrap();
        expect(&mut vcpu, DEVICE + 3, u32::from(len), Some(&data));
        run_to_halt(&mut vcpu);
    }
}

#[test]
fn a_read_gets_what_userspace_puts_there() {
    for len in 1..=8usize {
        let seen = Seen::new();
        let log = seen.clone();
        let program = move |cpu: Cpu| async move {
            log.push(cpu.read(Gpa(DEVICE), len, Access::Shared).await?);
            Ok(())
        };
        let mut vcpu = vm().create_vcpu(0, program).unwrap();
        expect(&mut vcpu, DEVICE, u32::try_from(len).unwrap(), None);
        answer(&mut vcpu, 0x10);
        run_to_halt(&mut vcpu);
        assert_eq!(seen.take(), [(0x10..).take(len).collect::<Vec<u8>>()]);
    }
}

#[test]
fn what_is_longer_or_crosses_a_page_is_exits_in_order_and_memory_is_done_at_once() {
    let vm = vm();
    let data: Vec<u8> = (0..24).collect();
    let written = data.clone();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        // Four bytes of memory, then the device; then across a border inside of the device.
        cpu.write(Gpa(DEVICE - 4), &written, Access::Shared).await?;
        log.push(cpu.read(Gpa(DEVICE - 4), 8, Access::Shared).await?);
        log.push(cpu.read(Gpa(DEVICE + 0xffe), 4, Access::Shared).await?);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    expect(&mut vcpu, DEVICE, 8, Some(&data[4..12]));
    let mut memory = [0; 4];
    vm.read_shared(Gpa(DEVICE - 4), &mut memory).unwrap();
    assert_eq!(memory, [0, 1, 2, 3]);
    expect(&mut vcpu, DEVICE + 8, 8, Some(&data[12..20]));
    expect(&mut vcpu, DEVICE + 16, 4, Some(&data[20..]));
    expect(&mut vcpu, DEVICE, 4, None);
    answer(&mut vcpu, 0x70);
    // Each page is a fragment of its own.
    assert_eq!(vcpu.enter(), Ok(()));
    answer(&mut vcpu, 0x80);
    assert_eq!(vcpu.enter(), Ok(()));
    answer(&mut vcpu, 0x90);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [vec![0, 1, 2, 3, 0x70, 0x71, 0x72, 0x73], vec![0x80, 0x81, 0x90, 0x91]]);
}

#[test]
fn immediate_exit_takes_the_answer_and_brings_the_next_piece() {
    let program = |cpu: Cpu| async move { cpu.write(Gpa(DEVICE), &[7; 16], Access::Shared).await };
    let mut vcpu = vm().create_vcpu(0, program).unwrap();
    expect(&mut vcpu, DEVICE, 8, Some(&[7; 8]));
    assert_eq!(vcpu.enter_immediately(), Ok(()));
    let mmio: Mmio = vcpu.page().payload();
    assert_eq!(mmio.phys_addr, DEVICE + 8);
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
    run_to_halt(&mut vcpu);
}

#[test]
fn a_write_to_a_read_only_slot_exits_and_reaches_no_memory() {
    let vm = Kvm::default().create_vm(VmType::Default).unwrap();
    let slot = Slot::shared(0, Gpa(0), 0x2000).unwrap().with_flags(MEM_READONLY);
    vm.add_slot(slot).unwrap();
    vm.write_shared(Gpa(0x1000), b"rom").unwrap();
    let program = |cpu: Cpu| async move {
        assert_eq!(cpu.read(Gpa(0x1000), 3, Access::Shared).await?, b"rom");
        cpu.write(Gpa(0x1000), b"ram", Access::Shared).await?;
        assert_eq!(cpu.read(Gpa(0x1000), 3, Access::Shared).await?, b"rom");
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    expect(&mut vcpu, 0x1000, 3, Some(b"ram"));
    run_to_halt(&mut vcpu);
    let mut got = [0; 3];
    vm.read_shared(Gpa(0x1000), &mut got).unwrap();
    assert_eq!(&got, b"rom");
}

#[test]
fn a_guest_that_kvm_cannot_look_into_gets_an_exception() {
    for vm_type in [VmType::SevEs, VmType::Snp] {
        let vm = launched(Dialect::Linux7_2, vm_type);
        let program = |cpu: Cpu| async move {
            let refused = cpu.write(Gpa(DEVICE + 8), &[1], Access::Shared).await;
            assert_eq!(refused, Err(GuestFault::NoMemory { gpa: DEVICE }));
            Ok(())
        };
        run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
    }
}

#[test]
fn software_protected_guests_have_devices_too() {
    let vm = launched(Dialect::Linux7_2, VmType::SwProtected);
    let program = |cpu: Cpu| async move { cpu.write(Gpa(DEVICE), &[9], Access::Private).await };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    expect(&mut vcpu, DEVICE, 1, Some(&[9]));
    run_to_halt(&mut vcpu);
}
