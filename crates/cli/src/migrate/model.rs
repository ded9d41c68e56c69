//! The VM in software, and its guest: a program that keeps all that it is in guest memory, so that a new process goes on
//! where the last one was.

use super::console::{Console, TAKEN_PORT, VALUE_PORT, WithConsole};
use super::machine::{Running, guest_memory};
use crate::Failure;
use exeunt::Policy;
use exeunt::snapshot::{Origin, SlotLayout};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Gfn, Gpa, Kernel};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Effects, Host, Kvm, Slot, Vcpu};
use exeunt_proto::conversion::PageRange;

const MEMORY_PAGES: u64 = 32;
/// Where the guest says how far it is: the value it is at, and in bit 0 whether it is saying it.
const STATE: Gpa = Gpa(0x2000);
/// What the guest remembers of the values that it said, a word each.
const LEDGER: Gpa = Gpa(0x4000);
const LEDGER_WORDS: u64 = 2048;
/// Pages that become private and shared again.
const SCRATCH: Gpa = Gpa(0x1_0000);
const SCRATCH_PAGES: u64 = 2;
/// What the guest says when it finds something else than it remembers.
const WRONG: u32 = 0xdead_0001;

/// The guest: says 0, 1, 2 and so on. Before it says a value it converts its scratch pages, and writes down that it is about to.
///
/// It begins at its first line in each process, and goes on wherever it was interrupted, between any two lines: the
/// device tells whether a value that was about to be said was taken.
async fn count(cpu: Cpu, converts: bool) -> Result<(), GuestFault> {
    loop {
        let state = cpu.read_u64(STATE, Access::Shared).await?;
        let value = state >> 1;
        if state & 1 == 1 {
            let taken = cpu.port_in(TAKEN_PORT, 4).await? & 0xffff_ffff;
            if taken > value {
                cpu.write(STATE, &(value.saturating_add(1) << 1).to_le_bytes(), Access::Shared).await?;
                continue;
            }
        }
        if converts {
            convert(&cpu, value).await?;
        }
        let said = remember(&cpu, value).await?;
        cpu.write(STATE, &(value << 1 | 1).to_le_bytes(), Access::Shared).await?;
        cpu.port_out(VALUE_PORT, 4, said).await?;
        cpu.write(STATE, &(value.saturating_add(1) << 1).to_le_bytes(), Access::Shared).await?;
    }
}

/// The scratch pages are private for even values and shared for odd ones, and are written in both states.
async fn convert(cpu: &Cpu, value: u64) -> Result<(), GuestFault> {
    let (attributes, access) = if value % 2 == 0 { (0x10, Access::Private) } else { (0, Access::Shared) };
    cpu.vmmcall(MAP_GPA_RANGE, [SCRATCH.0, SCRATCH_PAGES, attributes, 0]).await?;
    cpu.write(SCRATCH, &value.to_le_bytes(), access).await
}

/// Writes a value down, and says another one if what was written before is not there.
async fn remember(cpu: &Cpu, value: u64) -> Result<u32, GuestFault> {
    let word = |value: u64| Gpa(LEDGER.0.saturating_add(value % LEDGER_WORDS * 8));
    let before = value.saturating_sub(1);
    if value > 0 && cpu.read_u64(word(before), Access::Shared).await? != before {
        return Ok(WRONG);
    }
    cpu.write(word(value), &value.to_le_bytes(), Access::Shared).await?;
    Ok(u32::try_from(value).unwrap_or(WRONG))
}

/// What a VM of the snapshot's type offers on this kernel.
pub(super) fn offers(origin: &Origin, dialect: Dialect) -> impl Fn(Cap) -> u64 + use<> {
    let kvm = Kvm::on(Host::AMD, Kernel { dialect, arch: Arch::X86 });
    let vm_type = VmType::from_number(origin.vm_type);
    move |cap| match vm_type.and_then(|vm_type| kvm.create_vm(vm_type).ok()) {
        Some(vm) if cap != Cap::VM_TYPES => vm.check_extension(cap),
        _ => kvm.check_extension(cap),
    }
}

/// A VM with its guest. `enabled` is what a snapshot says; without one it is what the guest needs.
pub(super) fn build(
    vm_type: VmType,
    dialect: Dialect,
    enabled: &[(Cap, u64)],
) -> Result<Running<Vcpu, Effects>, Failure> {
    if !matches!(vm_type, VmType::Default | VmType::SwProtected) {
        return Err(format!(
            "a {} VM cannot be migrated: its VMM can read neither memory nor registers",
            vm_type.name()
        ));
    }
    let kernel = Kernel { dialect, arch: Arch::X86 };
    let failed = |what: &'static str| move |errno: Errno| format!("{what} failed with {errno}");
    let vm = Kvm::on(Host::AMD, kernel).create_vm(vm_type).map_err(failed("KVM_CREATE_VM"))?;
    let has_private = vm_type == VmType::SwProtected;
    let range = PageRange::new(Gfn(0), MEMORY_PAGES).ok_or("no memory")?;
    let slot = Slot::shared(0, Gpa(0), range.bytes()).ok_or("the memory is not made of whole pages")?;
    let slot = if has_private {
        let file = vm.create_guest_memfd(range.bytes()).map_err(failed("KVM_CREATE_GUEST_MEMFD"))?;
        slot.with_guest_memfd(file, 0)
    } else {
        slot
    };
    vm.add_slot(slot).map_err(failed("KVM_SET_USER_MEMORY_REGION2"))?;
    let mut origin = Origin::new(kernel, vm_type);
    origin.enabled = enabled.to_vec();
    if enabled.is_empty() {
        let hypercalls = (Cap::EXIT_HYPERCALL, 1 << MAP_GPA_RANGE);
        let triple_fault = (Cap::X86_TRIPLE_FAULT_EVENT, 1);
        let wanted = if has_private { vec![hypercalls, triple_fault] } else { vec![triple_fault] };
        origin.enabled = wanted.into_iter().filter(|(cap, _)| vm.check_extension(*cap) != 0).collect();
    }
    for (cap, value) in &origin.enabled {
        // A snapshot may come from anywhere: it enables what this guest uses, and nothing else.
        if !matches!(*cap, Cap::EXIT_HYPERCALL | Cap::X86_TRIPLE_FAULT_EVENT) {
            return Err(format!("the snapshot asks to enable {cap}, which this guest does not use"));
        }
        // One that is lacking is refused before, if something is lost without it.
        if vm.check_extension(*cap) != 0 {
            vm.enable_cap(*cap, *value)
                .map_err(|errno| format!("KVM_ENABLE_CAP of {cap} failed with {errno}"))?;
        }
    }
    let slots = vec![SlotLayout { range, has_private }];
    let vcpu = vm.create_vcpu(0, move |cpu| count(cpu, has_private)).map_err(failed("KVM_CREATE_VCPU"))?;
    let host = WithConsole { inner: vm.effects(), console: Console::default() };
    Ok(Running { vcpu, host, policy: Policy::new(guest_memory(&slots)?), origin, slots })
}
