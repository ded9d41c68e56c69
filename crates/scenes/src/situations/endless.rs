//! Guests that do one thing for ever. They belong to no rule: costs are measured with them, and what ends a guest that
//! does not end.

use crate::situation::Situation;
use exeunt_abi::Gpa;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_model::guest::{Access, Cpu, GuestFault};

pub(super) fn all() -> Vec<Situation> {
    vec![
        Situation::new("endless-port-io", VmType::Default, |cpu| Box::pin(port_io(cpu))),
        Situation::new("endless-spin", VmType::Default, |cpu| Box::pin(spin(cpu))),
    ]
}

async fn port_io(cpu: Cpu) -> Result<(), GuestFault> {
    loop {
        cpu.port_out(0x80, 1, 0).await?;
    }
}

async fn spin(cpu: Cpu) -> Result<(), GuestFault> {
    loop {
        cpu.read_u64(Gpa(0), Access::Shared).await?;
    }
}
