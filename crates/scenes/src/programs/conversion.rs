//! SNP guests that change the state of their pages.

use exeunt_abi::Gpa;
use exeunt_abi::ghcb::msr;
use exeunt_abi::ghcb::psc::{Entry, operation};
use exeunt_model::guest::snp::{Ghcb, accept_page, page_at};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_proto::ghcb::MsrRequest;

/// The GHCB.
const GHCB: Gpa = Gpa(0x2000);
/// The pages that change, 2 MiB aligned.
const PAGES: Gpa = Gpa(0x20_0000);

/// One page, each vCPU its own, through its life: private with a secret, shared, private again.
pub(crate) async fn by_msr(cpu: Cpu) -> Result<(), GuestFault> {
    let page = page_at(PAGES, cpu.id());
    let response = accept_page(&cpu, page.gfn()).await?;
    cpu.saw(|| format!("GHCB MSR {response:#x}"));
    cpu.write(page, b"secret", Access::Private).await?;
    let response = cpu.vmgexit(MsrRequest::psc(page.gfn(), operation::SHARED)).await?;
    cpu.saw(|| format!("GHCB MSR {response:#x}"));
    let shared = cpu.read(page, 6, Access::Shared).await?;
    cpu.saw(|| format!("{shared:?} in the shared page"));
    cpu.write(page, b"public", Access::Shared).await?;
    accept_page(&cpu, page.gfn()).await?;
    let private = cpu.read(page, 6, Access::Private).await?;
    cpu.saw(|| format!("{private:?} in the private page, the secret is gone"));
    let response = cpu.vmgexit(MsrRequest::psc(page.gfn(), 3)).await?;
    cpu.saw(|| format!("GHCB MSR {response:#x} for operation 3"));
    Ok(())
}

/// Runs of entries: three that are adjacent, one of 2 MiB, one with an operation that does not exist, one that is
/// half done, one in the other direction.
fn mixed_entries() -> Vec<Entry> {
    let gfn = |index| page_at(PAGES, index).gfn().0;
    vec![
        Entry::new(gfn(0), operation::SHARED, false),
        Entry::new(gfn(1), operation::SHARED, false),
        Entry::new(gfn(2), operation::SHARED, false),
        Entry::new(gfn(512), operation::SHARED, true),
        Entry::new(gfn(3), 3, false),
        Entry::new(gfn(1024), operation::SHARED, true).with_cur_page(510),
        Entry::new(gfn(2), operation::PRIVATE, false),
    ]
}

/// All runs of a mixed request.
pub(crate) async fn by_page(cpu: Cpu) -> Result<(), GuestFault> {
    convert(cpu, &mixed_entries()).await
}

/// The same without the operation that does not exist, which a host may refuse.
pub(crate) async fn known_by_page(cpu: Cpu) -> Result<(), GuestFault> {
    let mut entries = mixed_entries();
    entries.retain(|entry| entry.operation() != 3);
    convert(cpu, &entries).await
}

async fn convert(cpu: Cpu, entries: &[Entry]) -> Result<(), GuestFault> {
    let ghcb = Ghcb::set_up(&cpu, GHCB).await?;
    let answer = ghcb.page_state_change(&cpu, entries).await?;
    let current = ghcb.current_entry(&cpu).await?;
    cpu.saw(|| format!("SW_EXITINFO2 {:#x}, cur_entry {current}", answer.info_2));
    let shared = cpu.read(PAGES, 4, Access::Shared).await?;
    cpu.saw(|| format!("{shared:?} in the first shared page"));
    let carry = cpu.pvalidate(page_at(PAGES, 2), true).await?;
    cpu.saw(|| format!("PVALIDATE of the page made private again: already valid {carry}"));
    Ok(())
}

/// As a Linux guest does: a request that fails is the end.
pub(crate) async fn or_terminate(cpu: Cpu) -> Result<(), GuestFault> {
    let ghcb = Ghcb::set_up(&cpu, GHCB).await?;
    let answer = ghcb.page_state_change(&cpu, &mixed_entries()).await?;
    let current = ghcb.current_entry(&cpu).await?;
    cpu.saw(|| format!("SW_EXITINFO2 {:#x}, cur_entry {current}", answer.info_2));
    if answer.info_2 != 0 {
        // GHCB_TERM_PSC of Linux's set.
        cpu.vmgexit(msr::TERMINATE_REQUEST | 1 << 12 | 1 << 16).await?;
    }
    Ok(())
}
