//! The guest's accesses to memory, and its instructions on the reverse map.

use crate::guest::mailbox::{Op, Outcome};
use crate::guest::{Access, GuestFault};
use crate::memory::fault::{Backing, Miss};
use crate::memory::rmp::{Adjust, Validate, Violation};
use crate::memory::{Memory, split_at_pages};
use crate::vcpu::{Step, Vcpu};
use exeunt_abi::kvm::memory::MEM_READONLY;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::rmp::{npf, vmpl};
use exeunt_abi::{Errno, Gfn, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::PageState;
use exeunt_proto::exit::{Exit, MemoryFault};
use std::ops::Range;

/// Bytes that one act may read. No instruction reads more, and the engine holds what it reads.
const MAX_READ_BYTES: usize = 1 << 20;

/// What a vCPU's privilege level is, and what the reverse map refused it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RmpFaults {
    /// The privilege level that the vCPU's VMSA names.
    pub(crate) vmpl: u8,
    /// `#NPF`s with [`npf::GUEST_RMP`].
    pub(crate) count: u64,
    /// The error code of the last one.
    pub(crate) last: Option<u64>,
}

impl Vcpu {
    /// Nested page faults of this vCPU that the reverse map caused. KVM resolves them itself or not at all.
    #[must_use]
    pub const fn rmp_faults(&self) -> u64 {
        self.rmp_faults.count
    }

    /// The error code of the last of [`Vcpu::rmp_faults`]: bits of [`npf`].
    #[must_use]
    pub const fn last_rmp_fault(&self) -> Option<u64> {
        self.rmp_faults.last
    }

    /// Chooses the privilege level, 0 to 3, as the VMSA that the vCPU is entered with does.
    pub fn set_vmpl(&mut self, level: u8) {
        self.rmp_faults.vmpl = level.min(vmpl::LEVELS.saturating_sub(1));
    }

    /// An act on memory. One that faults is kept and tried again when the guest is entered the next time.
    pub(crate) fn access_memory(&mut self, op: Op) -> Step {
        if matches!(op, Op::Read { bytes, .. } if bytes > MAX_READ_BYTES) {
            return Step::Guest(Outcome::Fault(GuestFault::GeneralProtection));
        }
        let vm = self.vm.clone();
        // After KVM has split an entry the access goes through, or meets something else.
        for _ in 0..2 {
            let level = self.rmp_faults.vmpl;
            let mut state = vm.lock();
            let memory = &mut state.memory;
            match memory.perform(&op, level) {
                Ok(outcome) => return Step::Guest(outcome),
                Err(Miss::Npf { gfn, error_code }) => {
                    self.rmp_faults.count = self.rmp_faults.count.saturating_add(1);
                    self.rmp_faults.last = Some(error_code);
                    if !memory.handle_rmp_fault(gfn) {
                        break;
                    }
                }
                Err(miss) => {
                    drop(state);
                    return self.miss(op, miss);
                }
            }
        }
        self.stuck(op)
    }

    /// The guest meets the same fault again and again, and KVM has no answer: what ends it is a signal.
    fn stuck(&mut self, op: Op) -> Step {
        self.did(|| "meets the same nested page fault again and again".into());
        self.retry = Some(op);
        self.slice = 1;
        Step::Resume
    }

    /// What becomes of an act that did not reach its memory. It is kept where it is to be tried again.
    pub(crate) fn miss(&mut self, op: Op, miss: Miss) -> Step {
        match miss {
            Miss::Unaccepted { gfn } => self.td_touches_unaccepted(gfn),
            Miss::Guest(fault) => Step::Guest(Outcome::Fault(fault)),
            // KVM cannot emulate a guest whose registers it does not see, and lets it try again.
            Miss::Emulate { has_slot: true, .. } if self.vm_type.has_protected_state() => self.stuck(op),
            Miss::Emulate { .. } if self.is_plain_x86() => self.begin_emulated(&op),
            Miss::Emulate { gfn, .. } => {
                let gpa = gfn.gpa().0;
                Step::Guest(Outcome::Fault(match self.vm_type {
                    VmType::Tdx => GuestFault::VirtualizationException { gpa },
                    _ => GuestFault::NoMemory { gpa },
                }))
            }
            Miss::Failed(errno) => {
                self.retry = Some(op);
                Step::Exit(Err(errno))
            }
            Miss::Npf { .. } => self.stuck(op),
            Miss::Host { gfn, private, errno } => {
                self.did(|| {
                    let kind = if private { "private" } else { "shared" };
                    format!("touches {kind} memory at {:#x}", gfn.gpa().0)
                });
                self.retry = Some(op);
                Step::Exit(self.memory_fault(gfn, private, errno))
            }
        }
    }

