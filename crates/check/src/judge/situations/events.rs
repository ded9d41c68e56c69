//! Guests that ask for their end, and what becomes of it.

use crate::judge::situation::{Orders, Rewrite, Situation};
use crate::programs::{plain, tdx, termination};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Kernel};
use exeunt_model::guest::{Cpu, GuestFault};

pub(super) fn all() -> Vec<Situation> {
    let new = Situation::new;
    let arm64 = |name, guest| new(name, VmType::Default, guest).on(Dialect::Linux7_2, Arch::Arm64);
    vec![
        Situation {
            told: Some(Kernel::default()),
            ..new("event-with-bit-31", VmType::SevEs, |vm, seed| vm.create_vcpu(seed, termination::by_msr))
                .on(Dialect::SevTermV4_1, Arch::X86)
        },
        Situation {
            is_run_twice: true,
            ..new("event-with-data", VmType::Snp, |vm, seed| vm.create_vcpu(seed, termination::by_msr))
        },
        Situation {
            is_run_twice: true,
            ..new("event-without-215", VmType::Default, |vm, seed| vm.create_vcpu(seed, just_reset))
                .on(Dialect::Linux5_17, Arch::X86)
        },
        Situation {
            later: Some(NINTH_EVENT),
            ..new("unknown-event", VmType::Default, |vm, seed| vm.create_vcpu(seed, just_reset))
        },
        new("termination-by-msr", VmType::Snp, |vm, seed| vm.create_vcpu(seed, termination::by_msr)),
        new("termination-by-page", VmType::Snp, |vm, seed| vm.create_vcpu(seed, termination::by_page)),
        new("termination-needs-snp", VmType::SevEs, |vm, seed| {
            vm.create_vcpu(seed, termination::snp_request_without_snp)
        }),
        new("td-fatal-error", VmType::Tdx, |vm, seed| vm.create_vcpu(seed, tdx::calls)),
        arm64("event-with-flag", |vm, seed| vm.create_vcpu(seed, plain::psci_reset2)),
        Situation {
            orders: Orders { is_32_bit: true, ..Orders::default() },
            ..arm64("event-read-by-i386", |vm, seed| vm.create_vcpu(seed, plain::psci_off2))
        },
        Situation {
            orders: Orders { ignore_events: true, ..Orders::default() },
            ..new("event-ignored", VmType::Default, |vm, seed| vm.create_vcpu(seed, plain::hyperv_reset))
        },
    ]
}

/// The first number that no kernel has given to an event.
const UNKNOWN_EVENT: u32 = 9;

/// A newer kernel has one more type of event.
const NINTH_EVENT: Rewrite = |_, _, page| {
    if page.reason() == ExitReason::SYSTEM_EVENT {
        page.set_bytes(0, &UNKNOWN_EVENT.to_le_bytes());
    }
};

/// A reset without an exit before it, so that nothing but the type is written.
async fn just_reset(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.hyperv_reset().await
}
