//! A guest that runs a guest: L1 enters L2, and KVM decides which of what happens in L2 is for L1.
//!
//! One program is both. After [`crate::guest::Cpu::enter_l2`] its acts are those of L2, until one of them ends with
//! [`GuestFault::NestedExit`] or it leaves by [`crate::guest::Cpu::exit_l2`]. What L1 wants to see of its guest is in
//! [`Intercepts`]; every other act of L2 goes to KVM, as if L1 let it through.

mod state;

pub use state::NestedStateRead;

use crate::events::{Exception, Vector, request};
use crate::guest::GuestFault;
use crate::guest::mailbox::Outcome;
use crate::host::Vendor;
use crate::vcpu::{MpState, OnEntry, Step, Vcpu};
use exeunt_abi::{Gpa, PAGE_SIZE};
use std::fmt;

/// What L1 wants to see of L2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Intercepts {
    /// Bit n: exception n. For page faults on VMX, see the two fields below.
    pub exceptions: u32,
    /// SVM: a shutdown. VMX has no choice: it always sees one.
    pub shutdown: bool,
    /// VMX: the bits of a page fault's error code that are compared.
    pub page_fault_mask: u32,
    /// VMX: what they are compared with. Bit 14 of `exceptions` counts where they are equal, its opposite elsewhere.
    pub page_fault_match: u32,
    /// L1's own state cannot be loaded when L2 exits: on SVM for its CR3, on VMX for an entry of the area of MSRs.
    pub host_state_fails: bool,
}

/// How L2 came back to L1, as the control block says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NestedExit {
    /// The exit code of SVM, or the basic exit reason of VMX; all ones if KVM took L1 back without an exit.
    pub reason: u64,
    /// `EXITINFO1`, or the interruption information.
    pub info_1: u64,
    /// `EXITINFO2`, or the exit qualification.
    pub info_2: u64,
    /// `EXITINTINFO`, or the vectoring information: what was being delivered to L2.
    pub vectoring: u64,
}

impl fmt::Display for NestedExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, info_1, info_2, .. } = self;
        write!(f, "exit of L2: {reason:#x}, {info_1:#x}, {info_2:#x}")
    }
}

/// Exit codes and reasons.
mod code {
    /// `SVM_EXIT_EXCP_BASE`.
    pub(super) const SVM_EXCEPTION: u64 = 0x40;
    /// `SVM_EXIT_SHUTDOWN`.
    pub(super) const SVM_SHUTDOWN: u64 = 0x7f;
    /// `SVM_EXIT_VMMCALL`.
    pub(super) const SVM_VMMCALL: u64 = 0x81;
    /// `EXIT_REASON_EXCEPTION_NMI`.
    pub(super) const VMX_EXCEPTION: u64 = 0;
    /// `EXIT_REASON_TRIPLE_FAULT`.
    pub(super) const VMX_TRIPLE_FAULT: u64 = 2;
    /// `EXIT_REASON_VMCALL`.
    pub(super) const VMX_VMCALL: u64 = 18;
}

/// `INTR_INFO_*` of VMX; `EXITINTINFO` of SVM has the same bits.
mod info {
    pub(super) const VALID: u64 = 1 << 31;
    pub(super) const ERROR_CODE: u64 = 1 << 11;
    /// VMX only.
    pub(super) const UNBLOCK_NMI: u64 = 1 << 12;
    pub(super) const TYPE_NMI: u64 = 2 << 8;
    pub(super) const TYPE_EXCEPTION: u64 = 3 << 8;
    pub(super) const TYPE_SOFT_INTERRUPT: u64 = 4 << 8;
    pub(super) const TYPE_SOFT_EXCEPTION: u64 = 6 << 8;
}

/// `DR6_BT`, which a qualification does not have.
const DR6_BT: u64 = 1 << 15;
/// `EFER.SVME`, and where it is.
const EFER_SVME: u64 = 1 << 12;
const EFER: u32 = 0xc000_0080;

