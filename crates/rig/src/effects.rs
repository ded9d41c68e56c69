//! The effects on a real kernel: attributes, discards and pages that are mapped ahead, and what the guest finds then.

use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gfn, Gpa};
use exeunt_linux::{Effects, HostMemory, Kvm, KvmError, Vcpu, Vm, guests};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::{Exit, decode};
use exeunt_proto::host::{Action, Backing, Host as _, Vcpu as _};

/// What the guest gets from 0 on.
const MEMORY_BYTES: u64 = 0x1_0000;
/// The pages that are converted: the first address, and the bytes. The guest's own pages are below.
const CONVERTED: (u64, usize) = (0x8000, 0x4000);

/// One VM, its vCPU, and the effects that go through that.
struct Machine {
    vm: Vm,
    vcpu: Vcpu,
    effects: Effects,
}

/// Converts pages of an ordinary VM, and of one with private memory if the kernel has such, and maps them ahead.
///
/// # Errors
///
/// What the kernel did otherwise than it should.
pub fn check(kvm: &Kvm) -> Result<String, String> {
    let mut told = Vec::new();
    for vm_type in [VmType::Default, VmType::SwProtected] {
        match machine(kvm, vm_type) {
            Ok(mut machine) => {
                let prefault = machine.check(vm_type == VmType::SwProtected);
                let prefault = prefault.map_err(|error| format!("{}: {error}", vm_type.name()))?;
                told.push(format!("{}: prefault {prefault:?}", vm_type.name()));
            }
            Err(KvmError::VmTypeNotOffered { .. }) => told.push(format!("{}: not offered", vm_type.name())),
            Err(error) => return Err(format!("{}: {error}", vm_type.name())),
        }
    }
    Ok(told.join(", "))
}

fn machine(kvm: &Kvm, vm_type: VmType) -> Result<Machine, KvmError> {
    let mut vm = kvm.create_vm(vm_type)?;
    if vm_type.has_private_memory() {
        let private = vm.create_guest_memfd(MEMORY_BYTES)?;
        let shared = HostMemory::memfd(MEMORY_BYTES)?;
        vm.add_slot(Gpa(0), MEMORY_BYTES, shared.at(0), Some(private.at(0)))?;
    } else {
        vm.add_memory(Gpa(0), MEMORY_BYTES)?;
    }
    let failed = |errno| KvmError::Ioctl { name: "the guest's image", errno };
    let guest = guests::by_name("hlt").ok_or(failed(Errno::ENOENT))?;
    vm.write_guest(guest.load, guest.image).map_err(failed)?;
    let mut vcpu = vm.create_vcpu(0)?;
    vcpu.start(&guest)?;
    let effects = vcpu.effects()?;
    Ok(Machine { vm, vcpu, effects })
}

impl Machine {
    /// Returns what the kernel says to pages that are to be mapped ahead.
    fn check(&mut self, has_private: bool) -> Result<Result<(), Errno>, String> {
        let (start, bytes) = CONVERTED;
        let range = PageRange::new(Gpa(start).gfn(), (bytes >> 12) as u64).ok_or("no range")?;
        self.fill()?;
        if has_private {
            self.apply(&Action::SetAttributes { range, to: PageState::Private })?;
            self.apply(&Action::Discard { range, backing: Backing::Shared })?;
            self.expect_zero()?;
        }
        let prefault = self.effects.apply(&Action::Prefault { range });
        let is_offered = self.vm.check_extension(Cap::PRE_FAULT_MEMORY) != 0;
        if prefault != Ok(()) && (is_offered || prefault != Err(Errno::EOPNOTSUPP)) {
            return Err(format!("prefault of {range}: {prefault:?}"));
        }
        let outside = PageRange::new(Gfn(0x1000), 1).ok_or("no range")?;
        if self.effects.prefault(outside).is_ok() {
            return Err("pages were mapped where there is no memory".to_owned());
        }
        if has_private {
            self.apply(&Action::SetAttributes { range, to: PageState::Shared })?;
            self.apply(&Action::Discard { range, backing: Backing::Private })?;
        } else {
            self.apply(&Action::Discard { range, backing: Backing::Shared })?;
        }
        self.expect_zero()?;
        match decode(self.vcpu.enter(), self.vcpu.page(), self.vcpu.kernel()) {
            Ok(Exit::Hlt) => Ok(prefault),
            other => Err(format!("the guest does not halt: {other:?}")),
        }
    }

    fn apply(&mut self, action: &Action<'_>) -> Result<(), String> {
        self.effects.apply(action).map_err(|errno| format!("{action:?}: {errno}"))
    }

    fn fill(&self) -> Result<(), String> {
        self.vm.write_guest(Gpa(CONVERTED.0), &[7; CONVERTED.1]).map_err(|errno| errno.to_string())
    }

    fn expect_zero(&self) -> Result<(), String> {
        let mut found = [9; CONVERTED.1];
        self.vm.read_guest(Gpa(CONVERTED.0), &mut found).map_err(|errno| errno.to_string())?;
        match found.iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(at) => Err(format!("what was given back is still there, {at:#x} bytes from the start")),
        }
    }
}
