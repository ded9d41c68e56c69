//! What comes before each entry of the guest: requests, sleep and signals, in the order of each architecture.

use super::peer::{Reset, Waiting};
use super::{MpState, OnEntry, Step, Vcpu};
use crate::events::request;
use crate::vm::Vm;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::{Arch, Errno};
use exeunt_proto::exit::{Entered, EventType, Exit, SystemEvent, Words};
use std::sync::atomic::Ordering;

/// `SIGUSR1` in a mask of signals.
const KICK_SIGNAL: u64 = 1 << 9;

impl Vm {
    /// Whether a vCPU with nothing to do sleeps in `KVM_RUN` until another thread wakes or kicks it. Off at first:
    /// `KVM_RUN` then comes back as if a signal had come at once, which suits a simulation on one thread.
    pub fn set_blocking(&self, on: bool) {
        self.blocking.store(on, Ordering::Relaxed);
    }
}

impl Vcpu {
    /// `KVM_GET_MP_STATE`.
    #[must_use]
    pub fn mp_state(&mut self) -> MpState {
        self.take_inbox();
        self.accept_apic_events();
        match self.peer.mp_state() {
            MpState::Halted | MpState::ApResetHold if self.apic.is_unhalted() => MpState::Runnable,
            state => state,
        }
    }

    /// `KVM_SET_MP_STATE`.
    ///
    /// Source: Linux v7.2 `kvm_arch_vcpu_ioctl_set_mpstate` of `arch/x86/kvm/x86.c`, `arch/arm64/kvm/arm.c` and
    /// `arch/riscv/kvm/vcpu.c`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a state that the architecture or this kernel does not have; on x86 for one that needs a local APIC
    /// in the kernel, and up to Linux 6.17 for one that waits for a startup interrupt which cannot come.
    pub fn set_mp_state(&mut self, number: u32) -> Result<(), Errno> {
        let state = MpState::from_number(number).ok_or(Errno::EINVAL)?;
        let allowed = match (self.kernel.arch, state) {
            (_, MpState::Runnable) => true,
            (Arch::X86, MpState::Stopped | MpState::Suspended) => false,
            (Arch::X86, MpState::ApResetHold) => {
                self.kernel.dialect.has_ap_reset_hold() && self.events.apic.in_kernel
            }
            (Arch::X86, _) => self.events.apic.in_kernel,
            (_, MpState::Stopped) => true,
            (Arch::Arm64, MpState::Suspended) => self.kernel.dialect.has_arm_system_suspend(),
            _ => false,
        };
        if !allowed {
            return Err(Errno::EINVAL);
        }
        let waits_for_sipi = matches!(state, MpState::InitReceived | MpState::SipiReceived);
        let cannot_come = self.events.blocks_init() || self.events.has_smi();
        if waits_for_sipi && cannot_come && self.kernel.dialect.refuses_blocked_sipi_at_set() {
            return Err(Errno::EINVAL);
        }
        if state == MpState::SipiReceived {
            // KVM remembers the startup interrupt apart from the state.
            self.events.apic.pending_sipi = true;
            self.peer.set_mp_state(MpState::InitReceived);
        } else {
            self.peer.set_mp_state(state);
        }
        self.events.request(request::EVENT);
        Ok(())
    }