    /// `kvm_prepare_memory_fault_exit`: the page says where, the error number why.
    pub(crate) fn memory_fault(&mut self, gfn: Gfn, private: bool, errno: Errno) -> Result<(), Errno> {
        let fault = MemoryFault {
            gpa: gfn.gpa(),
            size: PAGE_SIZE,
            private,
            unknown_flags: 0,
            poisoned: errno == Errno::EHWPOISON,
        };
        self.exit(&Exit::MemoryFault(fault)).and(Err(errno)).map_err(|_| errno)
    }
}

impl Memory {
    fn perform(&mut self, op: &Op, level: u8) -> Result<Outcome, Miss> {
        match op {
            Op::Read { gpa, bytes, access } => self.guest_read(*gpa, *bytes, *access, level),
            Op::Write { gpa, bytes, access } => self.guest_write(*gpa, bytes, *access, level),
            Op::Pvalidate { gpa, is_2m, validate } => self.pvalidate(*gpa, *is_2m, *validate, level),
            Op::Rmpadjust { gpa, is_2m, attributes } => self.rmpadjust(*gpa, *is_2m, *attributes, level),
            _ => Ok(Outcome::Done),
        }
    }

    /// Resolves one page of an access: KVM's side first, as the nested page fault does, then the reverse map.
    fn touch(&mut self, gfn: Gfn, access: Access, write: bool, level: u8) -> Result<Backing, Miss> {
        let private = match self.vm_type {
            VmType::Snp | VmType::Tdx => access == Access::Private,
            // The attribute decides, there is no C-bit.
            VmType::SwProtected => self.attributes.get(gfn.0) == PageState::Private,
            _ => false,
        };
        let backing = self.faultin(gfn, private, write)?;
        if self.vm_type == VmType::Snp {
            self.check_rmp(backing, gfn, private, write, level)?;
        }
        if self.vm_type == VmType::Tdx && private {
            self.sept.check_accepted(gfn)?;
        }
        Ok(backing)
    }

    fn check_rmp(
        &self,
        backing: Backing,
        gfn: Gfn,
        private: bool,
        write: bool,
        level: u8,
    ) -> Result<(), Miss> {
        let Some(target) = self.rmp_target(backing, gfn, false) else { return Ok(()) };
        if !private {
            // A page that is the guest's own, reached without the C-bit.
            return if self.rmp.get(target.pfn).fields().assigned {
                Err(violation(Violation::Npf(npf::GUEST_RMP), gfn, write, false))
            } else {
                Ok(())
            };
        }
        let permission = if write { vmpl::WRITE } else { vmpl::READ };
        let checked = self.rmp.check_access(target, level, permission);
        checked.map_err(|refused| violation(refused, gfn, write, true))
    }

    pub(crate) fn guest_read(
        &mut self,
        gpa: Gpa,
        bytes: usize,
        access: Access,
        level: u8,
    ) -> Result<Outcome, Miss> {
        let (gpa, access) = self.sept.resolve(gpa, access);
        let mut got = vec![0; bytes];
        for (chunk, gfn, offset) in split_at_pages(gpa, bytes) {
            let to = got.get_mut(chunk).unwrap_or_default();
            match self.touch(gfn, access, false, level)? {
                Backing::User { uaddr } => {
                    let read = self.user.read(uaddr.wrapping_add(offset as u64), to);
                    read.map_err(Miss::Failed)?;
                }
                Backing::Gmem { file, index } => {
                    if let Some(gmem) = self.files.get(file) {
                        gmem.read(index, offset, to);
                    }
                }
            }
        }
        Ok(Outcome::Bytes(got))
    }

