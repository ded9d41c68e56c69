//! Exit codes that KVM hands to the handlers that it has for the exits of ordinary guests.

use crate::guest::GuestFault;
use crate::vcpu::{Step, Vcpu};
use exeunt_abi::ghcb::exit_code;
use exeunt_abi::kvm::run::suberror;
use exeunt_proto::exit::{Exit, InternalError, Words};

/// The codes.
pub(super) const SVM_HANDLERS: [u64; 13] = [
    exit_code::READ_DR7,
    exit_code::WRITE_DR7,
    exit_code::RDTSC,
    exit_code::RDPMC,
    exit_code::CPUID,
    exit_code::INVD,
    exit_code::IOIO,
    exit_code::MSR,
    exit_code::VMMCALL,
    exit_code::RDTSCP,
    exit_code::WBINVD,
    exit_code::MONITOR,
    exit_code::MWAIT,
];

/// The host CPU that an internal error names. The model has one.
const HOST_CPU: u64 = 0;

impl Vcpu {
    /// Source: Linux v7.2 `arch/x86/kvm/svm/svm.c`, `svm_exit_handlers` and `svm_invoke_exit_handler`.
    pub(super) fn invoke_svm_handler(&mut self, code: u64) -> Step {
        let [info_1, _] = self.ghcb.info;
        match code {
            exit_code::CPUID => self.emulate_cpuid(),
            exit_code::RDPMC => self.emulate_rdpmc(),
            exit_code::IOIO => return self.ioio(),
            exit_code::MSR if info_1 == 0 => return self.emulate_rdmsr(),
            exit_code::MSR => return self.emulate_wrmsr(),
            exit_code::VMMCALL => return self.hypercall(),
            exit_code::RDTSCP => self.raise(GuestFault::InvalidOpcode),
            // The debug register is the guest's own, and nothing is to be done for the caches. Waiting is optional.
            exit_code::READ_DR7
            | exit_code::WRITE_DR7
            | exit_code::INVD
            | exit_code::WBINVD
            | exit_code::MONITOR
            | exit_code::MWAIT => {}
            code => return self.unexpected_exit(code),
        }
        Step::Resume
    }

    /// An exit without a handler.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_prepare_unexpected_reason_exit`.
    fn unexpected_exit(&mut self, code: u64) -> Step {
        let data = Words::from_slice(&[code, HOST_CPU]);
        let error = InternalError { suberror: suberror::UNEXPECTED_EXIT_REASON, data };
        Step::Exit(self.exit(&Exit::InternalError(error)))
    }
}
