//! Guests that touch memory as it is not.

use crate::programs::faults;
use crate::situation::{Orders, Rewrite, Situation};
use exeunt_abi::kvm::run::{ExitReason, MemoryFault};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gpa};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Fault, FaultPlan, Point, Vm};

pub(super) fn all() -> Vec<Situation> {
    let new = |name, guest| Situation::new(name, VmType::Snp, guest);
    let convert = Orders { convert_faults: true, ..Orders::default() };
    vec![
        Situation {
            orders: convert,
            unmapped: Some(UNMAPPED),
            ..new("fault-without-data", |cpu| Box::pin(touch_unmapped(cpu)))
        },
        Situation {
            orders: convert,
            later: Some(NEWER_FLAG),
            ..new("fault-with-unknown-flag", |cpu| Box::pin(faults::touch_shared(cpu)))
        },
        Situation {
            orders: convert,
            prepare: Some(never_change),
            ..new("fault-without-progress", |cpu| Box::pin(faults::touch_shared(cpu)))
        },
        Situation {
            orders: convert,
            prepare: Some(|vm| {
                vm.set_fault_plan(FaultPlan::new().with(Point::GmemPage, 0, Fault::Poison));
            }),
            ..new("fault-on-poison", |cpu| Box::pin(touch_private(cpu)))
        },
        Situation { orders: convert, ..new("fault-outside-memory", |cpu| Box::pin(touch_nothing(cpu))) },
        Situation { orders: convert, ..new("fault-converted", |cpu| Box::pin(faults::touch_private(cpu))) },
        new("fault-by-default", |cpu| Box::pin(faults::touch_shared(cpu))),
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
fn never_change(vm: &Vm) {
    let fails = |plan: FaultPlan, nth| plan.with(Point::AttributeChange, nth, Fault::Fails(Errno::ENOMEM));
    vm.set_fault_plan((0..1000).fold(FaultPlan::new(), fails));
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