    pub(crate) fn guest_write(
        &mut self,
        gpa: Gpa,
        bytes: &[u8],
        access: Access,
        level: u8,
    ) -> Result<Outcome, Miss> {
        let (gpa, access) = self.sept.resolve(gpa, access);
        for (chunk, gfn, offset) in split_at_pages(gpa, bytes.len()) {
            let from = bytes.get(chunk).unwrap_or_default();
            match self.touch(gfn, access, true, level)? {
                Backing::User { uaddr } => {
                    let written = self.user.write(uaddr.wrapping_add(offset as u64), from);
                    written.map_err(Miss::Failed)?;
                    self.mark_dirty(gfn);
                }
                Backing::Gmem { file, index } => {
                    if let Some(gmem) = self.files.get_mut(file) {
                        gmem.write(index, offset, from);
                    }
                }
            }
        }
        Ok(Outcome::Done)
    }

    /// Does an access where memory is, and returns the parts where none is. KVM's emulator goes through the mappings of
    /// the process and causes no fault: it looks at no attribute, and takes what it cannot reach for no memory.
    ///
    /// Source: Linux v6.12 `arch/x86/kvm/x86.c`, `emulator_read_write_onepage`; measured.
    pub(crate) fn emulate(&mut self, gpa: Gpa, data: &mut [u8], is_write: bool) -> Vec<Range<usize>> {
        let mut fragments = Vec::new();
        for (chunk, gfn, offset) in split_at_pages(gpa, data.len()) {
            let bytes = data.get_mut(chunk.clone()).unwrap_or_default();
            let slot = self.slot_of(gfn).copied().filter(|slot| !(is_write && slot.has(MEM_READONLY)));
            let uaddr = slot.map(|slot| slot.uaddr(gfn.gpa()).wrapping_add(offset as u64));
            let done = match uaddr {
                Some(uaddr) if is_write => self.user.write(uaddr, bytes).is_ok(),
                Some(uaddr) => self.user.read(uaddr, bytes).is_ok(),
                None => false,
            };
            if !done {
                fragments.push(chunk);
            } else if is_write {
                self.mark_dirty(gfn);
            }
        }
        fragments
    }

    /// `PVALIDATE`. EAX is in the lower half of the outcome, the carry flag in bit 32.
    fn pvalidate(&mut self, gpa: Gpa, is_2m: bool, validate: bool, level: u8) -> Result<Outcome, Miss> {
        if self.vm_type != VmType::Snp {
            return Err(Miss::Guest(GuestFault::InvalidOpcode));
        }
        if level != 0 {
            return Err(Miss::Guest(GuestFault::GeneralProtection));
        }
        let gfn = gpa.gfn();
        let backing = self.faultin(gfn, true, false)?;
        let target = self.rmp_target(backing, gfn, is_2m).ok_or(Miss::Failed(Errno::EIO))?;
        let outcome = self.rmp.pvalidate(Validate { target, validate });
        let outcome = outcome.map_err(|refused| violation(refused, gfn, true, true))?;
        Ok(Outcome::Value(u64::from(outcome.code) | u64::from(outcome.unchanged) << 32))
    }

    /// `RMPADJUST`. The outcome is EAX.
    fn rmpadjust(&mut self, gpa: Gpa, is_2m: bool, attributes: u64, level: u8) -> Result<Outcome, Miss> {
        if self.vm_type != VmType::Snp {
            return Err(Miss::Guest(GuestFault::InvalidOpcode));
        }
        let gfn = gpa.gfn();
        let backing = self.faultin(gfn, true, false)?;
        let target = self.rmp_target(backing, gfn, is_2m).ok_or(Miss::Failed(Errno::EIO))?;
        let code = self.rmp.rmpadjust(Adjust { target, vmpl: level, attributes });
        let code = code.map_err(|refused| violation(refused, gfn, true, true))?;
        Ok(Outcome::Value(u64::from(code)))
    }
}

/// What a violation becomes: an exception of the guest, or a fault with the bits of its access.
fn violation(violation: Violation, gfn: Gfn, write: bool, private: bool) -> Miss {
    match violation {
        Violation::NotValidated => Miss::Guest(GuestFault::NotValidated { gpa: gfn.gpa().0 }),
        Violation::Npf(bits) => {
            let write = if write { npf::WRITE } else { 0 };
            let private = if private { npf::GUEST_ENC } else { 0 };
            let error_code = bits | write | private | npf::PRESENT | npf::USER | npf::GUEST_FINAL;
            Miss::Npf { gfn, error_code }
        }
    }
}
