//! Guest requests to the firmware, and the certificates that go with attestation reports.

use crate::faults::{Fault, Point};
use crate::psp::{CommandError, Firmware};
use crate::state::{PAGE, VmState};
use crate::vcpu::Completion;
use crate::vcpu::Step;
use crate::vcpu::Vcpu;
use exeunt_abi::ghcb::guest_message::{MSG_REPORT_REQ, MSG_TYPE};
use exeunt_abi::ghcb::page::{self, malformed};
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::{Errno, Gpa};
use exeunt_proto::certs;
use exeunt_proto::exit::{Exit, SnpReqCerts};

impl Vcpu {
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_handle_guest_req` and `snp_handle_ext_guest_req`.
    pub(crate) fn guest_request(&mut self, extended: bool) -> Step {
        let vm = self.vm.clone();
        let mut state = vm.lock();
        let [request, response] = self.ghcb.info.map(Gpa);
        if !request.is_page_aligned() || !response.is_page_aligned() || request == response {
            let is_old = !self.kernel.dialect.names_what_a_vmgexit_lacks();
            let sub_code = if is_old { malformed::MISSING_INPUT } else { malformed::INVALID_INPUT };
            self.ghcb.refuse(&mut state.memory, sub_code);
            return Step::Resume;
        }
        if !extended {
            return self.firmware_request(&mut state);
        }
        let mut msg_type = [0];
        let msg_type_at = Gpa(request.0.wrapping_add(MSG_TYPE));
        if self.read_request(&state, msg_type_at, &mut msg_type).is_err() {
            return Step::Exit(Err(Errno::EIO));
        }
        if msg_type != [MSG_REPORT_REQ] {
            return self.firmware_request(&mut state);
        }
        let (gpa, pages) = (Gpa(self.regs.rax), self.regs.rbx);
        let complete = self.ghcb.is_valid(page::RAX) && self.ghcb.is_valid(page::RBX);
        if !complete || !gpa.is_page_aligned() {
            self.ghcb.refuse(&mut state.memory, malformed::INVALID_INPUT);
            return Step::Resume;
        }
        if state.certs_enabled {
            drop(state);
            self.completion = Some(Completion::ReqCerts);
            return Step::Exit(self.exit(&Exit::SnpReqCerts(SnpReqCerts { gpa, pages })));
        }
        // No certificates: an empty table, if the guest has room for one.
        if pages != 0 && state.memory.write_shared(gpa, &[0; certs::ENTRY_BYTES]).is_err() {
            return Step::Exit(Err(Errno::EIO));
        }
        self.firmware_request(&mut state)
    }

    /// Userspace says that the certificates are where the guest wants them.
    pub(crate) fn firmware_request_after_certs(&mut self) -> Step {
        let vm = self.vm.clone();
        let mut state = vm.lock();
        self.firmware_request(&mut state)
    }

    /// Sends the request page and copies the response page back, whatever the firmware's status is.
    ///
    /// The response page is the VM's and keeps what it holds: a request that fails gives the guest the response to an
    /// earlier one.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `__snp_handle_guest_req`.
    fn firmware_request(&mut self, state: &mut VmState) -> Step {
        let [request, response] = self.ghcb.info.map(Gpa);
        let mut page = Box::new([0; PAGE]);
        if self.read_request(state, request, page.as_mut_slice()).is_err() {
            return Step::Exit(Err(Errno::EIO));
        }
        state.firmware_requests = state.firmware_requests.saturating_add(1);
        let status = match self.issue_guest_request(state, &mut page) {
            Ok(()) => 0,
            Err(CommandError { errno, error: 0 }) => return Step::Exit(Err(errno)),
            Err(CommandError { error, .. }) => error,
        };
        if state.memory.write_shared(response, state.sev.response.as_slice()).is_err() {
            return Step::Exit(Err(Errno::EIO));
        }
        self.ghcb.answer_info_2(&mut state.memory, u64::from(status));
        Step::Resume
    }

    /// Reads what the guest asks, which can be somewhere else by then.
    fn read_request(&self, state: &VmState, from: Gpa, to: &mut [u8]) -> Result<(), Errno> {
        self.vm.faults.fail_at(Point::GuestRequestRead)?;
        state.memory.read_shared(from, to)
    }

    /// `SNP_GUEST_REQUEST`, by the processor or by what stands for it.
    fn issue_guest_request(&self, state: &mut VmState, page: &mut [u8; PAGE]) -> Result<(), CommandError> {
        match self.vm.faults.at(Point::FirmwareCommand) {
            Some(Fault::Fails(errno)) => return Err(CommandError::before(errno)),
            Some(Fault::Status(status)) => return Err(CommandError::of_firmware(status)),
            Some(Fault::Update) => state.sev.host.psp().patch(),
            _ => {}
        }
        match state.firmware {
            Firmware::Real => {}
            Firmware::Fails(errno) => return Err(CommandError::before(errno)),
            Firmware::Completes { status } => {
                state.sev.response.fill(0);
                return if status == 0 { Ok(()) } else { Err(CommandError::of_firmware(status)) };
            }
        }
        state.sev.host.check_file(state.sev.file)?;
        let guest = state.sev.snp_guest();
        let response = &mut state.sev.response;
        state
            .sev
            .host
            .psp()
            .command(|platform| platform.guest_request(guest.ok_or(firmware::INVALID_GUEST)?, page, response))
    }
}
