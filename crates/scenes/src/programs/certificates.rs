//! SNP guests that ask for an attestation report with certificates.

use exeunt_abi::Gpa;
use exeunt_abi::ghcb::exit_code::EXT_GUEST_REQUEST;
use exeunt_abi::ghcb::guest_message::{MSG_REPORT_REQ, MSG_TYPE, vmm_error};
use exeunt_abi::ghcb::page;
use exeunt_abi::ghcb::psc::{Entry, operation};
use exeunt_model::guest::snp::{Answer, Ghcb, page_at};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_proto::certs::Table;

/// The GHCB.
const GHCB: Gpa = Gpa(0x2000);
/// The request page; the response page follows, then the buffer for certificates.
const REQUEST: Gpa = Gpa(0x10_0000);
/// Pages of the buffer that the guest shares with the host.
pub(crate) const BUFFER_PAGES: u64 = 4;

/// A GHCB and shared pages for request, response and certificates.
pub(crate) async fn set_up(cpu: &Cpu) -> Result<Ghcb, GuestFault> {
    let ghcb = Ghcb::set_up(cpu, GHCB).await?;
    let entries: Vec<_> = (0..BUFFER_PAGES + 2)
        .map(|index| Entry::new(page_at(REQUEST, index).gfn().0, operation::SHARED, false))
        .collect();
    ghcb.page_state_change(cpu, &entries).await?;
    cpu.write(Gpa(REQUEST.0 + MSG_TYPE), &[MSG_REPORT_REQ], Access::Shared).await?;
    Ok(ghcb)
}

/// Asks with room for `pages` pages.
pub(crate) async fn ask(cpu: &Cpu, ghcb: &Ghcb, pages: u64) -> Result<Answer, GuestFault> {
    ask_at(cpu, ghcb, page_at(REQUEST, 2), pages).await
}

/// Asks with room for `pages` pages at an address.
pub(crate) async fn ask_at(cpu: &Cpu, ghcb: &Ghcb, buffer: Gpa, pages: u64) -> Result<Answer, GuestFault> {
    let response = page_at(REQUEST, 1);
    let fields = [(page::RAX, buffer.0), (page::RBX, pages)];
    let answer = ghcb.request(cpu, EXT_GUEST_REQUEST, [REQUEST.0, response.0], &fields).await?;
    cpu.saw(|| {
        format!("room for {pages}: SW_EXITINFO2 {:#x} ({}), RBX {}", answer.info_2, text(&answer), answer.rbx)
    });
    Ok(answer)
}

fn text(answer: &Answer) -> String {
    match (answer.info_2 & !0xffff_ffff, answer.info_2 & 0xffff_ffff) {
        (0, 0) => "success".into(),
        (0, status) => format!("firmware status {status:#x}"),
        (vmm_error::INVALID_LEN, _) => "buffer too small".into(),
        (vmm_error::BUSY, _) => "busy, come back".into(),
        (vmm_error::GENERIC, _) => "failed".into(),
        (0x8000_0000_0000_0000, _) => "failed, in the words of 2024".into(),
        (other, _) => format!("unknown {other:#x}"),
    }
}

/// Asks without room, then with the room that it was told to have, and looks at what it got.
pub(crate) async fn grow_the_buffer(cpu: Cpu) -> Result<(), GuestFault> {
    let ghcb = set_up(&cpu).await?;
    let mut pages = 0;
    for _ in 0..3 {
        let answer = ask(&cpu, &ghcb, pages).await?;
        if answer.info_2 != vmm_error::INVALID_LEN {
            break;
        }
        pages = answer.rbx;
    }
    let bytes = usize::try_from(BUFFER_PAGES * 4096).unwrap_or(0);
    let buffer = cpu.read(page_at(REQUEST, 2), bytes, Access::Shared).await?;
    cpu.saw(|| match Table::parse(&buffer) {
        Ok(table) => {
            let certificate = |certificate: exeunt_proto::certs::Certificate<'_>| {
                let name = certificate.guid.name().unwrap_or("unknown");
                format!("{name} of {} bytes", certificate.bytes.len())
            };
            format!("certificates: {}", table.certificates().map(certificate).collect::<Vec<_>>().join(", "))
        }
        Err(error) => error.to_string(),
    });
    Ok(())
}

/// Asks once with all the room it has.
pub(crate) async fn once(cpu: Cpu) -> Result<(), GuestFault> {
    let ghcb = set_up(&cpu).await?;
    ask(&cpu, &ghcb, BUFFER_PAGES).await.map(|_| ())
}
