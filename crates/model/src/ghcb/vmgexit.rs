//! `VMGEXIT` with a GHCB page: the checks in their order, then the dispatch.

use super::ApResetHold;
use super::svm_handlers::SVM_HANDLERS;
use crate::guest::mailbox::Outcome;
use crate::vcpu::Step;
use crate::vcpu::{OnEntry, Vcpu};
use exeunt_abi::ghcb::exit_code::{self, ap_creation, ap_jump_table, ioio};
use exeunt_abi::ghcb::features;
use exeunt_abi::ghcb::page::{self, malformed};
use exeunt_abi::{ConversionForm, Errno, Gpa};
use exeunt_proto::exit::{EventType, Exit, SystemEvent, Words};
use exeunt_proto::ghcb::MsrRequest;

/// Exit codes that only SNP guests may use.
const SNP_ONLY: [u64; 4] =
    [exit_code::PSC, exit_code::GUEST_REQUEST, exit_code::EXT_GUEST_REQUEST, exit_code::AP_CREATION];

/// The CPUID leaf whose answer depends on XCR0.
const CPUID_XSAVE: u64 = 0xd;
impl Vcpu {
    /// The guest wrote the GHCB MSR and executed `VMGEXIT`.
    pub(crate) fn vmgexit(&mut self, ghcb_msr: u64) -> Step {
        if !self.is_es {
            return Step::Guest(Outcome::Fault(self.not_emulated()));
        }
        self.on_entry = Some(OnEntry::GhcbMsr);
        self.ghcb.msr = ghcb_msr;
        match MsrRequest::decode(ghcb_msr) {
            // KVM logs both this and an address that it cannot map, and goes on.
            MsrRequest::Page(Gpa(0)) => Step::Resume,
            MsrRequest::Page(ghcb) => self.vmgexit_page(ghcb),
            request => self.vmgexit_msr(request),
        }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_handle_vmgexit` and `sev_es_validate_vmgexit`.
    fn vmgexit_page(&mut self, ghcb: Gpa) -> Step {
        let vm = self.vm.clone();
        let mut state = vm.lock();
        match self.ghcb.sync_from(&mut state.memory, ghcb) {
            Ok(synced) => {
                self.regs = synced.regs;
                drop(state);
                self.sync_xstate(synced.xcr0, synced.xss);
            }
            Err(_) => return Step::Resume,
        }
        let mut state = vm.lock();
        self.did(|| format!("VMGEXIT with the GHCB at {ghcb}, exit code {:#x}", self.ghcb.code));
        let is_snp = state.is_snp();
        if is_snp && self.ghcb.registered != ghcb.0 {
            if !self.kernel.dialect.names_what_a_vmgexit_lacks() {
                return Step::Exit(Err(Errno::EINVAL));
            }
            self.ghcb.refuse(&mut state.memory, malformed::NOT_REGISTERED);
            return Step::Resume;
        }
        let mut usage = [0; 4];
        let usage_at = Gpa(ghcb.0.wrapping_add(page::GHCB_USAGE));
        if state.memory.read_shared(usage_at, &mut usage).is_err() || usage != [0; 4] {
            self.ghcb.refuse(&mut state.memory, malformed::INVALID_USAGE);
            return Step::Resume;
        }
        if let Some(sub_code) = self.refusal(is_snp) {
            self.ghcb.refuse(&mut state.memory, sub_code);
            return Step::Resume;
        }
        self.ghcb.answer(&mut state.memory, 0, 0);
        drop(state);
        self.dispatch(ghcb)
    }

    /// Why a request is malformed before anything of it is done, if it is.
    fn refusal(&self, is_snp: bool) -> Option<u64> {
        let code = self.ghcb.code;
        let needs_snp = SNP_ONLY.contains(&code) && !is_snp;
        let basic = self.are_valid(&[page::SW_EXIT_CODE, page::SW_EXIT_INFO_1, page::SW_EXIT_INFO_2]);
        let needed = self.are_valid(self.needed_fields());
        if self.kernel.dialect.names_what_a_vmgexit_lacks() {
            return match (needs_snp, basic && needed) {
                (true, _) => Some(malformed::INVALID_EVENT),
                (false, false) => Some(malformed::MISSING_INPUT),
                (false, true) => None,
            };
        }
        if !basic {
            return Some(malformed::MISSING_INPUT);
        }
        if !Self::is_known(code) {
            return Some(malformed::INVALID_EVENT);
        }
        (needs_snp || !needed).then_some(malformed::MISSING_INPUT)
    }

    fn are_valid(&self, fields: &[page::Field]) -> bool {
        fields.iter().all(|field| self.ghcb.is_valid(*field))
    }

    /// The fields that this exit needs beside its code and information.
    fn needed_fields(&self) -> &'static [page::Field] {
        let [info_1, _] = self.ghcb.info;
        let has = |bit: u64| info_1 & bit != 0;
        match self.ghcb.code {
            exit_code::WRITE_DR7 => &[page::RAX],
            exit_code::RDPMC => &[page::RCX],
            exit_code::CPUID if self.regs.rax == CPUID_XSAVE => &[page::RAX, page::RCX, page::XCR0],
            exit_code::CPUID | exit_code::MWAIT => &[page::RAX, page::RCX],
            exit_code::IOIO if has(ioio::STRING) => &[page::SW_SCRATCH],
            exit_code::IOIO if !has(ioio::TYPE_IN) => &[page::RAX],
            exit_code::MSR if info_1 == 0 => &[page::RCX],
            exit_code::MSR | exit_code::MONITOR => &[page::RAX, page::RCX, page::RDX],
            exit_code::VMMCALL => &[page::RAX, page::CPL],
            exit_code::PSC | exit_code::MMIO_READ | exit_code::MMIO_WRITE => &[page::SW_SCRATCH],
            exit_code::AP_CREATION if info_1 & 0xffff_ffff != u64::from(ap_creation::DESTROY) => &[page::RAX],
            _ => &[],
        }
    }

    fn is_known(code: u64) -> bool {
        SVM_HANDLERS.contains(&code)
            || SNP_ONLY.contains(&code)
            || matches!(
                code,
                exit_code::MMIO_READ
                    ..=exit_code::AP_JUMP_TABLE
                        | exit_code::HV_FEATURES
                        | exit_code::TERM_REQUEST
                        | exit_code::UNSUPPORTED_EVENT
            )
    }

    fn dispatch(&mut self, ghcb: Gpa) -> Step {
        let vm = self.vm.clone();
        match self.ghcb.code {
            exit_code::MMIO_READ => self.begin_mmio(false),
            exit_code::MMIO_WRITE => self.begin_mmio(true),
            exit_code::NMI_COMPLETE => {
                self.events.nmi_complete();
                Step::Resume
            }
            exit_code::AP_HLT_LOOP => self.ap_reset_hold(ApResetHold::ByPage),
            exit_code::AP_JUMP_TABLE => self.ap_jump_table(),
            exit_code::PSC if self.kernel.dialect.conversion_form() == ConversionForm::Vmgexit => {
                self.forward_vmgexit(true)
            }
            exit_code::PSC => self.begin_psc(),
            exit_code::GUEST_REQUEST => self.guest_request(false),
            exit_code::EXT_GUEST_REQUEST => self.guest_request(true),
            exit_code::HV_FEATURES => {
                self.ghcb.answer_info_2(&mut vm.lock().memory, features::OF_KVM);
                Step::Resume
            }
            exit_code::TERM_REQUEST => self.terminate(ghcb.0),
            exit_code::UNSUPPORTED_EVENT => Step::Exit(Err(Errno::EINVAL)),
            exit_code::AP_CREATION => self.ap_creation(),
            code if SVM_HANDLERS.contains(&code) => self.invoke_svm_handler(code),
            _ => {
                self.ghcb.refuse(&mut vm.lock().memory, malformed::INVALID_EVENT);
                Step::Resume
            }
        }
    }

    /// Stores the jump table, or says where it is. Either is for all vCPUs.
    fn ap_jump_table(&mut self) -> Step {
        let mut state = self.vm.lock();
        match self.ghcb.info {
            [ap_jump_table::SET, table] => state.ap_jump_table = table,
            [ap_jump_table::GET, _] => {
                let table = state.ap_jump_table;
                self.ghcb.answer_info_2(&mut state.memory, table);
            }
            _ => self.ghcb.refuse(&mut state.memory, malformed::INVALID_INPUT),
        }
        Step::Resume
    }

    /// `KVM_SYSTEM_EVENT_SEV_TERM`. There is no completion: a VMM may enter the guest again. The union is not
    /// cleared, so `data[1..]` is stale. Before 5.19 `KVM_RUN` failed instead.
    pub(crate) fn terminate(&mut self, msr: u64) -> Step {
        if !self.kernel.dialect.has_sev_term() {
            return Step::Exit(Err(Errno::EINVAL));
        }
        let event = SystemEvent { event: EventType::SevTerm, data: Words::from_slice(&[msr]) };
        Step::Exit(self.exit(&Exit::SystemEvent(event)))
    }
}
