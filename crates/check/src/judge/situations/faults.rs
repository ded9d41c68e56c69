//! Guests that touch memory as it is not.

use crate::judge::machine::{Machine, SHARED_BASE};
use crate::judge::situation::{Orders, Rewrite, Situation};
use crate::programs::faults;
use exeunt_abi::kvm::run::{ExitReason, MemoryFault};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gpa};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Fault, FaultPlan, Point, Protection};

pub(super) fn all() -> Vec<Situation> {
    let new = |name, guest| Situation::new(name, VmType::Snp, guest);
    let convert = Orders { convert_faults: true, ..Orders::default() };
    vec![
        Situation {
            orders: convert,
            prepare: Some(|machine| machine.user.protect(SHARED_BASE + UNMAPPED.0, Protection::None)),
            ..new("fault-without-data", |vm, seed| vm.create_vcpu(seed, touch_unmapped))
        },
        Situation {
            orders: convert,
            later: Some(NEWER_FLAG),
            ..new("fault-with-unknown-flag", |vm, seed| vm.create_vcpu(seed, faults::touch_shared))
        },
        Situation {
            orders: convert,
            prepare: Some(never_change),
            ..new("fault-without-progress", |vm, seed| vm.create_vcpu(seed, faults::touch_shared))
        },
        Situation {
            orders: convert,
            prepare: Some(|machine| {
                machine.vm.set_fault_plan(FaultPlan::new().with(Point::GmemPage, 0, Fault::Poison));
            }),
            ..new("fault-on-poison", |vm, seed| vm.create_vcpu(seed, touch_private))
        },
        Situation {
            orders: convert,
            ..new("fault-outside-memory", |vm, seed| vm.create_vcpu(seed, touch_nothing))
        },
        Situation {
            orders: convert,
            ..new("fault-converted", |vm, seed| vm.create_vcpu(seed, faults::touch_private))
        },
        new("fault-by-default", |vm, seed| vm.create_vcpu(seed, faults::touch_shared)),
    ]
}

/// A page of the guest that the process does not map.
const UNMAPPED: Gpa = Gpa(0x8000);

/// A newer kernel has one more flag.
const NEWER_FLAG: Rewrite = |_, _, page| {
    if page.reason() == ExitReason::MEMORY_FAULT {
        let fault: MemoryFault = page.payload();
        page.set_payload(&MemoryFault { flags: fault.flags | 0x10, ..fault });
    }
};

/// No change of attributes ever succeeds.
fn never_change(machine: &Machine) {
    let fails = |plan: FaultPlan, nth| plan.with(Point::AttributeChange, nth, Fault::Fails(Errno::ENOMEM));
    machine.vm.set_fault_plan((0..1000).fold(FaultPlan::new(), fails));
}

/// A private page as if it were shared. When it is, the host does not have it, and what it said of it is stale.
async fn touch_unmapped(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.write(UNMAPPED, b"x", Access::Shared).await
}

async fn touch_private(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.pvalidate(Gpa(0x5000), true).await.map(|_| ())
}

async fn touch_nothing(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.write(Gpa(0x9000_0000), b"x", Access::Private).await
}
