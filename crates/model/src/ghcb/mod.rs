//! The GHCB page as KVM keeps it: mapped at a `VMGEXIT`, written back when the guest is entered again.

mod ap_creation;
mod guest_request;
mod mmio;
mod proposals;
mod psc;
mod scratch;
mod svm_handlers;
mod vmgexit;
mod vmgexit_msr;

pub(crate) use ap_creation::{ApState, PendingVmsa};
pub(crate) use mmio::Pieces;
pub use psc::Compiler;
pub(crate) use psc::PscState;

use crate::memory::Memory;
use crate::state::{C_BIT, VmState};
use crate::vcpu::{Regs, Vcpu};
use exeunt_abi::ghcb::page::{self, Field, exit_info_1};
use exeunt_abi::ghcb::{msr, psc as psc_page};
use exeunt_abi::{Errno, Gpa};
use scratch::Bounce;

/// What KVM holds of a vCPU's GHCB. Fields are read once, at the `VMGEXIT`; all decisions use these copies.
#[derive(Clone, Debug)]
pub(crate) struct GhcbState {
    pub(crate) msr: u64,
    /// The registered page. 0 is none: an MSR of 0 never names a page.
    pub(crate) registered: u64,
    pub(crate) mapped: Option<Gpa>,
    pub(crate) valid: u128,
    pub(crate) code: u64,
    pub(crate) info: [u64; 2],
    pub(crate) scratch: Gpa,
    /// The copy of a scratch area outside of the page.
    bounce: Option<Bounce>,
    /// The guest holds the processor in reset.
    pub(crate) hold: ApResetHold,
    /// A startup interrupt has come, which started the processor with the state that userspace gave it.
    pub(crate) received_first_sipi: bool,
}

/// How a guest holds a processor in reset, which decides where the startup interrupt shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ApResetHold {
    #[default]
    None,
    /// `AP_RESET_HOLD_NAE_EVENT`.
    ByPage,
    /// `AP_RESET_HOLD_MSR_PROTO`.
    ByMsr,
}

/// What a `VMGEXIT` by page brings beside its request.
pub(crate) struct Synced {
    pub(crate) regs: Regs,
    /// XCR0, if it is valid.
    pub(crate) xcr0: Option<u64>,
    /// XSS, if it is valid.
    pub(crate) xss: Option<u64>,
}

impl GhcbState {
    /// The state of a vCPU that was just made. The MSR presents the answer to the version request; an INIT leaves it.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_es_vcpu_reset`.
    pub(crate) fn after_reset(state: &VmState) -> Self {
        let is_es = state.is_es();
        Self {
            msr: if is_es { sev_info_response(state.ghcb_version) } else { 0 },
            registered: 0,
            mapped: None,
            valid: 0,
            code: 0,
            info: [0; 2],
            scratch: Gpa(0),
            bounce: None,
            hold: ApResetHold::None,
            received_first_sipi: false,
        }
    }
}

/// The response to a version request: versions 1 to `max_version`, and the C-bit.
pub(crate) const fn sev_info_response(max_version: u64) -> u64 {
    max_version << 48 | 1 << 32 | C_BIT << 24 | msr::SEV_INFO_RESPONSE
}

/// What a field of the mapped page holds. The page was checked when it was mapped.
fn field(memory: &Memory, ghcb: Gpa, field: Field) -> u64 {
    memory.read_u64(field.at(ghcb)).unwrap_or(0)
}

impl GhcbState {
    pub(crate) const fn is_valid(&self, field: Field) -> bool {
        self.valid & field.mask() != 0
    }

