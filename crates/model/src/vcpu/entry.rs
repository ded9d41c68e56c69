//! `KVM_RUN` up to the run loop, and on the way out: the order of checks, and what the page says afterwards.

use crate::vcpu::registers::RFLAGS_IF;
use crate::vcpu::{MpState, Vcpu};
use exeunt_abi::kvm::regs::{SYNC_ALL, SYNC_EVENTS, SYNC_REGS, SYNC_SREGS};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Errno};
use exeunt_proto::exit::Entered;
use exeunt_proto::host::Events;

/// `KVM_RUN_X86_SMM`.
const RUN_SMM: u16 = 1 << 0;
/// `KVM_RUN_X86_GUEST_MODE`.
const RUN_GUEST_MODE: u16 = 1 << 2;

impl Vcpu {
    /// `KVM_RUN` of the process that made the VM, with 0 as its argument.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vcpu_ioctl`, and `arch/x86/kvm/x86.c`,
    /// `kvm_arch_vcpu_ioctl_run`.
    pub(crate) fn kvm_run(&mut self) -> Entered {
        if self.vm.is_dead() {
            return Err(Errno::EIO);
        }
        // The byte in the page is looked at once; a kick is a signal, too.
        let [_, immediate_exit, ..] = self.page.user;
        let wants_to_run = immediate_exit == 0 && !self.peer.immediate_exit();
        self.page.flags = 0;
        let entered = self.check_and_run(wants_to_run);
        let (made, _) = &mut self.completions;
        *made = made.saturating_add(u64::from(self.completion.is_some()));
        if self.kernel.arch == Arch::X86 {
            self.store_regs();
            self.post_kvm_run_save();
        }
        entered
    }

    fn check_and_run(&mut self, wants_to_run: bool) -> Entered {
        if self.peer.mp_state() == MpState::Uninitialized {
            return self.run_uninitialized(wants_to_run);
        }
        if self.kernel.arch == Arch::Riscv64 {
            self.take_sbi_return();
        }
        if self.kernel.arch == Arch::X86 {
            self.sync_regs()?;
            if !self.has_apic() {
                self.set_cr8(self.page.cr8)?;
            }
        }
        self.convert_stuffed_exception();
        if let Some(completion) = self.completion.take() {
            let (_, taken) = &mut self.completions;
            *taken = taken.saturating_add(1);
            // One shot: whatever the callback returns, it is not called again.
            if !self.complete(completion)? {
                return Ok(());
            }
        }
        if !wants_to_run {
            return Err(Errno::EINTR);
        }
        self.pre_run()?;
        if self.kernel.dialect.clears_exit_reason() {
            self.page.exit_reason = ExitReason::UNKNOWN.0;
        }
        self.slice = self.turn;
        self.has_run = true;
        self.run_loop()
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_x86_vcpu_pre_run`, and `svm/svm.c`, `svm_vcpu_pre_run`.
    fn pre_run(&mut self) -> Result<(), Errno> {
        if self.peer.mp_state() == MpState::InitReceived
            && self.events.blocks_init()
            && !self.kernel.dialect.refuses_blocked_sipi_at_set()
        {
            return Err(Errno::EINVAL);
        }
        if !self.launched {
            let state = self.vm.lock();
            if !state.initialised || state.sev.need_init || !self.td_can_run(state.launched) {
                return Err(Errno::EINVAL);
            }
            self.launched = state.launched && (!self.is_es || state.sev.is_protected(self.id()));
        }
        Ok(())
    }

    /// Loads the registers that userspace marked, and clears each mark whose registers were taken.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `sync_regs`.
    fn sync_regs(&mut self) -> Result<(), Errno> {
        let (valid, dirty) = (self.sync.kvm_valid_regs, self.sync.kvm_dirty_regs);
        if valid == 0 && dirty == 0 {
            return Ok(());
        }
        let supported = if self.vm_type.has_protected_state() { 0 } else { SYNC_ALL };
        if (valid | dirty) & !supported != 0 {
            return Err(Errno::EINVAL);
        }
        if dirty & SYNC_REGS != 0 {
            let regs = self.sync.regs;
            self.set_general_registers(&regs);
            self.sync.kvm_dirty_regs &= !SYNC_REGS;
        }
        if dirty & SYNC_SREGS != 0 {
            let sregs = self.sync.sregs;
            self.set_sregs(&sregs)?;
            self.sync.kvm_dirty_regs &= !SYNC_SREGS;
        }
        if dirty & SYNC_EVENTS != 0 {
            let events = self.sync.events;
            self.set_events(&events).map_err(|_| Errno::EINVAL)?;
            self.sync.kvm_dirty_regs &= !SYNC_EVENTS;
        }
        Ok(())
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `store_regs`.
    fn store_regs(&mut self) {
        let valid = self.sync.kvm_valid_regs;
        if valid == 0 || self.state_is_protected() {
            return;
        }
        if valid & SYNC_REGS != 0 {
            self.sync.regs = self.general_registers();
        }
        if valid & SYNC_SREGS != 0 {
            self.sync.sregs = self.sregs();
        }
        if valid & SYNC_EVENTS != 0 {
            if let Ok(events) = self.events() {
                self.sync.events = events;
            }
        }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `post_kvm_run_save`.
    fn post_kvm_run_save(&mut self) {
        // The flag of a protected guest is in the VMCB, where the programs of the model do not set it.
        let is_protected = self.vm_type.has_protected_state() && self.state_is_protected();
        let takes_interrupts = !is_protected && self.registers.regs.rflags & RFLAGS_IF != 0;
        self.page.if_flag = u8::from(takes_interrupts);
        self.page.cr8 = self.cr8();
        self.page.apic_base = self.apic.base;
        let events = &self.events;
        let reinjects = events.exception.injected || events.interrupt.injected || events.nmi.injected;
        let is_ready = self.board.pic_in_kernel || (takes_interrupts && events.shadow == 0 && !reinjects);
        self.page.ready_for_interrupt_injection = u8::from(is_ready);
        if self.events.smm.is_some_and(|smm| smm.active) {
            self.page.flags |= RUN_SMM;
        }
        if self.nested.is_guest_mode() && self.kernel.dialect.says_guest_mode() {
            self.page.flags |= RUN_GUEST_MODE;
        }
    }

    /// `guest_state_protected`: the registers are encrypted, and the host's copies are stale.
    pub(crate) fn state_is_protected(&mut self) -> bool {
        if !self.board.state_protected {
            // A TD's registers are the TDX module's from the start.
            self.board.state_protected =
                self.vm_type == VmType::Tdx || self.vm.lock().sev.is_protected(self.id());
        }
        self.board.state_protected
    }
}
