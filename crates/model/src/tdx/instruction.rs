//! Leaves of `TDG.VP.VMCALL` that stand for instructions: what a TD's `#VE` handler makes of them.

use super::TdCompletion;
use crate::guest::tdx::TdRegs;
use crate::vcpu::{Completion, Step, Vcpu};
use exeunt_abi::ghci::Status;
use exeunt_abi::kvm::run;
use exeunt_proto::exit::{Exit, Io, Mmio};

/// The low half of a register.
#[expect(clippy::cast_possible_truncation, reason = "KVM keeps it in 32 bits")]
const fn low(register: u64) -> u32 {
    register as u32
}

impl Vcpu {
    /// CPUID as `KVM_SET_CPUID2` set it. R12 and R13 are the leaf and sub-leaf, R12 to R15 the answer.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_emulate_cpuid`.
    pub(super) fn td_cpuid(&mut self) -> Step {
        [self.regs.rax, self.regs.rcx] = [self.td.args.r12, self.td.args.r13];
        self.emulate_cpuid();
        let args = &mut self.td.args;
        [args.r12, args.r13] = [self.regs.rax, self.regs.rbx];
        [args.r14, args.r15] = [self.regs.rcx, self.regs.rdx];
        Step::Resume
    }

    /// Port I/O of 1, 2 or 4 bytes. R12 is the size, R13 1 for a write, R14 the port, R15 the value.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_emulate_io`.
    pub(super) fn td_io(&mut self) -> Step {
        let TdRegs { r12, r13, r14, r15, .. } = self.td.args;
        let size = match r12 {
            1 => 1,
            2 => 2,
            4 => 4,
            _ => return self.answered(Status::INVALID_OPERAND),
        };
        if r13 > 1 {
            return self.answered(Status::INVALID_OPERAND);
        }
        let is_out = r13 == 1;
        #[expect(clippy::cast_possible_truncation, reason = "KVM passes a port on in 16 bits")]
        let port = r14 as u16;
        let value = if is_out { r15 } else { 0 };
        for (to, from) in self.port_data.iter_mut().zip(value.to_le_bytes()).take(usize::from(size)) {
            *to = from;
        }
        if !is_out {
            self.completion = Some(Completion::Td(TdCompletion::PortIn { size }));
        }
        Step::Exit(self.exit(&Exit::Io(Io { is_out, size, port, count: 1, start: 0 })))
    }

    /// MMIO of 1, 2, 4 or 8 bytes at a shared address. R12 is the size, R13 1 for a write, R14 the address, R15 the value.
    /// KVM keeps size and direction in 32 bits.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_emulate_mmio`.
    pub(super) fn td_mmio(&mut self) -> Step {
        let TdRegs { r12, r13, r14: gpa, r15, .. } = self.td.args;
        let size: u8 = match low(r12) {
            1 => 1,
            2 => 2,
            4 => 4,
            8 => 8,
            _ => return self.answered(Status::INVALID_OPERAND),
        };
        let last = gpa.wrapping_add(u64::from(size)).wrapping_sub(1);
        let (is_private, gpa) = {
            let td = &self.vm.lock().td;
            (td.is_private(gpa) || td.is_private(last), td.strip(gpa))
        };
        if low(r13) > 1 || is_private {
            return self.answered(Status::INVALID_OPERAND);
        }
        let is_write = low(r13) == 1;
        // Bytes that are not written keep what the page held.
        let mut data = self.page.payload::<run::Mmio>().data;
        if is_write {
            data.iter_mut().zip(r15.to_le_bytes()).take(usize::from(size)).for_each(|(to, from)| *to = from);
        } else {
            self.completion = Some(Completion::Td(TdCompletion::MmioRead { size }));
        }
        Step::Exit(self.exit(&Exit::Mmio(Mmio { gpa, data, len: size, is_write })))
    }
}
