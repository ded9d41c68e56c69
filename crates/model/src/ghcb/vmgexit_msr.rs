//! `VMGEXIT` with a request in the MSR.

use crate::ghcb::{ApResetHold, sev_info_response};
use crate::vcpu::Completion;
use crate::vcpu::Step;
use crate::vcpu::{MpState, Regs, Vcpu};
use exeunt_abi::ConversionForm;
use exeunt_abi::ghcb::{features, msr, psc};
use exeunt_abi::kvm::run::map_gpa_range;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_proto::exit::{Exit, map_gpa_range_by_psc};
use exeunt_proto::ghcb::MsrRequest;

/// Bits of a CPUID request that its response keeps, beside the value: all but the info and the leaf.
const CPUID_KEPT: u64 = 0xffff_f000;

impl Vcpu {
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_handle_vmgexit_msr_protocol`.
    pub(crate) fn vmgexit_msr(&mut self, request: MsrRequest) -> Step {
        self.did(|| format!("VMGEXIT with the GHCB MSR {:#x}", self.ghcb.msr));
        let is_snp = self.vm_type == VmType::Snp;
        match request {
            MsrRequest::SevInfo => self.ghcb.msr = sev_info_response(self.vm.lock().ghcb_version),
            MsrRequest::Cpuid { function, register } => self.msr_cpuid(function, register),
            MsrRequest::ApResetHold => {
                let step = self.ap_reset_hold(ApResetHold::ByMsr);
                // The result is 0 until a startup interrupt comes, which only a local APIC in the kernel can bring.
                self.ghcb.msr = msr::AP_RESET_HOLD_RESPONSE;
                return step;
            }
            MsrRequest::PreferredGpa if is_snp => {
                self.ghcb.msr = !msr::INFO_MASK | msr::PREFERRED_GPA_RESPONSE;
            }
            MsrRequest::RegisterGpa(gfn) if is_snp => {
                self.ghcb.registered = gfn.gpa().0;
                self.ghcb.msr = gfn.gpa().0 | msr::REGISTER_GPA_RESPONSE;
            }
            MsrRequest::Psc { .. }
                if is_snp && self.kernel.dialect.conversion_form() == ConversionForm::Vmgexit =>
            {
                return self.forward_vmgexit(false);
            }
            MsrRequest::Psc { operation, gfn } if is_snp => {
                return self.begin_psc_msr(operation, gfn.gpa().0);
            }
            MsrRequest::HvFeatures => {
                self.ghcb.msr = features::OF_KVM << 12 | msr::HV_FEATURES_RESPONSE;
            }
            MsrRequest::Terminate
            | MsrRequest::PreferredGpa
            | MsrRequest::RegisterGpa(_)
            | MsrRequest::Psc { .. } => return self.terminate(self.ghcb.msr),
            // KVM says nothing and leaves the request where the response should be.
            _ => {}
        }
        Step::Resume
    }

    fn msr_cpuid(&mut self, function: u32, register: u8) {
        [self.regs.rax, self.regs.rcx] = [u64::from(function), 0];
        self.emulate_cpuid();
        let Regs { rax, rbx, rcx, rdx, .. } = self.regs;
        let value = [rax, rbx, rcx, rdx].get(usize::from(register)).copied().unwrap_or(0);
        self.ghcb.msr = value << 32 | self.ghcb.msr & CPUID_KEPT | msr::CPUID_RESPONSE;
    }

    /// Without a local APIC in the kernel the VMM has to hold the vCPU. The exit has no payload.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_emulate_ap_reset_hold`.
    pub(crate) fn ap_reset_hold(&mut self, hold: ApResetHold) -> Step {
        self.ghcb.hold = hold;
        self.halt(MpState::ApResetHold, &Exit::ApResetHold)
    }

    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_begin_psc_msr`.
    fn begin_psc_msr(&mut self, operation: u8, gpa: u64) -> Step {
        let attributes = match operation {
            psc::operation::PRIVATE => map_gpa_range::ENCRYPTED,
            psc::operation::SHARED => 0,
            _ => {
                self.ghcb.msr = msr::PSC_RESPONSE_ERROR;
                return Step::Resume;
            }
        };
        if !self.vm.map_gpa_range_exits() {
            self.ghcb.msr = msr::PSC_RESPONSE_ERROR;
            return Step::Resume;
        }
        self.completion = Some(Completion::PscMsr);
        map_gpa_range_by_psc(gpa, 1, attributes, self.kernel, &mut self.page);
        Step::Exit(Ok(()))
    }
}
