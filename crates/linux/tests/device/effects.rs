//! Effects on the memory and the bus of a real VM.

use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gfn, Gpa};
use exeunt_linux::{Effects, HostMemory, Vm, guests};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::Exit;
use exeunt_proto::host::{Action, Backing, Host, Vcpu as _};

use crate::boot::{boot, device, next, start};

fn is_send<T: Send>(_: &T) {}

fn range(gfn: u64, pages: u64) -> PageRange {
    PageRange::new(Gfn(gfn), pages).unwrap()
}

fn vm_with_effects(test: &str) -> Option<(Vm, Effects)> {
    let mut vm = device(test)?.create_vm(VmType::Default).unwrap();
    vm.add_memory(Gpa(0x1000), 0x2000).unwrap();
    vm.add_memory(Gpa(0x3000), 0x1000).unwrap();
    let effects = vm.effects();
    Some((vm, effects))
}

#[test]
fn attributes_are_set_or_the_host_says_that_it_has_none() {
    let Some((vm, mut effects)) = vm_with_effects("SetAttributes") else { return };
    let applied = effects.apply(&Action::SetAttributes { range: range(1, 1), to: PageState::Private });
    if vm.check_extension(Cap::MEMORY_ATTRIBUTES) == 0 {
        assert!(matches!(applied, Err(Errno::ENOTTY | Errno::EINVAL)), "{applied:?}");
    } else {
        assert_eq!(applied, Ok(()));
    }
    println!("{applied:?}");
}

