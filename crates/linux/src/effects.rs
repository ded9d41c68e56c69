//! The effects on the host: memory attributes, discards, writes, and a bus that remembers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use exeunt_abi::{Errno, Gpa};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::host::{Action, Host};

use crate::attributes::set_attributes;
use crate::ioctl_unsafe;
use crate::prefault::prefault;
use crate::vm::Machine;

/// The host's side of one VM. Clones act on the same VM and share its ports.
///
/// No lock is held across a system call: vCPUs that convert, even the same pages, wait for each other in the kernel only.
#[derive(Clone, Debug)]
pub struct Effects {
    /// The vCPU that pages are mapped through, if one is known. It goes first, see `Machine`.
    vcpu: Option<Arc<OwnedFd>>,
    machine: Arc<Machine>,
}

/// The ports of a VM.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    log: Vec<(u16, Vec<u8>)>,
    values: BTreeMap<u16, u8>,
}

impl Effects {
    pub(crate) fn new(machine: Arc<Machine>, vcpu: Option<OwnedFd>) -> Self {
        Self { vcpu: vcpu.map(Arc::new), machine }
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

    /// Maps pages into the guest before it touches them, through the vCPU that these effects belong to: see
    /// [`crate::prefault`].
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` without a vCPU (`Vcpu::effects` has one), else as for [`crate::prefault`].
    pub fn prefault(&self, range: PageRange) -> Result<(), Errno> {
        let Some(vcpu) = &self.vcpu else { return Err(Errno::EOPNOTSUPP) };
        prefault(vcpu, range)
    }

    /// Gets memory for shared pages before anyone touches them: `MADV_POPULATE_WRITE`. What they hold stays.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a page lies in no slot, `EOPNOTSUPP` before Linux 5.14, else the error of `madvise`.
    pub fn populate(&self, range: PageRange) -> Result<(), Errno> {
        self.machine.memory.table().populate(range)
    }
}

impl Host for Effects {
    /// Applies one effect: `KVM_SET_MEMORY_ATTRIBUTES`, `madvise` or `fallocate`, `KVM_PRE_FAULT_MEMORY`, or a copy.
    ///
    /// # Errors
    ///
    /// The error of the system call; a host without memory attributes says `ENOTTY`. `EFAULT` for memory that the VM
    /// does not have, and `EOPNOTSUPP` for private memory where a slot has none: nothing has been changed then.
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        match *action {
            Action::SetAttributes { range, to } => {
                set_attributes(ioctl_unsafe::borrowed(&self.machine.fd), range, to)
            }
            Action::Discard { range, backing } => self.machine.memory.table().discard(range, backing),
            Action::WriteGuest { gpa, bytes } => self.machine.memory.table().write(gpa, bytes),
            Action::Prefault { range } => self.prefault(range),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.machine.memory.table().read(gpa, bytes)
    }

    fn port_out(&mut self, port: u16, _size: u8, data: &[u8]) {
        self.machine.ports().log.push((port, data.to_vec()));
    }

    fn port_in(&mut self, port: u16, _size: u8, data: &mut [u8]) {
        data.fill(self.machine.ports().values.get(&port).copied().unwrap_or(0xff));
    }
}