/// What is to be known of L2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nested {
    /// L2 runs.
    pub(crate) active: Option<Active>,
    /// How L2 exited last, until L1 is entered.
    pub(crate) exit: Option<NestedExit>,
    /// VMX: the region of `VMXON`, once L1 executed it.
    pub(crate) vmxon: Option<Gpa>,
    /// VMX: the current VMCS.
    pub(crate) current: Option<Gpa>,
    pub(crate) intercepts: Intercepts,
}

/// L2 while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Active {
    /// The control block in L1's memory.
    pub(crate) control: Gpa,
    /// L1 executed its instruction, and L2 was not entered yet.
    pub(crate) run_pending: bool,
}

impl Nested {
    /// `is_guest_mode`.
    pub(crate) const fn is_guest_mode(&self) -> bool {
        self.active.is_some()
    }

    /// `is_exception_vmexit` of the vendor.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/nested.c`, `nested_svm_is_exception_vmexit`, and `vmx/nested.c`,
    /// `nested_vmx_is_exception_vmexit`.
    fn wants(&self, vendor: Vendor, nr: u8, error_code: u32) -> bool {
        let Intercepts { exceptions, page_fault_mask, page_fault_match, .. } = self.intercepts;
        let bit = exceptions.checked_shr(u32::from(nr)).unwrap_or(0) & 1 != 0;
        if vendor == Vendor::Intel && nr == Vector::PF {
            // The processor's error codes have 16 bits.
            let equal = error_code & 0xffff & page_fault_mask == page_fault_match;
            return bit == equal;
        }
        bit
    }
}

impl Vcpu {
    /// `VMRUN`, or `VMLAUNCH` of a VMCS that L1 made current.
    pub(crate) fn enter_l2(&mut self, control: Gpa, intercepts: Intercepts) -> Step {
        if !self.is_plain_x86() || self.nested.is_guest_mode() {
            return Step::Guest(Outcome::Fault(GuestFault::InvalidOpcode));
        }
        if !control.is_page_aligned() || !self.has_memory(control) {
            return Step::Guest(Outcome::Fault(GuestFault::GeneralProtection));
        }
        self.did(|| format!("enters L2 with the control block at {:#x}", control.0));
        self.nested.intercepts = intercepts;
        self.nested.active = Some(Active { control, run_pending: true });
        if self.is_intel() {
            // The region of VMXON is the page beside it.
            self.nested.vmxon = self.nested.vmxon.or(Some(Gpa(control.0 ^ PAGE_SIZE)));
            self.nested.current = Some(control);
        }
        self.on_entry = Some(OnEntry::Nothing);
        Step::Resume
    }

    /// L2 executes an instruction that L1 always sees: `VMMCALL` or `VMCALL`.
    pub(crate) fn exit_l2(&mut self) -> Step {
        if !self.nested.is_guest_mode() {
            return Step::Guest(Outcome::Fault(GuestFault::InvalidOpcode));
        }
        let reason = if self.is_intel() { code::VMX_VMCALL } else { code::SVM_VMMCALL };
        self.nested_vmexit(NestedExit { reason, ..NestedExit::default() });
        Step::Resume
    }

    /// Userspace made an exception pending while L2 is active, and L1 wants to see it: it leaves L2.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_arch_vcpu_ioctl_run`.
    pub(crate) fn convert_stuffed_exception(&mut self) {
        let exception = self.events.exception;
        if std::mem::take(&mut self.events.from_userspace)
            && self.nested.is_guest_mode()
            && self.nested.wants(self.events.host.vendor, exception.nr, exception.error_code)
        {
            self.events.queue_exiting(exception);
            self.events.exception.injected = false;
            self.events.exception.pending = false;
        }
    }

    /// `kvm_queue_exception`: for L1, if L2 is active and L1 wants to see it.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_multiple_exception`.
    pub(crate) fn queue_exception(&mut self, exception: Exception) {
        let Exception { nr, error_code, .. } = exception;
        if self.nested.is_guest_mode() && self.nested.wants(self.events.host.vendor, nr, error_code) {
            self.events.queue_exiting(exception);
            return;
        }
        if let Some(double_fault) = self.events.queue_exception(exception) {
            // The double fault is judged like any other exception.
            self.queue_exception(double_fault);
        }
    }