    /// The next `KVM_RUN` would sleep: the vCPU waits for something that has not come.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        match self.kernel.arch {
            Arch::X86 => {
                let is_woken = self.has_events() || self.peer.look(|waiting| waiting.inbox.wakes());
                !self.peer.is_running() && !is_woken
            }
            _ => self.peer.look(|waiting| match waiting.mp_state {
                MpState::Stopped => true,
                MpState::Suspended => !waiting.interrupt,
                // A program that ended does nothing but wait.
                _ => self.guest.is_over() && !waiting.interrupt,
            }),
        }
    }

    /// An interrupt line of the vCPU's interrupt controller goes up or down: `KVM_IRQ_LINE`, as far as it wakes an
    /// arm64 vCPU up. The guests of the model do not take the interrupt.
    pub fn set_interrupt_line(&self, up: bool) {
        self.peer.change(|waiting| waiting.interrupt = up);
    }

    /// Sleeps until `ready`, if the VM blocks. Returns whether the vCPU is ready; otherwise a signal came.
    pub(crate) fn block(&self, ready: impl Fn(&Waiting) -> bool) -> bool {
        if self.vm.blocking.load(Ordering::Relaxed) {
            self.peer.sleep_until(self.takes_kicks(), ready)
        } else {
            self.peer.look(ready)
        }
    }

    /// `KVM_SET_SIGNAL_MASK`: the signals that are blocked during `KVM_RUN`, bit n - 1 for signal n, or `None` to block
    /// those of the thread. A [`crate::Kick`] stands for signal 10, `SIGUSR1`: while that is blocked it does not end a
    /// `KVM_RUN` under way, and only `immediate_exit`, which is read when `KVM_RUN` begins, keeps the guest out.
    pub const fn set_signal_mask(&mut self, blocked: Option<u64>) {
        self.signal_mask = blocked;
    }

    /// The signal of a kick is not blocked.
    pub(crate) fn takes_kicks(&self) -> bool {
        self.signal_mask.is_none_or(|blocked| blocked & KICK_SIGNAL == 0)
    }

    /// `WFI` of arm64 and riscv64, which no exit tells userspace of. A signal ends the wait, too: the guest goes on at the
    /// next `KVM_RUN`.
    ///
    /// Source: Linux v7.2 `arch/arm64/kvm/arm.c`, `kvm_vcpu_wfi`, and `arch/riscv/kvm/vcpu_insn.c`,
    /// `kvm_riscv_vcpu_wfi`.
    pub(crate) fn wait_for_interrupt(&mut self) -> Step {
        let is_woken = self.block(|waiting| waiting.interrupt);
        self.on_entry = Some(OnEntry::Nothing);
        if is_woken { Step::Resume } else { Step::Exit(self.interrupted()) }
    }

    /// `KVM_RUN` ends by a signal.
    pub(crate) fn interrupted(&mut self) -> Entered {
        self.page.exit_reason = ExitReason::INTR.0;
        Err(Errno::EINTR)
    }

    /// Everything that comes before an entry. `Some` ends `KVM_RUN`.
    pub(crate) fn before_entry(&mut self) -> Option<Entered> {
        if self.kernel.arch == Arch::X86 { self.before_entry_x86() } else { self.before_entry_by_request() }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `vcpu_run`, `vcpu_block` and `vcpu_enter_guest`: the requests are
    /// served before a signal is looked at.
    fn before_entry_x86(&mut self) -> Option<Entered> {
        loop {
            self.take_inbox();
            if !self.peer.is_running() && !self.block_x86() {
                return Some(self.interrupted());
            }
            if self.peer.is_running() {
                if self.events.is_requested(request::TRIPLE_FAULT) {
                    self.nested_triple_fault();
                    if self.events.take_request(request::TRIPLE_FAULT) {
                        return Some(self.exit(&Exit::Shutdown));
                    }
                }
                self.events.serve_requests();
                if std::mem::take(&mut self.ap.update) {
                    self.reset_by_init();
                }
                self.reload_vmsa();
                self.accept_apic_events();
                self.check_nested_events();
                self.events.inject_exception();
                self.inject_smi();
                self.events.inject_nmi();
                if self.vm.is_dead() {
                    return Some(Err(Errno::EIO));
                }
                if self.events.is_requested(request::TRIPLE_FAULT) {
                    // An exit of L2 failed.
                    continue;
                }
            }
            if self.is_interrupted() {
                return Some(self.interrupted());
            }
            if self.peer.is_running() {
                return None;
            }
        }
    }

    /// Sleeps until something wakes the vCPU up. `false` if it was a signal.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `vcpu_block`.
    fn block_x86(&mut self) -> bool {
        if !self.wait_for_events(|waiting| waiting.mp_state == MpState::Runnable) {
            return false;
        }
        match self.peer.mp_state() {
            MpState::Halted | MpState::ApResetHold => {
                self.apic.halt_is_over();
                self.peer.set_mp_state(MpState::Runnable);
            }
            _ => {}
        }
        true
    }

    /// Sleeps until something has come, or this is so, and acts on INIT and startup interrupts.
    fn wait_for_events(&mut self, or: impl Fn(&Waiting) -> bool) -> bool {
        let has_events = self.has_events();
        let is_awake =
            self.block(|waiting| has_events || waiting.interrupt || waiting.inbox.wakes() || or(waiting));
        self.take_inbox();
        self.accept_apic_events();
        is_awake
    }

    /// `KVM_RUN` of an application processor that had no INIT: it never enters the guest. It sleeps until an INIT or
    /// a signal comes and is to be called again.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_arch_vcpu_ioctl_run`.
    pub(crate) fn run_uninitialized(&mut self, wants_to_run: bool) -> Entered {
        if !wants_to_run {
            return Err(Errno::EINTR);
        }
        if self.wait_for_events(|waiting| waiting.mp_state != MpState::Uninitialized) {
            Err(Errno::EAGAIN)
        } else {
            self.interrupted()
        }
    }

    /// Source: Linux v7.2 `arch/arm64/kvm/arm.c`, `kvm_arch_vcpu_ioctl_run` and `check_vcpu_requests`, and
    /// `arch/riscv/kvm/vcpu.c`: signals are looked at before the requests.
    fn before_entry_by_request(&mut self) -> Option<Entered> {
        if self.is_interrupted() {
            return Some(self.interrupted());
        }
        if !self.peer.is_running() {
            if !self.block(|waiting| waiting.mp_state != MpState::Stopped) {
                return Some(self.interrupted());
            }
            if self.peer.mp_state() == MpState::Suspended {
                return Some(self.suspended());
            }
        }
        if let Some(reset) = self.peer.change(|waiting| waiting.reset.take()) {
            self.reset_to(reset);
        }
        None
    }

    /// Source: Linux v7.2 `arch/arm64/kvm/arm.c`, `kvm_vcpu_suspend`. The state stays until the VMM changes it.
    fn suspended(&mut self) -> Entered {
        if self.block(|waiting| waiting.interrupt) {
            let event = SystemEvent { event: EventType::Wakeup, data: Words::NONE };
            self.exit(&Exit::SystemEvent(event))
        } else {
            self.interrupted()
        }
    }

    /// `KVM_REQ_VCPU_RESET`. What the program does next is what it has at the entry; an act that it waits for ends
    /// with the first argument register.
    fn reset_to(&mut self, reset: Reset) {
        let [first, second] = reset.arguments;
        self.regs = super::Regs { rax: first, rbx: second, rip: reset.entry, ..super::Regs::default() };
        if self.retry.take().is_some() {
            self.on_entry = Some(OnEntry::Rax);
        }
    }
}