    /// Maps the page and takes the copies.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_es_sync_from_ghcb`.
    pub(crate) fn sync_from(&mut self, memory: &mut Memory, ghcb: Gpa) -> Result<Synced, Errno> {
        let mut bitmap = [0; 16];
        let bitmap_at = Gpa(ghcb.0.wrapping_add(page::VALID_BITMAP));
        memory.read_shared(bitmap_at, &mut bitmap)?;
        memory.map_shared(ghcb.gfn())?;
        self.mapped = Some(ghcb);
        self.valid = u128::from_le_bytes(bitmap);
        let valid = self.valid;
        let if_valid = |wanted: Field| match valid & wanted.mask() {
            0 => 0,
            _ => field(memory, ghcb, wanted),
        };
        let cpl = if self.is_valid(page::CPL) { memory.read_u8(page::CPL.at(ghcb))? } else { 0 };
        let regs = Regs {
            rax: if_valid(page::RAX),
            rbx: if_valid(page::RBX),
            rcx: if_valid(page::RCX),
            rdx: if_valid(page::RDX),
            rsi: if_valid(page::RSI),
            cpl,
            ..Regs::default()
        };
        let some_if_valid = |wanted: Field| (valid & wanted.mask() != 0).then(|| field(memory, ghcb, wanted));
        let [xcr0, xss] = [page::XCR0, page::XSS].map(some_if_valid);
        self.scratch = Gpa(if_valid(page::SW_SCRATCH));
        self.code = field(memory, ghcb, page::SW_EXIT_CODE);
        self.info = [field(memory, ghcb, page::SW_EXIT_INFO_1), field(memory, ghcb, page::SW_EXIT_INFO_2)];
        memory.write_shared(bitmap_at, &[0; 16])?;
        Ok(Synced { regs, xcr0, xss })
    }

    /// Sets `SW_EXITINFO1` and `SW_EXITINFO2` with their valid bits.
    pub(crate) fn answer(&self, memory: &mut Memory, info_1: u64, info_2: u64) {
        self.put(memory, page::SW_EXIT_INFO_1, info_1);
        self.put(memory, page::SW_EXIT_INFO_2, info_2);
    }

    /// Sets `SW_EXITINFO2` alone.
    pub(crate) fn answer_info_2(&self, memory: &mut Memory, info_2: u64) {
        self.put(memory, page::SW_EXIT_INFO_2, info_2);
    }

    /// Tells the guest that its request was malformed.
    pub(crate) fn refuse(&self, memory: &mut Memory, sub_code: u64) {
        self.answer(memory, exit_info_1::MALFORMED_INPUT, sub_code);
    }

    /// Writes a field of the mapped page and sets its valid bit. Nothing is mapped, nothing is written.
    fn put(&self, memory: &mut Memory, field: Field, value: u64) {
        let Some(ghcb) = self.mapped else { return };
        let at = Gpa(ghcb.0.wrapping_add(page::VALID_BITMAP).wrapping_add(u64::from(field.bit() >> 3)));
        // The mapping outlives its slot. What fails is a process that took the page away, to which nobody listens.
        let _ = memory
            .write_u64(field.at(ghcb), value)
            .and_then(|()| memory.read_u8(at))
            .and_then(|byte| memory.write_shared(at, &[byte | 1 << (field.bit() & 7)]));
    }

    /// The address of an entry of the page-state change descriptor.
    pub(crate) const fn psc_entry_at(&self, index: u64) -> Gpa {
        let offset = psc_page::HEADER_BYTES.wrapping_add(index.wrapping_mul(psc_page::ENTRY_BYTES));
        Gpa(self.scratch.0.wrapping_add(offset))
    }
}

impl Vcpu {
    /// Writes RAX, RBX, RCX and RDX back and unmaps the page. KVM does so when it switches to the guest, so the page
    /// stays unsynchronised while userspace handles an exit.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_es_unmap_ghcb`.
    pub(crate) fn unmap_ghcb(&mut self) {
        self.ghcb.hold = ApResetHold::None;
        let Some(ghcb) = self.ghcb.mapped else { return };
        let vm = self.vm.clone();
        let memory = &mut vm.lock().memory;
        self.ghcb.free_scratch(memory);
        let Regs { rax, rbx, rcx, rdx, .. } = self.regs;
        for (field, value) in [(page::RAX, rax), (page::RBX, rbx), (page::RCX, rcx), (page::RDX, rdx)] {
            self.ghcb.put(memory, field, value);
        }
        self.ghcb.mapped = None;
        memory.unmap_shared(ghcb.gfn());
    }
}
