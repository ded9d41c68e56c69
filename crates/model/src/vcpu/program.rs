//! Which program a vCPU runs. A program stands for what the registers of a fresh start point to.

use crate::guest::mailbox::{Op, Program};
use crate::guest::{Cpu, GuestFault};
use crate::vcpu::{OnEntry, Vcpu};
use exeunt_abi::Gpa;
use std::collections::BTreeMap;
use std::future::Future;

/// The key of what runs from the VMSA that KVM made, and of what a plain processor starts with.
const OWN: u64 = u64::MAX;

/// The programs of a vCPU that do not run now.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    /// The key of the one that runs; a VMSA of the guest's is its address.
    current: Option<u64>,
    parked: BTreeMap<u64, Parked>,
}

/// A program in the middle of its work, or one that has not begun.
#[derive(Debug)]
struct Parked {
    program: Program,
    retry: Option<Op>,
    on_entry: Option<OnEntry>,
}

impl Vcpu {
    /// What the registers in the VMSA at this address point to. It begins when the guest starts the vCPU with this
    /// VMSA, and goes on where it was when the guest does so again. Without one, the vCPU's own program begins there,
    /// if it has not begun yet.
    pub fn load_vmsa<P, F>(&mut self, vmsa: Gpa, seed: u64, program: P)
    where
        P: FnOnce(Cpu) -> F,
        F: Future<Output = Result<(), GuestFault>> + Send + 'static,
    {
        let program = self.guest.make(self.id(), seed, program);
        self.programs.parked.insert(vmsa.0, Parked { program, retry: None, on_entry: None });
    }

    /// What lies where a plain processor starts after its next INIT. Without it a processor that has run before halts.
    pub fn load<P, F>(&mut self, seed: u64, program: P)
    where
        P: FnOnce(Cpu) -> F,
        F: Future<Output = Result<(), GuestFault>> + Send + 'static,
    {
        self.load_vmsa(Gpa(OWN), seed, program);
    }

    /// The vCPU got the VMSA at this address.
    pub(crate) fn switch_program(&mut self, vmsa: Gpa) {
        self.guest.view().set_vmsa(vmsa.0);
        let before = self.programs.current.replace(vmsa.0).unwrap_or(OWN);
        let next = self.programs.parked.remove(&vmsa.0);
        if before == vmsa.0 || next.is_none() && !self.guest.has_begun() {
            return;
        }
        let now = self.guest.replace(None);
        let (retry, on_entry) = (self.retry.take(), self.on_entry.take());
        if let Some(program) = now {
            self.programs.parked.insert(before, Parked { program, retry, on_entry });
        }
        self.begin(next);
    }

    /// A plain processor starts anew. What it did is lost.
    pub(crate) fn restart_program(&mut self) {
        let next = self.programs.parked.remove(&OWN);
        if self.guest.has_begun() || next.is_some() {
            (self.retry, self.on_entry) = (None, None);
            self.begin(next);
        }
    }

    fn begin(&mut self, next: Option<Parked>) {
        let Some(Parked { program, retry, on_entry }) = next else {
            self.guest.replace(None);
            return;
        };
        self.guest.replace(Some(program));
        (self.retry, self.on_entry) = (retry, on_entry);
    }
}
