//! Memory, capabilities and VM types are refused with the reason.

use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_linux::{KvmError, MemoryFlaw, Vm};

use crate::boot::device;

fn vm_with_memory(test: &str) -> Option<Vm> {
    let mut vm = device(test)?.create_vm(VmType::Default).unwrap();
    vm.add_memory(Gpa(0x2000), 0x3000).unwrap();
    Some(vm)
}

#[test]
fn add_memory_refuses_each_flaw_and_changes_nothing() {
    let Some(mut vm) = vm_with_memory("add_memory") else { return };
    let refused = [
        (0x8000, 0, MemoryFlaw::Empty),
        (0x8001, 0x1000, MemoryFlaw::Unaligned),
        (0x8000, 0xfff, MemoryFlaw::Unaligned),
        (u64::MAX - 0xfff, 0x1000, MemoryFlaw::Wraps),
        (0x1000, u64::MAX - 0xfff, MemoryFlaw::Wraps),
        (0x2000, 0x3000, MemoryFlaw::Overlaps),
        (0x1000, 0x2000, MemoryFlaw::Overlaps),
        (0x4000, 0x2000, MemoryFlaw::Overlaps),
        (0x3000, 0x1000, MemoryFlaw::Overlaps),
        (0, 0x10_0000, MemoryFlaw::Overlaps),
    ];
    for (gpa, bytes, flaw) in refused {
        let gpa = Gpa(gpa);
        assert_eq!(vm.add_memory(gpa, bytes), Err(KvmError::BadMemory { gpa, bytes, flaw }), "{gpa}");
    }
    vm.add_memory(Gpa(0x1000), 0x1000).unwrap();
    vm.add_memory(Gpa(0x5000), 0x1000).unwrap();
}

#[test]
fn guest_memory_reads_back_across_slots_and_nowhere_else() {
    let Some(mut vm) = vm_with_memory("guest memory") else { return };
    vm.add_memory(Gpa(0x5000), 0x1000).unwrap();
    vm.write_guest(Gpa(0x4ffe), &[1, 2, 3, 4]).unwrap();
    let mut bytes = [9; 6];
    vm.read_guest(Gpa(0x4ffd), &mut bytes).unwrap();
    assert_eq!(bytes, [0, 1, 2, 3, 4, 0]);
    for outside in [0, 0x1ffd, 0x5ffd, 0x6000, u64::MAX - 1] {
        assert_eq!(vm.write_guest(Gpa(outside), &[7; 4]), Err(Errno::EFAULT), "{outside:#x}");
        assert_eq!(vm.read_guest(Gpa(outside), &mut bytes), Err(Errno::EFAULT), "{outside:#x}");
    }
    assert_eq!(bytes, [0, 1, 2, 3, 4, 0]);
    vm.read_guest(Gpa(0x5ffa), &mut bytes).unwrap();
    assert_eq!(bytes, [0; 6], "a write that does not fit writes nothing");
}

#[test]
fn an_unknown_capability_is_refused_by_its_number() {
    let Some(mut vm) = vm_with_memory("enable_cap") else { return };
    let cap = Cap(60_000);
    assert_eq!(vm.check_extension(cap), 0);
    let refused = vm.enable_cap(cap, 1).unwrap_err();
    assert_eq!(refused, KvmError::MissingCapability { cap, needed_for: "KVM_ENABLE_CAP" });
    assert!(refused.to_string().contains("60000"), "{refused}");
}

#[test]
fn a_capability_that_takes_no_argument_of_this_kind_is_refused_by_the_ioctl() {
    let Some(mut vm) = vm_with_memory("enable_cap argument") else { return };
    if vm.check_extension(Cap::EXIT_HYPERCALL) == 0 {
        exeunt_linux::print_skip(
            "enable_cap argument",
            format_args!("this host lacks {}", Cap::EXIT_HYPERCALL),
        );
        return;
    }
    let refused = vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << 63).unwrap_err();
    assert_eq!(refused, KvmError::Ioctl { name: "KVM_ENABLE_CAP", errno: Errno::EINVAL });
    vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << 12).unwrap();
}

#[test]
fn a_vm_type_is_created_or_refused_as_the_mask_says() {
    let Some(kvm) = device("create_vm") else { return };
    let offered = kvm.check_extension(Cap::VM_TYPES) | 1;
    for vm_type in VmType::ALL {
        let created = kvm.create_vm(vm_type).map(|_| ());
        if offered & 1 << vm_type.number() == 0 {
            let cap = Cap::VM_TYPES;
            assert_eq!(created, Err(KvmError::VmTypeNotOffered { vm_type, cap, offered }));
        } else {
            assert_eq!(created, Ok(()), "{}", vm_type.name());
        }
    }
}

#[test]
fn private_memory_is_added_or_the_missing_capability_is_named() {
    let Some(kvm) = device("add_private_memory") else { return };
    for vm_type in VmType::ALL {
        let Ok(mut vm) = kvm.create_vm(vm_type) else { continue };
        let needed = [Cap::USER_MEMORY2, Cap::MEMORY_ATTRIBUTES, Cap::GUEST_MEMFD];
        let missing = needed.into_iter().find(|cap| vm.check_extension(*cap) == 0);
        let added = vm.add_private_memory(Gpa(0), 0x2000);
        match missing {
            Some(cap) => {
                let needed_for = "private memory";
                assert_eq!(added, Err(KvmError::MissingCapability { cap, needed_for }));
            }
            None => assert_eq!(added, Ok(()), "{}", vm_type.name()),
        }
    }
}

#[test]
fn the_dialect_promises_nothing_that_the_host_lacks() {
    let Some(kvm) = device("dialect") else { return };
    let dialect = kvm.dialect();
    println!("{dialect}");
    assert!(Dialect::RELEASES.contains(&dialect));
    assert!(!dialect.has_exit_hypercall() || kvm.check_extension(Cap::EXIT_HYPERCALL) != 0);
    assert!(!dialect.has_private_memory() || kvm.check_extension(Cap::MEMORY_FAULT_INFO) != 0);
}
