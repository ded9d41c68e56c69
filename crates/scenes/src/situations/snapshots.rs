//! A triple fault that is pending while a vCPU is saved or restored.

use crate::programs::plain;
use crate::situation::{Orders, Situation, Task};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Kernel};
use exeunt_model::Vcpu;

pub(super) fn all() -> Vec<Situation> {
    let new = |name, task| Situation {
        orders: Orders { task, ..Orders::default() },
        ..Situation::new(name, VmType::Default, |cpu| Box::pin(plain::port_io(cpu)))
    };
    let pending: Option<fn(&mut Vcpu)> = Some(Vcpu::raise_triple_fault);
    // Its events have no triple fault.
    let old = Some(Kernel { dialect: Dialect::Linux5_17, arch: Arch::X86 });
    vec![
        Situation { prepare_vcpu: pending, ..new("save-triple-fault", Task::Migrate) },
        Situation { prepare_vcpu: pending, target: old, ..new("restore-without-218", Task::Migrate) },
        Situation { prepare_vcpu: pending, ..new("save-and-run-on", Task::SaveTwice) },
        Situation { prepare_vcpu: pending, ..new("restore-over-a-triple-fault", Task::GoBack) },
        Situation { target: old, ..new("restore-nothing-without-218", Task::Migrate) },
    ]
}
