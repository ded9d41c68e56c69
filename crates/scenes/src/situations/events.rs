//! Guests that ask for their end, and what becomes of it.

use crate::programs::{plain, tdx, termination};
use crate::situation::{Orders, Rewrite, Situation};
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
            ..new("event-with-bit-31", VmType::SevEs, |cpu| Box::pin(termination::by_msr(cpu)))
                .on(Dialect::SevTermV4_1, Arch::X86)
        },
        Situation {
            is_run_twice: true,
            ..new("event-with-data", VmType::Snp, |cpu| Box::pin(termination::by_msr(cpu)))
        },
        Situation {
            is_run_twice: true,
            ..new("event-without-215", VmType::Default, |cpu| Box::pin(just_reset(cpu)))
                .on(Dialect::Linux5_17, Arch::X86)
        },
        Situation {
            later: Some(NINTH_EVENT),
            ..new("unknown-event", VmType::Default, |cpu| Box::pin(just_reset(cpu)))
        },
        new("termination-by-msr", VmType::Snp, |cpu| Box::pin(termination::by_msr(cpu))),
        new("termination-by-page", VmType::Snp, |cpu| Box::pin(termination::by_page(cpu))),
        new("termination-needs-snp", VmType::SevEs, |cpu| {
            Box::pin(termination::snp_request_without_snp(cpu))
        }),
        new("td-fatal-error", VmType::Tdx, |cpu| Box::pin(tdx::calls(cpu))),
        arm64("event-with-flag", |cpu| Box::pin(plain::psci_reset2(cpu))),
        Situation {
            orders: Orders { is_32_bit: true, ..Orders::default() },
            ..arm64("event-read-by-i386", |cpu| Box::pin(plain::psci_off2(cpu)))
        },
        Situation {
            orders: Orders { ignore_events: true, ..Orders::default() },
            ..new("event-ignored", VmType::Default, |cpu| Box::pin(plain::hyperv_reset(cpu)))
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
