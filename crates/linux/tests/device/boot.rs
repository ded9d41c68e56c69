//! Boots a guest of the crate, or says why not.

use exeunt_abi::Gpa;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_linux::{FlatGuest, Kvm, Vcpu, Vm, guests, probe};
use exeunt_proto::exit::{DecodeError, Exit, decode};
use exeunt_proto::host::Vcpu as _;

/// The memory that a guest gets, from 0 on.
const MEMORY_BYTES: u64 = 0x10000;

/// The device, or `None` with the reason printed.
pub(crate) fn device(test: &str) -> Option<Kvm> {
    match probe() {
        Ok(kvm) => Some(kvm),
        Err(reason) => {
            exeunt_linux::print_skip(test, reason);
            None
        }
    }
}

/// A VM with the guest in its memory, and no vCPU.
pub(crate) fn load(kvm: &Kvm, guest: &FlatGuest) -> Vm {
    let mut vm = kvm.create_vm(VmType::Default).unwrap();
    vm.add_memory(Gpa(0), MEMORY_BYTES).unwrap();
    vm.write_guest(guest.load, guest.image).unwrap();
    vm
}

/// The vCPU at the start of the guest.
pub(crate) fn start(vm: &Vm, guest: &FlatGuest) -> Vcpu {
    let mut vcpu = vm.create_vcpu(0).unwrap();
    vcpu.start(guest).unwrap();
    vcpu
}

/// The guest at its start, or `None` with the reason printed.
pub(crate) fn boot(test: &str, name: &str) -> Option<(Vm, Vcpu)> {
    let kvm = device(test)?;
    let guest = guests::by_name(name).unwrap();
    let vm = load(&kvm, &guest);
    let vcpu = start(&vm, &guest);
    Some((vm, vcpu))
}

/// Enters until an exit comes that is not [`Exit::Again`].
pub(crate) fn next(vcpu: &mut Vcpu) -> Result<Exit, DecodeError> {
    loop {
        let entered = vcpu.enter();
        match decode(entered, vcpu.page(), vcpu.kernel()) {
            Ok(Exit::Again(_)) => {}
            other => return other,
        }
    }
}
