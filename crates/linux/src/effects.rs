//! The effects on the host: memory attributes, discards, writes, and a bus that remembers.

use std::collections::BTreeMap;
use std::sync::Arc;

use exeunt_abi::Errno;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::host::{Action, Host};
use kvm_bindings::kvm_memory_attributes;

use crate::vm::Machine;

/// The host's side of one VM. Clones act on the same VM and share its ports.
#[derive(Clone, Debug)]
pub struct Effects {
    machine: Arc<Machine>,
}

/// The ports of a VM.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    log: Vec<(u16, Vec<u8>)>,
    values: BTreeMap<u16, u8>,
}

impl Effects {
    pub(crate) fn new(machine: Arc<Machine>) -> Self {
        Self { machine }
    }

    /// What the guest wrote to ports, in order: the port, and the bytes of one exit.
    #[must_use]
    pub fn port_log(&self) -> Vec<(u16, Vec<u8>)> {
        self.machine.ports().log.clone()
    }

    /// Sets what every byte read from a port is. Without it, all ones.
    pub fn set_port_in(&self, port: u16, value: u8) {
        self.machine.ports().values.insert(port, value);
    }

    fn set_attributes(&self, range: PageRange, to: PageState) -> Result<(), Errno> {
        let attributes = kvm_memory_attributes {
            address: range.gpa().0,
            size: range.bytes(),
            attributes: match to {
                PageState::Shared => 0,
                PageState::Private => MEMORY_ATTRIBUTE_PRIVATE,
            },
            flags: 0,
        };
        self.machine.fd.set_memory_attributes(attributes).map_err(|error| Errno(error.errno()))
    }
}

impl Host for Effects {
    /// Applies one effect: `KVM_SET_MEMORY_ATTRIBUTES`, `madvise` or `fallocate`, or a copy.
    ///
    /// # Errors
    ///
    /// The error of the system call; a host without memory attributes says `ENOTTY`. `EFAULT` for memory that the VM
    /// does not have, and `EOPNOTSUPP` for private memory where a slot has none: nothing has been changed then.
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        match *action {
            Action::SetAttributes { range, to } => self.set_attributes(range, to),
            Action::Discard { range, backing } => self.machine.memory().discard(range, backing),
            Action::WriteGuest { gpa, bytes } => self.machine.memory().write(gpa, bytes),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn port_out(&mut self, port: u16, _size: u8, data: &[u8]) {
        self.machine.ports().log.push((port, data.to_vec()));
    }

    fn port_in(&mut self, port: u16, _size: u8, data: &mut [u8]) {
        data.fill(self.machine.ports().values.get(&port).copied().unwrap_or(0xff));
    }
}
