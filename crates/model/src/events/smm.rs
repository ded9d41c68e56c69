//! System management interrupts. Programs have no handler for them, so one ends as soon as it begins.

use super::request;
use crate::vcpu::Vcpu;
use exeunt_abi::{Errno, Gpa};

/// `SMBASE` as it is after a reset, and where the state goes from there.
const SMBASE: u64 = 0x3_0000;
const SAVE_AREA: u64 = 0xfe00;
const SAVE_AREA_BYTES: usize = 512;
/// Offsets in the save area of 64-bit processors, and what its revision says.
///
/// Source: Linux v7.2 `arch/x86/kvm/smm.h`, `struct kvm_smram_state_64`; AMD 24593 "APM volume 2", section 10.2.3.
const REVISION: (usize, u64) = (0xfc, 0x2_0064);
const RIP: usize = 0x178;
const RSI: usize = 0x1c8;
const RBX: usize = 0x1e0;
const RDX: usize = 0x1e8;
const RCX: usize = 0x1f0;
const RAX: usize = 0x1f8;

impl Vcpu {
    /// `KVM_SMI`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/smm.h`, `kvm_inject_smi`.
    ///
    /// # Errors
    ///
    /// `ENOTTY` in a kernel without system management mode, `EINVAL` outside of ordinary x86 guests.
    pub fn smi(&mut self) -> Result<(), Errno> {
        if !self.is_plain_x86() {
            return Err(Errno::EINVAL);
        }
        if self.events.smm.is_none() {
            return Err(Errno::ENOTTY);
        }
        self.events.request(request::SMI);
        Ok(())
    }

    /// Takes the SMI that waits, if nothing is being delivered. Where the state cannot be saved, the vCPU is in system
    /// management mode without a way back: a triple fault, and before Linux 7.0 the end of the VM.
    ///
    /// Source: Linux v7.2 and v6.12 `arch/x86/kvm/smm.c`, `enter_smm`.
    pub(crate) fn inject_smi(&mut self) {
        let is_due = self.events.smm.is_some_and(|smm| smm.smi_pending && !smm.active);
        if !is_due || !self.is_plain_x86() || self.events.is_delivering() {
            return;
        }
        self.did(|| "takes an SMI".into());
        let mut state = [0; SAVE_AREA_BYTES];
        let registers = [
            REVISION,
            (RIP, self.regs.rip),
            (RSI, self.regs.rsi),
            (RBX, self.regs.rbx),
            (RDX, self.regs.rdx),
            (RCX, self.regs.rcx),
            (RAX, self.regs.rax),
        ];
        for (at, value) in registers {
            state.iter_mut().skip(at).zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
        let saved = self.vm.lock().memory.write_shared(Gpa(SMBASE.saturating_add(SAVE_AREA)), &state);
        if let Some(smm) = &mut self.events.smm {
            smm.smi_pending = false;
            smm.active = saved.is_err();
        }
        if saved.is_err() && self.kernel.dialect.leaves_l2_without_its_vmcb() {
            self.events.request(request::TRIPLE_FAULT);
        } else if saved.is_err() {
            self.vm.kill();
        }
    }
}
