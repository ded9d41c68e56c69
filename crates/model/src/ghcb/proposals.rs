//! What kernels with a proposal do in place of what was merged.

use crate::vcpu::Completion;
use crate::vcpu::Step;
use crate::vcpu::Vcpu;
use exeunt_abi::ghcb::guest_message::vmm_error;
use exeunt_abi::kvm::run::{CocoV1, VmgexitV10, coco_v1};
use exeunt_proto::exit::Exit;

impl Vcpu {
    /// Hands a page-state change to userspace undecoded.
    ///
    /// Source: proposal "KVM: SEV: Add `KVM_EXIT_VMGEXIT`", v10.
    pub(crate) fn forward_vmgexit(&mut self, by_page: bool) -> Step {
        self.completion = Some(Completion::Vmgexit { by_page });
        Step::Exit(self.exit(&Exit::Vmgexit { ghcb_msr: self.ghcb.msr }))
    }

    /// Takes userspace's answer as it is: `SW_EXITINFO2`, or a new GHCB MSR.
    pub(crate) fn complete_vmgexit(&mut self, by_page: bool) -> Step {
        let answer: VmgexitV10 = self.page.payload();
        if by_page {
            self.ghcb.answer_info_2(&mut self.vm.lock().memory, answer.ret);
        } else {
            self.ghcb.msr = answer.ghcb_msr;
        }
        Step::Resume
    }

    /// Source: proposal "KVM: Introduce `KVM_EXIT_COCO` exit type", v1.
    pub(crate) fn complete_coco(&mut self) -> Step {
        let answer: CocoV1 = self.page.payload();
        let info_2 = match answer.ret {
            0 => return self.firmware_request_after_certs(),
            coco_v1::ERR_INVALID_LEN => {
                self.regs.rbx = u64::from(answer.npages);
                vmm_error::INVALID_LEN
            }
            _ => u64::from(coco_v1::ERR_GENERIC) << 32,
        };
        self.ghcb.answer_info_2(&mut self.vm.lock().memory, info_2);
        Step::Resume
    }
}
