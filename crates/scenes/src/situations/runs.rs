//! `KVM_RUN` itself, and what a VMM knows of the kernel it runs on.

use crate::conversions::{Converter, touch};
use crate::programs::{plain, termination};
use crate::situation::{Rewrite, Situation};
use exeunt_abi::kvm::run::{ExitReason, Hypercall};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Gpa};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Fault, FaultPlan, Point, Vm};

pub(super) fn all() -> Vec<Situation> {
    let new = Situation::new;
    vec![
        Situation {
            later: Some(NEWER_EXIT),
            ..new("unknown-exit", VmType::Default, |cpu| Box::pin(plain::port_io(cpu)))
        },
        Situation {
            prepare: Some(interrupt),
            ..new("interrupted", VmType::SwProtected, |cpu| Box::pin(convert_and_touch(cpu)))
        },
        Situation {
            vcpus: 2,
            apic_in_kernel: true,
            prepare: Some(start_the_second),
            ..new("processor-that-starts", VmType::Default, |cpu| Box::pin(plain::port_io(cpu)))
        },
        Situation {
            raced: Some(|page| {
                if page.reason() == ExitReason::HYPERCALL {
                    let mut call: Hypercall = page.payload();
                    call.args[0] = OTHER_PAGE;
                    page.set_payload(&call);
                }
            }),
            ..new("page-that-changes", VmType::SwProtected, |cpu| Box::pin(convert_and_touch(cpu)))
        },
        Situation {
            vcpus: 2,
            // Where the local APICs are in the kernel the second one waits for that; elsewhere there is nobody to tell.
            prepare: Some(start_the_second),
            ..new("shutdown-of-one", VmType::Default, |cpu| Box::pin(shut_down_the_second(cpu)))
        },
        new("run-fails-with-einval", VmType::SevEs, |cpu| Box::pin(termination::by_msr(cpu)))
            .on(Dialect::Linux5_17, Arch::X86),
        new("old-kernel", VmType::Default, |cpu| Box::pin(plain::port_io(cpu)))
            .on(Dialect::Linux5_10, Arch::X86),
    ]
}

/// The first number that no kernel has given to an exit.
const UNKNOWN_EXIT: u32 = 0x40;
/// What another thread puts in the place of the address.
const OTHER_PAGE: u64 = 0x9000;

/// A newer kernel has one more reason for an exit, and brings bytes with it.
const NEWER_EXIT: Rewrite = |run, _, page| {
    if run == 2 {
        page.exit_reason = UNKNOWN_EXIT;
        page.set_bytes(0, &0x1122_3344_5566_7788u64.to_le_bytes());
    }
};

/// Signals, one of them right after an answer.
fn interrupt(vm: &Vm) {
    let plan =
        [2, 4, 5].into_iter().fold(FaultPlan::new(), |plan, nth| plan.with(Point::Act, nth, Fault::Signal));
    vm.set_fault_plan(plan);
}

/// INIT and the startup interrupt, which the second processor waits for: `KVM_RUN` gives `EAGAIN` once.
pub(super) fn start_the_second(vm: &Vm) {
    const TO_THE_SECOND: u64 = 0xfee0_1000;
    for message in [5 << 8, 6 << 8] {
        // A processor that cannot be started never leaves the guest, which the checker sees.
        let _ = vm.signal_msi(TO_THE_SECOND, message);
    }
}

/// Makes a page private and shared again, and uses it between.
async fn convert_and_touch(cpu: Cpu) -> Result<(), GuestFault> {
    let mut converter = Converter::default();
    for (attributes, access) in [(0x10, Access::Private), (0, Access::Shared)] {
        converter.map_gpa_range(&cpu, 0x4000, 1, attributes).await?;
        touch(&cpu, Gpa(0x4000), b"used", access).await?;
        cpu.read(Gpa(0x4000), 4, access).await?;
    }
    Ok(())
}

/// The first vCPU works on when the second is shut down.
async fn shut_down_the_second(cpu: Cpu) -> Result<(), GuestFault> {
    if cpu.id() == 1 {
        cpu.triple_fault().await;
    }
    // Longer than a VMM with threads takes to stop one of them.
    for _ in 0..20_000 {
        cpu.port_out(0x80, 1, 1).await?;
    }
    Ok(())
}
