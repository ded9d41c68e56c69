//! The VM on the host's KVM, and its guest in machine code.

use super::console::{Console, WithConsole};
use super::machine::{Running, guest_memory};
use crate::Failure;
use exeunt::Policy;
use exeunt::snapshot::{Origin, SlotLayout};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Gfn, Gpa};
use exeunt_linux::{Effects, Kvm, Vcpu, guests};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::host::Vcpu as _;

const MEMORY_PAGES: u64 = 16;

/// What the host's KVM offers.
pub(super) fn offers() -> Result<impl Fn(Cap) -> u64, Failure> {
    let kvm = Kvm::open().map_err(|error| error.to_string())?;
    Ok(move |cap| u64::from(kvm.check_extension(cap)))
}

/// A VM whose guest is at its first instruction.
pub(super) fn start() -> Result<Running<Vcpu, Effects>, Failure> {
    let kvm = Kvm::open().map_err(|error| error.to_string())?;
    let caps = [(Cap::X86_TRIPLE_FAULT_EVENT, 1)];
    let enabled: Vec<_> = caps.into_iter().filter(|(cap, _)| kvm.check_extension(*cap) != 0).collect();
    let mut running = build(&enabled)?;
    let guest = guests::by_name("count").ok_or("the guest 'count' is missing")?;
    let host = &mut running.host;
    exeunt_proto::host::Host::apply(
        host,
        &exeunt_proto::host::Action::WriteGuest { gpa: guest.load, bytes: guest.image },
    )
    .map_err(|errno| format!("the guest does not fit into the memory: {errno}"))?;
    running.vcpu.start(&guest).map_err(|error| error.to_string())?;
    Ok(running)
}

/// A VM with its memory and a vCPU, and no guest yet.
pub(super) fn build(enabled: &[(Cap, u64)]) -> Result<Running<Vcpu, Effects>, Failure> {
    let kvm = Kvm::open().map_err(|error| error.to_string())?;
    let mut vm = kvm.create_vm(VmType::Default).map_err(|error| error.to_string())?;
    for (cap, value) in enabled {
        // A snapshot may come from anywhere: it enables what this guest uses, and nothing else.
        if *cap != Cap::X86_TRIPLE_FAULT_EVENT {
            return Err(format!("the snapshot asks to enable {cap}, which this guest does not use"));
        }
        // One that is lacking is refused before, if something is lost without it.
        if kvm.check_extension(*cap) != 0 {
            vm.enable_cap(*cap, *value).map_err(|error| error.to_string())?;
        }
    }
    let range = PageRange::new(Gfn(0), MEMORY_PAGES).ok_or("no memory")?;
    vm.add_memory(Gpa(0), range.bytes()).map_err(|error| error.to_string())?;
    let vcpu = vm.create_vcpu(0).map_err(|error| error.to_string())?;
    let mut origin = Origin::new(vcpu.kernel(), VmType::Default);
    origin.enabled = enabled.to_vec();
    let slots = vec![SlotLayout { range, has_private: false }];
    let host = WithConsole { inner: vm.effects(), console: Console::default() };
    Ok(Running { vcpu, host, policy: Policy::new(guest_memory(&slots)?), origin, slots })
}
