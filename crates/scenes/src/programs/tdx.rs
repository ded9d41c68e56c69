//! TDs: conversions, calls, and what goes wrong.

use exeunt_abi::Gpa;
use exeunt_abi::ghci::{Status, leaf};
use exeunt_model::guest::tdx::{TdRegs, accept_range, map_gpa, report_fatal_error};
use exeunt_model::guest::{Access, Cpu, GuestFault};

/// Pages that change, not on a border of 2 MiB.
const PAGES: Gpa = Gpa(0x20_1000);
/// How much of them: two chunks and a half.
const BYTES: u64 = 5 << 20;

/// Five MiB through their life: private with a secret, shared, private again. Each step is one that a Linux guest gives up
/// at when it fails.
pub(crate) async fn convert(cpu: Cpu) -> Result<(), GuestFault> {
    let shared = cpu.tdg_vp_info().await?.shared(PAGES);
    let accepted = accept_range(&cpu, PAGES, 0x2000).await?;
    cpu.write(PAGES, b"secret", Access::Private).await?;
    cpu.saw(|| format!("{accepted} of TDG.MEM.PAGE.ACCEPT"));
    if !converted(&cpu, shared, "shared").await? {
        return report_fatal_error(&cpu, 1, b"MapGPA failed").await;
    }
    let host_sees = cpu.read(PAGES, 6, Access::Shared).await?;
    cpu.saw(|| format!("{host_sees:?} in the shared page"));
    if !converted(&cpu, PAGES.0, "private").await? {
        return report_fatal_error(&cpu, 2, b"MapGPA failed").await;
    }
    accept_range(&cpu, PAGES, 0x1000).await?;
    let private = cpu.read(PAGES, 6, Access::Private).await?;
    cpu.saw(|| format!("{private:?} in the private page, the secret is gone"));
    Ok(())
}

async fn converted(cpu: &Cpu, gpa: u64, to: &str) -> Result<bool, GuestFault> {
    let status = map_gpa(cpu, gpa, BYTES).await?;
    cpu.saw(|| format!("{status} of MapGPA to {to}"));
    Ok(status == Status::SUCCESS)
}

/// Makes the calls that userspace answers, and one that nobody knows, and gives up.
pub(crate) async fn calls(cpu: Cpu) -> Result<(), GuestFault> {
    let buffer = cpu.tdg_vp_info().await?.shared(Gpa(0x30_0000));
    for (name, leaf, args) in [
        ("GetTdVmCallInfo 0", leaf::GET_TD_VM_CALL_INFO, [0; 4]),
        ("GetTdVmCallInfo 1", leaf::GET_TD_VM_CALL_INFO, [1, 0, 0, 0]),
        ("GetQuote", leaf::GET_QUOTE, [buffer, 0x4000, 0, 0]),
        ("GetQuote into private memory", leaf::GET_QUOTE, [0x30_0000, 0x4000, 0, 0]),
        ("SetupEventNotifyInterrupt 31", leaf::SETUP_EVENT_NOTIFY_INTERRUPT, [31, 0, 0, 0]),
        ("SetupEventNotifyInterrupt 64", leaf::SETUP_EVENT_NOTIFY_INTERRUPT, [64, 0, 0, 0]),
        ("leaf 0x1ffff", 0x1_ffff, [0; 4]),
    ] {
        let regs = cpu.tdvmcall(leaf, args).await?;
        cpu.saw(|| format!("{} of {name}", regs.status()));
    }
    let serial = cpu.tdvmcall(leaf::IO, [1, 1, 0x3f8, u64::from(b'!')]).await?;
    cpu.saw(|| format!("{} of IO", serial.status()));
    report_fatal_error(&cpu, 0xdead, b"no quote, no \"service\"").await
}

/// Touches private memory that it did not accept.
pub(crate) async fn touch_unaccepted(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.write(PAGES, b"x", Access::Private).await
}

/// Measures an event and asks for a report of itself.
pub(crate) async fn report(cpu: Cpu) -> Result<(), GuestFault> {
    accept_range(&cpu, PAGES, 0x1000).await?;
    let extended = cpu.tdg_mr_rtmr_extend(PAGES, 3).await?;
    cpu.saw(|| format!("{extended} of TDG.MR.RTMR.EXTEND"));
    let reported = cpu.tdg_mr_report(PAGES.0, PAGES.0.wrapping_add(0x400)).await?;
    let mrtd = cpu.read(Gpa(PAGES.0.wrapping_add(512 + 16)), 4, Access::Private).await?;
    cpu.saw(|| format!("{reported} of TDG.MR.REPORT, MRTD begins with {mrtd:02x?}"));
    let unknown = cpu.tdcall(TdRegs { rax: 99, ..TdRegs::default() }).await?;
    cpu.saw(|| format!("{} of leaf 99", unknown.completion()));
    Ok(())
}