#[test]
fn a_discard_zeroes_shared_pages_across_slots_and_their_neighbours_stay() {
    let Some((vm, mut effects)) = vm_with_effects("Discard") else { return };
    for page in 1..4 {
        vm.write_guest(Gpa(page << 12), &[7; 0x1000]).unwrap();
    }
    effects.apply(&Action::Discard { range: range(2, 2), backing: Backing::Shared }).unwrap();
    let mut bytes = [0; 0x3000];
    vm.read_guest(Gpa(0x1000), &mut bytes).unwrap();
    assert!(bytes[..0x1000].iter().all(|byte| *byte == 7));
    assert!(bytes[0x1000..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_discard_outside_of_memory_or_of_a_missing_memory_changes_nothing() {
    let Some((vm, mut effects)) = vm_with_effects("Discard outside") else { return };
    vm.write_guest(Gpa(0x3fff), &[7]).unwrap();
    for outside in [range(0, 1), range(3, 2), range(0, 5), range(1 << 40, 1)] {
        let refused = effects.apply(&Action::Discard { range: outside, backing: Backing::Shared });
        assert_eq!(refused, Err(Errno::EFAULT), "{outside}");
    }
    let private = Action::Discard { range: range(3, 1), backing: Backing::Private };
    assert_eq!(effects.apply(&private), Err(Errno::EOPNOTSUPP));
    let mut byte = [0];
    vm.read_guest(Gpa(0x3fff), &mut byte).unwrap();
    assert_eq!(byte, [7]);
}

#[test]
fn a_guest_write_goes_to_memory_or_nowhere() {
    let Some((_vm, mut effects)) = vm_with_effects("WriteGuest") else { return };
    effects.apply(&Action::WriteGuest { gpa: Gpa(0x2ffe), bytes: b"exeunt" }).unwrap();
    let outside = Action::WriteGuest { gpa: Gpa(0x3ffe), bytes: b"exeunt" };
    assert_eq!(effects.apply(&outside), Err(Errno::EFAULT));
    let mut bytes = [0; 6];
    effects.read_guest(Gpa(0x2ffe), &mut bytes).unwrap();
    assert_eq!(&bytes, b"exeunt");
    assert_eq!(effects.read_guest(Gpa(0x3ffe), &mut bytes), Err(Errno::EFAULT));
}

#[test]
fn a_discarded_page_is_zero_for_the_guest_too() {
    let Some((vm, mut vcpu)) = boot("Discard seen by the guest", "port-io") else { return };
    assert!(matches!(next(&mut vcpu), Ok(Exit::Io(_))));
    vm.effects().apply(&Action::Discard { range: range(1, 1), backing: Backing::Shared }).unwrap();
    // The zeroes are instructions that write AL to \[BX + SI\], until the guest runs out of the page's end. What it
    // does not do any more is to write the second letter.
    vm.write_guest(Gpa(0x1200), &[0xf4]).unwrap();
    assert_eq!(next(&mut vcpu), Ok(Exit::Hlt));
    assert_eq!(vcpu.registers().unwrap().0, 0x201);
}

#[test]
fn a_discarded_page_of_a_memfd_is_zero_for_the_guest_and_for_who_maps_it() {
    let Some(kvm) = device("memfd") else { return };
    let guest = guests::by_name("port-io").unwrap();
    let mut vm = kvm.create_vm(VmType::Default).unwrap();
    let memory = HostMemory::memfd(0x10000).unwrap();
    // The second slot's memory comes first in the file.
    vm.add_slot(Gpa(0), 0x4000, memory.at(0xc000), None).unwrap();
    vm.add_slot(Gpa(0x4000), 0xc000, memory.at(0), None).unwrap();
    vm.write_guest(guest.load, guest.image).unwrap();
    vm.write_guest(Gpa(0x3fff), &[7, 7]).unwrap();
    let mut vcpu = start(&vm, &guest);
    assert!(matches!(next(&mut vcpu), Ok(Exit::Io(_))));
    let discard = Action::Discard { range: range(1, 3), backing: Backing::Shared };
    vm.effects().apply(&discard).unwrap();
    let mut bytes = [9; 0x1000];
    vm.read_guest(Gpa(0x1000), &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    vm.read_guest(Gpa(0x3fff), &mut bytes[..2]).unwrap();
    assert_eq!(bytes[..2], [0, 7], "the neighbour stays");
    // As above: the guest finds nothing but zeroes, and then this halt.
    vm.write_guest(Gpa(0x1200), &[0xf4]).unwrap();
    assert_eq!(next(&mut vcpu), Ok(Exit::Hlt));
}

#[test]
fn pages_are_mapped_ahead_or_the_host_says_that_it_cannot() {
    let Some((vm, vcpu)) = boot("prefault", "hlt") else { return };
    assert_eq!(vm.effects().prefault(range(0, 4)), Err(Errno::EOPNOTSUPP), "without a vCPU");
    let mut effects = vcpu.effects().unwrap();
    let mapped = effects.apply(&Action::Prefault { range: range(0, 4) });
    if vm.check_extension(Cap::PRE_FAULT_MEMORY) == 0 {
        assert_eq!(mapped, Err(Errno::EOPNOTSUPP));
    } else {
        assert!(matches!(mapped, Ok(()) | Err(Errno::EOPNOTSUPP)), "{mapped:?}");
    }
    match effects.populate(range(0, 4)) {
        Ok(()) => {}
        Err(errno) => assert_eq!(errno, Errno::EOPNOTSUPP),
    }
    assert_eq!(effects.populate(range(0, 0x1000)), Err(Errno::EFAULT));
    drop((vm, vcpu));
    assert_eq!(effects.populate(range(0, 1)), Ok(()), "the memory lives as long as the effects");
}

#[test]
fn vcpus_that_discard_and_copy_the_same_pages_do_not_disturb_each_other() {
    let Some((vm, _)) = vm_with_effects("overlapping discards") else { return };
    std::thread::scope(|scope| {
        for first in [1, 2] {
            let mut effects = vm.effects();
            scope.spawn(move || {
                for round in 0..500 {
                    let discard = Action::Discard { range: range(first, 2), backing: Backing::Shared };
                    assert_eq!(effects.apply(&discard), Ok(()), "round {round}");
                    let write = Action::WriteGuest { gpa: Gpa(0x2000), bytes: &[7; 64] };
                    assert_eq!(effects.apply(&write), Ok(()), "round {round}");
                }
            });
        }
    });
    let mut bytes = [9; 64];
    vm.read_guest(Gpa(0x2000), &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| [0, 7].contains(byte)), "{bytes:?}");
}

#[test]
fn the_bus_remembers_writes_and_answers_reads_for_all_handles() {
    let Some((vm, mut vcpu)) = boot("ports", "port-io") else { return };
    let mut effects = vm.effects();
    is_send(&effects);
    is_send(&vcpu);
    effects.clone().set_port_in(0x60, 0x42);
    while let Ok(Exit::Io(io)) = next(&mut vcpu) {
        let data = &mut vcpu.port_data()[io.data_range()];
        if io.is_out {
            effects.port_out(io.port, io.size, data);
        } else {
            effects.port_in(io.port, io.size, data);
        }
    }
    let mut expected: Vec<_> = b"exeunt".iter().map(|byte| (0x3f8, vec![*byte])).collect();
    expected.push((0x80, vec![0x42]));
    assert_eq!(vm.effects().port_log(), expected);
    let mut data = [0; 2];
    effects.port_in(0x61, 2, &mut data);
    assert_eq!(data, [0xff; 2]);
}
