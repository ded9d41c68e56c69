//! `TDCALL`: what the TDX module does for a TD.

use super::Td;
use super::measurement::extend_rtmr;
use crate::guest::mailbox::{Op, Outcome};
use crate::guest::tdx::TdRegs;
use crate::guest::{Access, GuestFault};
use crate::memory::Miss;
use crate::state::VmState;
use crate::vcpu::{Step, Vcpu};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::tdx::report::DIGEST_BYTES;
use exeunt_abi::tdx::{CompletionStatus, leaf, operand};
use exeunt_abi::{Gpa, PAGE_SIZE, PAGES_PER_2M};
use zerocopy::IntoBytes;

impl Vcpu {
    /// `TDCALL` with these registers.
    ///
    /// Source: Intel 348551 version 1.5, chapter 5 "ABI Reference: Guest-Side (`TDCALL`) Interface Functions".
    pub(crate) fn tdcall(&mut self, regs: &TdRegs) -> Step {
        if self.vm_type != VmType::Tdx {
            return Step::Guest(Outcome::Fault(GuestFault::InvalidOpcode));
        }
        match regs.rax {
            leaf::VP_VMCALL => self.vp_vmcall(*regs),
            leaf::VP_INFO => {
                let vm = self.vm.clone();
                done(vp_info(&vm.lock().td, self.td.index, *regs))
            }
            leaf::MR_RTMR_EXTEND | leaf::MR_REPORT | leaf::MEM_PAGE_ACCEPT => self.memory_call(regs),
            _ => done(with_status(*regs, invalid(operand::RAX))),
        }
    }

    /// A call that touches memory. One that faults is made again when the guest is entered the next time.
    fn memory_call(&mut self, regs: &TdRegs) -> Step {
        let vm = self.vm.clone();
        let result = {
            let mut state = vm.lock();
            match regs.rax {
                leaf::MR_RTMR_EXTEND => rtmr_extend(&mut state, regs.rcx, regs.rdx),
                leaf::MR_REPORT => mr_report(&mut state, regs.rcx, regs.rdx, regs.r8),
                _ => page_accept(&mut state, regs.rcx),
            }
        };
        match result {
            Ok(status) => done(with_status(*regs, status)),
            Err(miss) => self.miss(Op::Tdcall(Box::new(*regs)), miss),
        }
    }
}

/// `TDG.MR.RTMR.EXTEND`: RCX is the private address of 48 bytes, RDX the register.
fn rtmr_extend(state: &mut VmState, rcx: u64, rdx: u64) -> Result<CompletionStatus, Miss> {
    if rcx & 63 != 0 || !state.td.is_legal(rcx) || !state.td.is_private(rcx) {
        return Ok(invalid(operand::RCX));
    }
    let digest = read_bytes::<DIGEST_BYTES>(state, rcx)?;
    let register = usize::try_from(rdx).ok().and_then(|index| state.td.rtmr.get_mut(index));
    let Some(register) = register else { return Ok(invalid(operand::RDX)) };
    extend_rtmr(register, &digest);
    Ok(CompletionStatus::SUCCESS)
}

/// `TDG.MR.REPORT`: RCX is where the report goes, RDX where the 64 bytes of the TD are, R8 the subtype.
fn mr_report(state: &mut VmState, rcx: u64, rdx: u64, r8: u64) -> Result<CompletionStatus, Miss> {
    if rcx & 1023 != 0 || !state.td.is_legal(rcx) {
        return Ok(invalid(operand::RCX));
    }
    if rdx & 63 != 0 || !state.td.is_legal(rdx) {
        return Ok(invalid(operand::RDX));
    }
    let data = read_bytes::<64>(state, rdx)?;
    if r8 != 0 {
        return Ok(invalid(operand::R8));
    }
    let report = state.td.platform.report(&state.td, data);
    state.memory.guest_write(Gpa(rcx), report.as_bytes(), Access::Private, 0)?;
    Ok(CompletionStatus::SUCCESS)
}

/// `TDG.MEM.PAGE.ACCEPT`: RCX is a private address with the level in bits 2:0. KVM maps 4 KiB pages only, so a page of 2 MiB
/// always turns out to be mapped in smaller ones.
fn page_accept(state: &mut VmState, rcx: u64) -> Result<CompletionStatus, Miss> {
    let (level, gpa) = (rcx & 7, rcx & !7);
    let page = match level {
        0 => PAGE_SIZE,
        1 => PAGE_SIZE.saturating_mul(PAGES_PER_2M),
        _ => return Ok(invalid(operand::RCX)),
    };
    if gpa & page.saturating_sub(1) != 0 || !state.td.is_legal(gpa) || !state.td.is_private(gpa) {
        return Ok(invalid(operand::RCX));
    }
    let gfn = Gpa(gpa).gfn();
    if level == 1 {
        state.memory.sept_accept_2m(gfn)?;
        return Ok(CompletionStatus::PAGE_SIZE_MISMATCH.with(1));
    }
    Ok(if state.memory.sept_accept(gfn)? {
        CompletionStatus::SUCCESS
    } else {
        CompletionStatus::PAGE_ALREADY_ACCEPTED
    })
}

fn read_bytes<const N: usize>(state: &mut VmState, gpa: u64) -> Result<[u8; N], Miss> {
    match state.memory.guest_read(Gpa(gpa), N, Access::Private, 0)? {
        Outcome::Bytes(bytes) => Ok(bytes.first_chunk().copied().unwrap_or([0; N])),
        _ => Ok([0; N]),
    }
}

fn invalid(operand: u32) -> CompletionStatus {
    CompletionStatus::OPERAND_INVALID.with(operand)
}

/// `TDG.VP.INFO`.
fn vp_info(td: &Td, index: u32, regs: TdRegs) -> TdRegs {
    TdRegs {
        rax: CompletionStatus::SUCCESS.0,
        rcx: u64::from(td.gpa_width()),
        rdx: td.attributes,
        r8: u64::from(td.vcpus) | u64::from(td.max_vcpus) << 32,
        r9: u64::from(index),
        // `TDG.SYS.RD` is there, as on every module of version 1.5.
        r10: 1,
        r11: 0,
        ..regs
    }
}

fn with_status(regs: TdRegs, status: CompletionStatus) -> TdRegs {
    TdRegs { rax: status.0, ..regs }
}

fn done(regs: TdRegs) -> Step {
    Step::Guest(Outcome::Tdcall(Box::new(regs)))
}
