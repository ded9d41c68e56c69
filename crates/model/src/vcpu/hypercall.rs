//! Hypercalls: by `VMMCALL`, or by the `VMMCALL` exit of a GHCB.

use crate::guest::mailbox::Outcome;
use crate::vcpu::Completion;
use crate::vcpu::Step;
use crate::vcpu::{OnEntry, Vcpu, low};
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
            return Step::Guest(Outcome::Fault(self.not_emulated()));
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
        if self.regs.cpl != 0 {
            self.regs.rax = negative(Errno::EPERM);
            return Step::Resume;
        }
        let [a0, a1, a2, a3] = [self.regs.rbx, self.regs.rcx, self.regs.rdx, self.regs.rsi];
        // The paravirtual features count as shown: KVM holds a guest to its CPUID only if userspace asked for it.
        self.regs.rax = match self.regs.rax {
            nr::VAPIC_POLL_IRQ | nr::SCHED_YIELD => 0,
            nr::KICK_CPU => {
                self.vm.kick_by_apic_id(a1);
                0
            }
            nr::SEND_IPI => self.vm.send_ipis([a0, a1], low(a2), a3).unwrap_or_else(negative),
            // The clock of the model's hosts is not one that a guest could be paired with.
            nr::CLOCK_PAIRING => negative(Errno::EOPNOTSUPP),
            MAP_GPA_RANGE if self.vm.map_gpa_range_exits() => {
                if map_gpa_range_is_valid(a0, a1) {
                    return self.forward_map_gpa_range([a0, a1, a2]);
                }
                negative(Errno::EINVAL)
            }
            _ => NO_SUCH_HYPERCALL,
        };
        Step::Resume
    }

    /// The arguments are passed on unfiltered.
    fn forward_map_gpa_range(&mut self, [gpa, pages, attributes]: [u64; 3]) -> Step {
        self.completion = Some(Completion::Hypercall);
        let args = [gpa, pages, attributes, 0, 0, 0];
        let hypercall = Hypercall { nr: MAP_GPA_RANGE, args, flags: HYPERCALL_LONG_MODE };
        Step::Exit(self.exit(&Exit::Hypercall(hypercall)))
    }
}

/// `KVM_HC_*` that KVM answers itself.
///
/// Source: Linux v7.2 `include/uapi/linux/kvm_para.h`.
mod nr {
    pub(super) const VAPIC_POLL_IRQ: u64 = 1;
    pub(super) const KICK_CPU: u64 = 5;
    pub(super) const CLOCK_PAIRING: u64 = 9;
    pub(super) const SEND_IPI: u64 = 10;
    pub(super) const SCHED_YIELD: u64 = 11;
}

const fn map_gpa_range_is_valid(gpa: u64, pages: u64) -> bool {
    gpa & (PAGE_SIZE - 1) == 0 && pages != 0 && (gpa >> 12).checked_add(pages).is_some()
}