    /// A triple fault was requested while L2 is active.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/nested.c`, `nested_vmx_triple_fault`, and `svm/nested.c`,
    /// `nested_svm_triple_fault`: where L1 does not want it, the request stays and is the whole vCPU's.
    pub(crate) fn nested_triple_fault(&mut self) {
        if let Some(reason) = self.l1_wants_shutdown() {
            self.events.clear_request(request::TRIPLE_FAULT);
            self.nested_vmexit(NestedExit { reason, ..NestedExit::default() });
        }
    }

    /// How L1 learns of a shutdown of L2, if it does.
    pub(crate) fn l1_wants_shutdown(&self) -> Option<u64> {
        match (self.nested.active?, self.is_intel()) {
            (_, true) => Some(code::VMX_TRIPLE_FAULT),
            (_, false) => self.nested.intercepts.shutdown.then_some(code::SVM_SHUTDOWN),
        }
    }

    /// Exceptions that leave L2. One does not leave a guest that was not entered yet: KVM enters it for a moment.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/nested.c`, `vmx_check_nested_events`, and `svm/nested.c`,
    /// `svm_check_nested_events`.
    pub(crate) fn check_nested_events(&mut self) {
        if !self.nested.is_guest_mode() || !self.events.exiting.pending {
            return;
        }
        let exception = self.events.exiting;
        let exit =
            if self.is_intel() { self.vmx_exception(exception) } else { self.svm_exception(exception) };
        self.nested_vmexit(exit);
    }

