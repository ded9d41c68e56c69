//! Guests that nobody judges.

use crate::situation::Situation;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_model::device::Program;
use exeunt_model::guest::Cpu;

/// Exits of the scene `ports`.
pub const PORT_EXITS: u32 = 2_000_000;

/// Writes to a port, so often that what an exit costs can be told, then the end.
pub(super) fn ports() -> Situation {
    Situation::new("ports", VmType::Default, write_ports)
}

fn write_ports(cpu: Cpu) -> Program {
    Box::pin(async move {
        for _ in 0..PORT_EXITS {
            cpu.port_out(0x80, 1, 0).await?;
        }
        Ok(())
    })
}
