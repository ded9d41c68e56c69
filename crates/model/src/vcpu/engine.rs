//! The run loop: serves requests, enters the guest, and does what the hardware and KVM do for each act.

use crate::guest::mailbox::{Op, Outcome};
use crate::guest::{Access, GuestFault, Note};
use crate::memory::{PrivateAccess, copy_private, split_at_pages};
use crate::state::VmState;
use crate::vcpu::{OnEntry, Vcpu};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Gfn, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::PageState;
use exeunt_proto::exit::{Entered, Exit, FailEntry, MemoryFault, encode};

/// Bytes that one act may read. No instruction reads more, and the engine holds what it reads.
const MAX_READ_BYTES: usize = 1 << 20;

/// What became of an act.
pub(crate) enum Step {
    /// The guest goes on with this result.
    Guest(Outcome),
    /// The exit is handled in the kernel; the guest goes on with what [`OnEntry`] says.
    Resume,
    /// `KVM_RUN` returns.
    Exit(Entered),
}

impl Vcpu {
    /// `vcpu_run`: enters the guest until something needs userspace.
    pub(crate) fn run_loop(&mut self) -> Entered {
        loop {
            if let Some(entered) = self.before_entry() {
                return entered;
            }
            if !self.launched {
                // No valid VMSA: KVM refuses in software and reports it as the hardware would.
                return self.exit(&Exit::FailEntry(FailEntry { reason: u64::MAX, cpu: 0 }));
            }
            self.unmap_ghcb();
            let outcome = self.on_entry.take().map(|on_entry| match on_entry {
                OnEntry::Nothing => Outcome::Done,
                OnEntry::GhcbMsr => Outcome::Value(self.ghcb.msr),
                OnEntry::Rax => Outcome::Value(self.regs.rax),
                OnEntry::EdxEax => Outcome::Value(self.regs.rdx << 32 | self.regs.rax & 0xffff_ffff),
                OnEntry::SbiReturn => self.sbi_return(),
            });
            let outcome = self.take_raised().map(Outcome::Fault).or(outcome);
            let op = match self.retry.take() {
                Some(op) => op,
                None => self.guest.next_op(outcome),
            };
            if let Some(entered) = self.run_op(op) {
                return entered;
            }
        }
    }

    /// Does an act, and those that follow without a reason to leave the inner loop.
    fn run_op(&mut self, mut op: Op) -> Option<Entered> {
        loop {
            match self.do_op(op) {
                Step::Guest(outcome) => {
                    op = self.guest.next_op(Some(outcome));
                    if self.is_interrupted() || !self.peer.is_running() {
                        self.retry = Some(op);
                        return None;
                    }
                }
                Step::Resume => return None,
                Step::Exit(entered) => return Some(entered),
            }
        }
    }

    fn do_op(&mut self, op: Op) -> Step {
        match op {
            Op::Read { .. } | Op::Write { .. } | Op::Pvalidate { .. } => self.access_memory(op),
            Op::Vmgexit { ghcb_msr } => self.vmgexit(ghcb_msr),
            Op::Vmmcall { nr, args } => self.vmmcall(nr, args),
            Op::PortOut { port, size, value } => self.port_op(true, port, size, value),
            Op::PortIn { port, size } => self.port_op(false, port, size, 0),
            Op::PortString { is_out, port, size, at, elements } => {
                self.string_op(is_out, port, size, at, elements)
            }
            Op::Rdmsr { index } => self.rdmsr_op(index),
            Op::Wrmsr { index, value } => self.wrmsr_op(index, value),
            Op::Cpuid { function, index } => self.cpuid_op(function, index),
            Op::Hlt => {
                self.on_entry = Some(OnEntry::Nothing);
                Step::Exit(self.exit(&Exit::Hlt))
            }
            Op::TripleFault => {
                self.on_entry = Some(OnEntry::Nothing);
                self.did(|| "takes a triple fault".into());
                Step::Exit(self.exit(&Exit::Shutdown))
            }
            Op::HypervWrite { index, value } => self.hyperv_write(index, value),
            Op::Psci { function, args } => self.psci(function, args),
            Op::Sbi { extension, function, args } => self.sbi_call(extension, function, args),
        }
    }

    /// Writes an exit into the page, as this kernel writes it.
    pub(crate) fn exit(&mut self, exit: &Exit) -> Entered {
        encode(exit, self.kernel, &mut self.page)
    }

    /// Notes what the guest did, if anyone listens.
    pub(crate) fn did(&self, what: impl FnOnce() -> String) {
        self.guest.note(|| Note::Did(what()));
    }

    pub(crate) fn is_plain_x86(&self) -> bool {
        self.kernel.arch == Arch::X86 && !self.vm_type.has_protected_state()
    }

