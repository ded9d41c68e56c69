//! What a guest does with a guest of its own, and at the edge of what a processor endures.

use super::GuestFault;
use super::cpu::{Act, Cpu, nothing};
use super::mailbox::{Op, Outcome};
use crate::nested::{Intercepts, NestedExit};
use exeunt_abi::Gpa;

impl Cpu {
    /// Enters L2, with its control block at `control`. The acts that follow are those of L2, until one of them ends
    /// with [`GuestFault::NestedExit`].
    ///
    /// # Errors
    ///
    /// The exit, if L2 comes back before it does anything; `#UD` outside of ordinary x86 guests and inside L2, `#GP`
    /// for an address that is unaligned or without memory.
    pub fn enter_l2(&self, control: Gpa, intercepts: Intercepts) -> Act<()> {
        Act::new(Op::EnterL2 { control, intercepts }, nothing)
    }

    /// L2 executes `VMMCALL`, or `VMCALL` on Intel, which L1 sees.
    ///
    /// # Errors
    ///
    /// `#UD` outside of L2.
    pub fn exit_l2(&self) -> Act<NestedExit> {
        Act::new(Op::ExitL2, |outcome| match outcome {
            Outcome::Fault(GuestFault::NestedExit(exit)) => Ok(exit),
            Outcome::Fault(fault) => Err(fault),
            _ => Ok(NestedExit::default()),
        })
    }

    /// Writes CR4, of which the model keeps what machine checks ask for: `CR4.MCE`, bit 6.
    ///
    /// # Errors
    ///
    /// `#UD` outside of x86 guests.
    pub fn write_cr4(&self, value: u64) -> Act<()> {
        Act::new(Op::WriteCr4 { value }, nothing)
    }

    /// Opens no window for events, for longer than the notify window of the VM. `context_invalid` says that the
    /// processor lost its place over it.
    ///
    /// # Errors
    ///
    /// None of its own.
    pub fn close_event_window(&self, context_invalid: bool) -> Act<()> {
        Act::new(Op::CloseEventWindow { context_invalid }, nothing)
    }
}
