//! Cases on `/dev/kvm`.

use super::Ran;
use super::drive::{ScenarioVcpu, drive};
use super::migrate::migrate;
use crate::scenario::Case;
use crate::timeline::Log;
use exeunt::Policy;
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::{Arch, Gfn, Gpa, PAGE_SIZE};
use exeunt_linux::{Effects, FlatGuest, Kvm, Vcpu, Vm, guests};
use exeunt_model::guest::Note;
use exeunt_proto::conversion::PageRange;

impl ScenarioVcpu for Vcpu {
    fn id(&self) -> u64 {
        0
    }

    fn take_notes(&mut self) -> Vec<Note> {
        Vec::new()
    }

    fn raise_triple_fault(&mut self) -> Result<(), String> {
        Self::raise_triple_fault(self).map_err(|error| error.to_string())
    }
}

/// Runs a case on the host's KVM.
///
/// # Errors
///
/// The host lacks what the case needs; the capability is named.
pub(super) fn run(case: &Case, log: &Log) -> Result<Ran, String> {
    let kvm = Kvm::open().map_err(|error| error.to_string())?;
    if case.vm.arch != Arch::X86 {
        return Err("the guest is an arm64 guest, and this host is x86-64".into());
    }
    if !case.dialects.contains(&exeunt_abi::Dialect::default()) {
        return Err(format!("the case is about {}, and a real kernel is what it is", case.dialects[0]));
    }
    // Asked first, because it names what a host without confidential guests lacks.
    kvm.create_vm(case.vm.vm_type).map_err(|error| error.to_string())?;
    let guest = guests::by_name(&case.guest).ok_or_else(|| {
        format!("the guest '{}' exists for the model only, not as machine code", case.guest)
    })?;
    if case.vm.vcpus != 1 {
        return Err("scenarios with several vCPUs run on the model only".into());
    }
    let policy = policy(case)?;
    if let Some(migration) = case.migration {
        return migrate(case, migration, &policy, log, |capability| {
            let caps: &[Cap] = if capability { &[Cap::X86_TRIPLE_FAULT_EVENT] } else { &[] };
            start(&guest, &make_vm(case, &kvm, caps, log)?)
        });
    }
    let (vcpu, effects) = start(&guest, &make_vm(case, &kvm, &case.capabilities, log)?)?;
    Ok(drive(case, &policy, vec![vcpu], effects, 0, log, || false))
}

fn make_vm(case: &Case, kvm: &Kvm, caps: &[Cap], log: &Log) -> Result<Vm, String> {
    let mut vm = kvm.create_vm(case.vm.vm_type).map_err(|error| error.to_string())?;
    for cap in caps {
        let argument = if *cap == Cap::EXIT_HYPERCALL { 1 << MAP_GPA_RANGE } else { 1 };
        vm.enable_cap(*cap, argument).map_err(|error| error.to_string())?;
    }
    if case.vm.vm_type.has_private_memory() {
        vm.add_private_memory(Gpa(0), case.vm.memory_bytes).map_err(|error| error.to_string())?;
    } else {
        vm.add_memory(Gpa(0), case.vm.memory_bytes).map_err(|error| error.to_string())?;
    }
    let bytes = case.vm.memory_bytes;
    log.vmm(format!("makes a VM of type {} with {bytes:#x} bytes on /dev/kvm", case.vm.vm_type.name()));
    Ok(vm)
}

fn start(guest: &FlatGuest, vm: &Vm) -> Result<(Vcpu, Effects), String> {
    vm.write_guest(guest.load, guest.image)
        .map_err(|errno| format!("the guest does not fit into the memory: {errno}"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(|error| error.to_string())?;
    vcpu.start(guest).map_err(|error| error.to_string())?;
    Ok((vcpu, vm.effects()))
}

fn policy(case: &Case) -> Result<Policy, String> {
    let range = PageRange::new(Gfn(0), case.vm.memory_bytes / PAGE_SIZE).ok_or("the memory is empty")?;
    let slot = MemorySlot { range, has_private: case.vm.vm_type.has_private_memory() };
    let mut policy = Policy::new(GuestMemory::new([slot]).map_err(|error| error.to_string())?);
    policy.memory_faults = case.memory_faults;
    policy.reset = case.reset;
    Ok(policy)
}