    /// The exception of an instruction that leaves the guest, in a guest that the host cannot look into, or of one
    /// that the processor does not have.
    pub(crate) fn not_emulated(&self) -> GuestFault {
        match self.kernel.arch {
            Arch::X86 if self.vm_type.has_protected_state() => GuestFault::VmmCommunication,
            Arch::X86 => GuestFault::GeneralProtection,
            _ => GuestFault::InvalidOpcode,
        }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `vcpu_enter_guest`, `KVM_REQ_HV_RESET`; the union is not cleared.
    /// An act on memory. One that faults is kept and tried again when the guest is entered the next time.
    fn access_memory(&mut self, op: Op) -> Step {
        if matches!(op, Op::Read { bytes, .. } if bytes > MAX_READ_BYTES) {
            return Step::Guest(Outcome::Fault(GuestFault::GeneralProtection));
        }
        let result = {
            let vm = self.vm.clone();
            let mut state = vm.lock();
            match &op {
                Op::Read { gpa, bytes, access } => read(&mut state, *gpa, *bytes, *access),
                Op::Write { gpa, bytes, access } => write(&mut state, *gpa, bytes, *access),
                Op::Pvalidate { gpa, validate } => pvalidate(&mut state, *gpa, *validate),
                _ => Ok(Outcome::Done),
            }
        };
        match result {
            Ok(outcome) => Step::Guest(outcome),
            Err(Miss::Guest(fault)) => Step::Guest(Outcome::Fault(fault)),
            Err(Miss::Host { gfn, private }) => {
                self.did(|| {
                    let kind = if private { "private" } else { "shared" };
                    format!("touches {kind} memory at {:#x}", gfn.gpa().0)
                });
                self.retry = Some(op);
                let fault = MemoryFault {
                    gpa: gfn.gpa(),
                    size: PAGE_SIZE,
                    private,
                    unknown_flags: 0,
                    poisoned: false,
                };
                Step::Exit(self.exit(&Exit::MemoryFault(fault)))
            }
        }
    }
}

/// Why an access did not happen.
enum Miss {
    /// The guest gets an exception.
    Guest(GuestFault),
    /// The host gets `KVM_EXIT_MEMORY_FAULT`.
    Host { gfn: Gfn, private: bool },
}

/// Checks one page of an access as the nested page fault does: attributes first, then the slot and its backing, then
/// the reverse map. Returns whether the private memory is meant.
///
/// Source: Linux v7.2 `arch/x86/kvm/mmu/mmu.c`, `kvm_mmu_faultin_pfn`.
fn check_page(state: &mut VmState, gfn: Gfn, access: Access) -> Result<bool, Miss> {
    let is_private = state.memory.attributes.get(gfn.0) == PageState::Private;
    let wants_private = match state.vm_type {
        VmType::Snp => access == Access::Private,
        // The attribute decides, there is no C-bit.
        VmType::SwProtected => is_private,
        _ => false,
    };
    if state.vm_type.has_private_memory() && wants_private != is_private {
        return Err(Miss::Host { gfn, private: wants_private });
    }
    if !wants_private {
        let gpa = gfn.gpa().0;
        return match state.memory.slot_of(gfn) {
            Some(_) => Ok(false),
            None => Err(Miss::Guest(GuestFault::NoMemory { gpa })),
        };
    }
    match state.memory.private_page(gfn) {
        Some(_) => Ok(true),
        None => Err(Miss::Host { gfn, private: true }),
    }
}

fn check_validated(state: &mut VmState, gfn: Gfn) -> Result<(), Miss> {
    let needs_validation = state.is_snp();
    match state.memory.private_page(gfn) {
        Some(page) if page.validated || !needs_validation => Ok(()),
        _ => Err(Miss::Guest(GuestFault::NotValidated { gpa: gfn.gpa().0 })),
    }
}

fn read(state: &mut VmState, gpa: Gpa, bytes: usize, access: Access) -> Result<Outcome, Miss> {
    let mut got = vec![0; bytes];
    for (chunk, gfn, offset) in split_at_pages(gpa, bytes) {
        let to = got.get_mut(chunk).unwrap_or_default();
        if check_page(state, gfn, access)? {
            check_validated(state, gfn)?;
            if let Some(page) = state.memory.private_page(gfn) {
                copy_private(page, offset, PrivateAccess::Read(to));
            }
        } else {
            let at = Gpa(gfn.gpa().0.saturating_add(offset as u64));
            let no_memory = Miss::Guest(GuestFault::NoMemory { gpa: at.0 });
            state.memory.read_shared(at, to).map_err(|_| no_memory)?;
        }
    }
    Ok(Outcome::Bytes(got))
}

fn write(state: &mut VmState, gpa: Gpa, bytes: &[u8], access: Access) -> Result<Outcome, Miss> {
    for (chunk, gfn, offset) in split_at_pages(gpa, bytes.len()) {
        let from = bytes.get(chunk).unwrap_or_default();
        if check_page(state, gfn, access)? {
            check_validated(state, gfn)?;
            if let Some(page) = state.memory.private_page(gfn) {
                copy_private(page, offset, PrivateAccess::Write(from));
            }
        } else {
            let at = Gpa(gfn.gpa().0.saturating_add(offset as u64));
            let no_memory = Miss::Guest(GuestFault::NoMemory { gpa: at.0 });
            state.memory.write_shared(at, from).map_err(|_| no_memory)?;
        }
    }
    Ok(Outcome::Done)
}

/// Source: AMD 24593 "APM volume 2", section 15.36.6 "Page Validation".
fn pvalidate(state: &mut VmState, gpa: Gpa, validate: bool) -> Result<Outcome, Miss> {
    if !state.is_snp() {
        return Err(Miss::Guest(GuestFault::InvalidOpcode));
    }
    let gfn = gpa.gfn();
    check_page(state, gfn, Access::Private)?;
    match state.memory.private_page(gfn) {
        Some(page) => {
            let unchanged = page.validated == validate;
            page.validated = validate;
            Ok(Outcome::Value(u64::from(unchanged)))
        }
        None => Err(Miss::Host { gfn, private: true }),
    }
}