    /// Source: Linux v7.2 `arch/x86/kvm/svm/nested.c`, `nested_svm_inject_exception_vmexit`.
    fn svm_exception(&mut self, exception: Exception) -> NestedExit {
        let Exception { nr, has_error_code, error_code, has_payload, payload, .. } = exception;
        let info_2 = match nr {
            Vector::PF if has_payload => payload,
            Vector::PF => self.events.cr2,
            _ => 0,
        };
        if nr == Vector::DB {
            self.events.deliver_payload(exception);
        }
        NestedExit {
            reason: code::SVM_EXCEPTION.saturating_add(u64::from(nr)),
            info_1: if has_error_code { u64::from(error_code) } else { 0 },
            info_2,
            vectoring: 0,
        }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/vmx/nested.c`, `nested_vmx_inject_exception_vmexit`.
    fn vmx_exception(&self, exception: Exception) -> NestedExit {
        let Exception { nr, has_error_code, has_payload, payload, .. } = exception;
        let info_2 = match nr {
            _ if has_payload => payload,
            Vector::PF => self.events.cr2,
            Vector::DB => self.events.dr6 & !DR6_BT ^ crate::events::DR6_ACTIVE_LOW,
            _ => 0,
        };
        let kind = match nr {
            Vector::BP | Vector::OF => info::TYPE_SOFT_EXCEPTION,
            _ => info::TYPE_EXCEPTION,
        };
        let error_code = if has_error_code { info::ERROR_CODE } else { 0 };
        let unblock = if self.events.nmi.masked { info::UNBLOCK_NMI } else { 0 };
        let info_1 = u64::from(nr) | kind | error_code | unblock | info::VALID;
        NestedExit { reason: code::VMX_EXCEPTION, info_1, info_2, vectoring: 0 }
    }

    /// L1 gets L2 back: what was being delivered to L2 is written down and dropped.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/nested.c`, `nested_svm_vmexit`, and `vmx/nested.c`, `nested_vmx_vmexit`.
    pub(crate) fn nested_vmexit(&mut self, exit: NestedExit) {
        let Some(Active { control, .. }) = self.nested.active else { return };
        // SVM writes the exit to L1's memory at once; VMX keeps the VMCS to itself.
        let is_writable = self.is_intel() || self.has_memory(control);
        if !is_writable && !self.kernel.dialect.leaves_l2_without_its_vmcb() {
            self.raise(GuestFault::GeneralProtection);
            self.events.exiting.pending = false;
            return;
        }
        let exit = NestedExit { vectoring: self.events.vectoring(), ..exit };
        self.leave_l2();
        self.peer.set_mp_state(MpState::Runnable);
        if !is_writable || self.nested.intercepts.host_state_fails {
            self.events.request(request::TRIPLE_FAULT);
        }
        if is_writable && !self.is_intel() {
            self.write_exit(control, exit);
        }
        self.nested.exit = Some(exit);
    }

    /// `EXITCODE` to `EXITINTINFO` of the VMCB.
    fn write_exit(&self, control: Gpa, exit: NestedExit) {
        let words = [exit.reason, exit.info_1, exit.info_2, exit.vectoring];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let at = Gpa(control.0.saturating_add(0x70));
        // The slot was looked at; a process that maps nothing there is not told.
        let _ = self.vm.lock().memory.write_shared(at, &bytes);
    }

    /// `kvm_leave_nested`: L1 is back without an exit of L2. VMX drops L2's events, SVM leaves them to L1.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/nested.c`, `svm_leave_nested`, and `vmx/nested.c`, `vmx_leave_nested`.
    pub(crate) fn leave_nested(&mut self) {
        if self.nested.is_guest_mode() {
            if self.is_intel() {
                self.leave_l2();
            }
            self.nested.active = None;
            self.nested.exit = Some(NestedExit { reason: u64::MAX, ..NestedExit::default() });
        }
    }

    /// `leave_guest_mode`, with the events that were L2's.
    fn leave_l2(&mut self) {
        self.nested.active = None;
        self.raised = None;
        self.events.exiting.pending = false;
        self.events.exception.pending = false;
        self.events.exception.injected = false;
        self.events.interrupt.injected = false;
        self.events.nmi.injected = false;
    }

    /// L2 clears `EFER.SVME`, which it has only because L1 does not look.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/svm.c`, `svm_set_efer`; v6.12 takes L1 back instead.
    pub(crate) fn nested_efer(&mut self, index: u32, value: u64) {
        if index != EFER || value & EFER_SVME != 0 || self.is_intel() || !self.nested.is_guest_mode() {
            return;
        }
        if self.kernel.dialect.leaves_l2_without_its_vmcb() {
            self.events.request(request::TRIPLE_FAULT);
        } else {
            self.leave_nested();
        }
    }

    /// What L1 or L2 finds when it is entered, in place of the outcome of its act.
    pub(crate) fn entering(&mut self, outcome: Option<Outcome>) -> Option<Outcome> {
        if let Some(active) = &mut self.nested.active {
            active.run_pending = false;
        }
        let raised = self.deliver_events().map(Outcome::Fault);
        match self.nested.exit.take() {
            Some(exit) => {
                self.retry = None;
                Some(Outcome::Fault(GuestFault::NestedExit(exit)))
            }
            None => raised.or(outcome),
        }
    }

    pub(crate) fn is_intel(&self) -> bool {
        self.events.host.is_intel()
    }

    fn has_memory(&self, gpa: Gpa) -> bool {
        self.vm.lock().memory.slot_of(gpa.gfn()).is_some()
    }
}

/// What is being delivered to a guest, as both vendors' control blocks write it.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/nested.c`, `nested_save_pending_event_to_vmcb12`, and `vmx/nested.c`,
/// `vmcs12_save_pending_event`.
impl crate::events::EventState {
    fn vectoring(&self) -> u64 {
        let exception = self.exception;
        if exception.injected {
            let kind = match exception.nr {
                Vector::BP | Vector::OF => info::TYPE_SOFT_EXCEPTION,
                _ => info::TYPE_EXCEPTION,
            };
            let kind = if self.host.is_intel() { kind } else { info::TYPE_EXCEPTION };
            let error = match (exception.has_error_code, self.host.is_intel()) {
                (false, _) => 0,
                (true, true) => info::ERROR_CODE,
                // SVM has the code in the same word.
                (true, false) => info::ERROR_CODE | u64::from(exception.error_code) << 32,
            };
            u64::from(exception.nr) | kind | error | info::VALID
        } else if self.nmi.injected {
            u64::from(Vector::NMI) | info::TYPE_NMI | info::VALID
        } else if self.interrupt.injected {
            let kind = if self.interrupt.soft { info::TYPE_SOFT_INTERRUPT } else { 0 };
            u64::from(self.interrupt.nr) | kind | info::VALID
        } else {
            0
        }
    }
}
