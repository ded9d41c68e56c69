//! What a VMM does to a VM of the model: the port's host.

use crate::vm::Vm;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::{Errno, Gpa};
use exeunt_proto::conversion::PageState;
use exeunt_proto::host::{Action, Backing, Host};

/// Applies effects with the ioctls and the file operations that a VMM would use.
#[derive(Clone, Debug)]
pub struct Effects {
    vm: Vm,
}

impl Effects {
    pub(crate) const fn new(vm: Vm) -> Self {
        Self { vm }
    }
}

impl Host for Effects {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        match action {
            Action::SetAttributes { range, to } => {
                let attributes = if *to == PageState::Private { MEMORY_ATTRIBUTE_PRIVATE } else { 0 };
                self.vm.set_memory_attributes(range.gpa(), range.bytes(), attributes)
            }
            Action::Discard { range, backing: Backing::Shared } => {
                self.vm.lock().memory.discard_shared(*range);
                Ok(())
            }
            Action::Discard { range, backing: Backing::Private } => {
                self.vm.lock().memory.discard_private(*range);
                Ok(())
            }
            Action::Prefault { range } => self.vm.prefault(*range),
            Action::WriteGuest { gpa, bytes } => self.vm.write_shared(Gpa(gpa.0), bytes),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.vm.read_shared(gpa, bytes)
    }
}
