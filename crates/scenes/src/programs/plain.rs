//! Guests without encryption: port I/O, halts, hypercalls, system events.

use exeunt_abi::Gpa;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_model::guest::{Access, Cpu, GuestFault};

/// Writes "exeunt" to the serial port, reads a byte from port 0x60, and writes it to port 0x80.
pub(crate) async fn port_io(cpu: Cpu) -> Result<(), GuestFault> {
    for byte in *b"exeunt" {
        cpu.port_out(0x3f8, 1, u32::from(byte)).await?;
    }
    let value = cpu.port_in(0x60, 1).await?;
    cpu.saw(|| format!("{value:#x} in RAX"));
    cpu.port_out(0x80, 1, u32::try_from(value & 0xff).unwrap_or(0)).await
}

/// Halts, again and again.
pub(crate) async fn hlt(cpu: Cpu) -> Result<(), GuestFault> {
    loop {
        cpu.hlt().await;
    }
}

/// Raises an exception that nothing handles.
pub(crate) async fn shutdown(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.triple_fault().await;
    Ok(())
}

/// Touches memory for ever.
pub(crate) async fn spin(cpu: Cpu) -> Result<(), GuestFault> {
    loop {
        cpu.read_u64(Gpa(0), Access::Shared).await?;
    }
}

/// Asks for conversions by `VMMCALL`: one that can be done, one that is unaligned, one for memory it does not have.
pub(crate) async fn map_gpa_range(cpu: Cpu) -> Result<(), GuestFault> {
    for args in [[0x4000, 2, 0x10, 0], [0x4001, 1, 0x10, 0], [1 << 46, 1, 0x10, 0]] {
        let rax = cpu.vmmcall(MAP_GPA_RANGE, args).await?;
        cpu.saw(|| format!("RAX = {rax:#x}"));
    }
    let rax = cpu.vmmcall(99, [0; 4]).await?;
    cpu.saw(|| format!("RAX = {rax:#x}"));
    Ok(())
}

/// Leaves bytes in the union by a port write, then asks for a reset.
pub(crate) async fn hyperv_reset(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.port_out(0x3f8, 1, 0x2e).await?;
    cpu.hyperv_reset().await
}

/// `SYSTEM_OFF`.
pub(crate) async fn psci_off(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.psci(0x8400_0008, [0; 3]).await.map(|_| ())
}

/// `SYSTEM_RESET`.
pub(crate) async fn psci_reset(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.psci(0x8400_0009, [0; 3]).await.map(|_| ())
}

/// `SYSTEM_RESET2`, first with a type that is not allowed, then as an architectural warm reset with a cookie.
pub(crate) async fn psci_reset2(cpu: Cpu) -> Result<(), GuestFault> {
    for kind in [1, 0] {
        let x0 = cpu.psci(0xc400_0012, [kind, 0xc0_0c1e, 0]).await?;
        cpu.saw(|| format!("x0 = {x0:#x}"));
    }
    Ok(())
}

/// `SYSTEM_OFF2`: hibernate.
pub(crate) async fn psci_off2(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.psci(0xc400_0015, [1, 0, 0]).await.map(|_| ())
}
