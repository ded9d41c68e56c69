//! Hypercalls: by `VMMCALL`, or by the `VMMCALL` exit of a GHCB.

use crate::guest::GuestFault;
use crate::guest::mailbox::Outcome;
use crate::vcpu::Completion;
use crate::vcpu::Step;
use crate::vcpu::{OnEntry, Vcpu};
use exeunt_abi::kvm::run::{HYPERCALL_LONG_MODE, MAP_GPA_RANGE};
use exeunt_abi::{Errno, PAGE_SIZE};
use exeunt_proto::exit::{Exit, Hypercall};

/// `-KVM_ENOSYS`, the guest's name for a hypercall that is not there.
const NO_SUCH_HYPERCALL: u64 = 1000u64.wrapping_neg();

/// `-errno` as a register.
fn negative(errno: Errno) -> u64 {
    u64::from(errno.0.unsigned_abs()).wrapping_neg()
}

impl Vcpu {
    /// A 64-bit guest executes `VMMCALL` in ring 0.
    pub(crate) fn vmmcall(&mut self, nr: u64, args: [u64; 4]) -> Step {
        if !self.is_plain_x86() {
            return Step::Guest(Outcome::Fault(GuestFault::InvalidOpcode));
        }
        self.did(|| format!("VMMCALL {nr}, arguments {args:x?}"));
        [self.regs.rbx, self.regs.rcx, self.regs.rdx, self.regs.rsi] = args;
        self.regs.rax = nr;
        self.regs.cpl = 0;
        self.on_entry = Some(OnEntry::Rax);
        self.hypercall()
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `____kvm_emulate_hypercall`.
    pub(crate) fn hypercall(&mut self) -> Step {
        let nr = self.regs.rax;
        let [gpa, pages, attributes] = [self.regs.rbx, self.regs.rcx, self.regs.rdx];
        self.regs.rax = if self.regs.cpl != 0 {
            negative(Errno::EPERM)
        } else if nr != MAP_GPA_RANGE || !self.vm.map_gpa_range_exits() {
            NO_SUCH_HYPERCALL
        } else if gpa & (PAGE_SIZE - 1) != 0 || pages == 0 || (gpa >> 12).checked_add(pages).is_none() {
            negative(Errno::EINVAL)
        } else {
            // The arguments are passed on unfiltered.
            self.completion = Some(Completion::Hypercall);
            let args = [gpa, pages, attributes, 0, 0, 0];
            let hypercall = Hypercall { nr, args, flags: HYPERCALL_LONG_MODE };
            return Step::Exit(self.exit(&Exit::Hypercall(hypercall)));
        };
        Step::Resume
    }
}
