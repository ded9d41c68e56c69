//! Guests that ask for their end.

use exeunt_abi::Gpa;
use exeunt_abi::ghcb::{exit_code, msr};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Cpu, GuestFault};
use exeunt_proto::ghcb::MsrRequest;

/// By the MSR protocol: Linux's set, `PVALIDATE` failed.
pub(crate) async fn by_msr(cpu: Cpu) -> Result<(), GuestFault> {
    let after = cpu.vmgexit(MsrRequest::terminate(1, 2)).await?;
    cpu.saw(|| format!("GHCB MSR {after:#x}: the host let it run on"));
    Ok(())
}

/// By a GHCB page.
pub(crate) async fn by_page(cpu: Cpu) -> Result<(), GuestFault> {
    let ghcb = Ghcb::set_up(&cpu, Gpa(0x2000)).await?;
    let answer = ghcb.request(&cpu, exit_code::TERM_REQUEST, [0, 0x21], &[]).await?;
    cpu.saw(|| format!("SW_EXITINFO1 {:#x}, SW_EXITINFO2 {:#x}", answer.info_1, answer.info_2));
    Ok(())
}

/// A request that only SNP guests may make, from one that is SEV-ES.
pub(crate) async fn snp_request_without_snp(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.vmgexit(0x2000 | msr::REGISTER_GPA_REQUEST).await.map(|_| ())
}
