use super::*;
use exeunt_abi::Dialect;

fn asked(dialect: Dialect, host: Host, vm_type: Option<VmType>) -> Asked {
    Asked { kernel: Kernel { dialect, arch: Arch::X86 }, host, vm_type }
}

#[test]
fn a_capability_that_a_release_has_stays_in_the_releases_after_it() {
    for host in [Host::AMD, Host::INTEL] {
        for number in 0..400 {
            let values: Vec<u64> = Dialect::RELEASES
                .into_iter()
                .map(|dialect| asked(dialect, host, None).check(Cap(number)))
                .collect();
            assert!(values.windows(2).all(|pair| pair[0] == 0 || pair[1] != 0), "{number}: {values:?}");
        }
    }
}

#[test]
fn the_types_of_vms_are_those_of_the_release_and_the_host() {
    let mask = |dialect, host| vm_types(Kernel { dialect, arch: Arch::X86 }, host);
    for host in [Host::AMD, Host::INTEL] {
        for old in [Dialect::Linux5_10, Dialect::Linux5_17, Dialect::Linux6_1] {
            assert_eq!(mask(old, host), 0b1, "{old}");
        }
    }
    assert_eq!(mask(Dialect::Linux6_12, Host::AMD), 0b1_1111);
    assert_eq!(mask(Dialect::Linux7_2, Host::AMD), 0b1_1111);
    assert_eq!(mask(Dialect::Linux6_12, Host::INTEL), 0b11);
    assert_eq!(mask(Dialect::Linux7_2, Host::INTEL), 0b10_0011);
}

#[test]
fn a_vm_answers_for_its_type() {
    let ask = |vm_type, cap| asked(Dialect::Linux7_2, Host::AMD, vm_type).check(cap);
    assert_eq!(ask(None, Cap::MEMORY_ATTRIBUTES), MEMORY_ATTRIBUTE_PRIVATE);
    for vm_type in VmType::ALL {
        let private = vm_type.has_private_memory();
        let protected = vm_type.has_protected_state();
        let ask = |cap| ask(Some(vm_type), cap);
        assert_eq!(ask(Cap::MEMORY_ATTRIBUTES) != 0, private, "{vm_type:?}");
        assert_eq!(ask(Cap::MULTI_ADDRESS_SPACE), if private { 1 } else { 2 }, "{vm_type:?}");
        assert_eq!(ask(Cap::SYNC_REGS), if protected { 0 } else { 7 }, "{vm_type:?}");
        assert_eq!(ask(Cap::READONLY_MEM), u64::from(!protected), "{vm_type:?}");
        assert_eq!(ask(Cap::GUEST_MEMFD_FLAGS), if private { 1 } else { 3 }, "{vm_type:?}");
    }
}
