//! An SNP guest that gets an attestation report with its certificates and verifies both.

use exeunt_abi::ghcb::guest_message::vmm_error;
use exeunt_abi::ghcb::psc::{Entry, operation};
use exeunt_abi::psp::message::{KeyRequest, guest_field};
use exeunt_abi::{Gpa, PAGE_SIZE};
use exeunt_model::guest::message::{Channel, Pages, Reply};
use exeunt_model::guest::snp::{Ghcb, page_at};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::psp::Verifier;
use exeunt_proto::certs::{self, Guid, Table};
use exeunt_proto::report::Report;
use zerocopy::FromZeros as _;

/// The GHCB.
const GHCB: Gpa = Gpa(0x2000);
/// The page that the firmware fills with keys.
pub(super) const SECRETS: Gpa = Gpa(0x4000);
/// The request page; the response page follows, then the buffer for certificates.
const REQUEST: Gpa = Gpa(0x10_0000);
/// Pages of the buffer that the guest shares with the host.
const BUFFER_PAGES: u64 = 4;

/// Asks for a report without room for certificates, then with the room that it was told to have, verifies what it gets, and
/// derives a key.
pub(crate) async fn run(cpu: Cpu) -> Result<(), GuestFault> {
    let ghcb = Ghcb::set_up(&cpu, GHCB).await?;
    let shared: Vec<_> = (0..BUFFER_PAGES + 2)
        .map(|index| Entry::new(page_at(REQUEST, index).gfn().0, operation::SHARED, false))
        .collect();
    ghcb.page_state_change(&cpu, &shared).await?;
    let mut channel = Channel::from_secrets(&cpu, SECRETS, 0).await?;
    let pages = Pages { request: REQUEST, response: page_at(REQUEST, 1) };
    let buffer = page_at(REQUEST, 2);
    let mut data = [0; 64];
    data.fill_with(|| cpu.random().to_le_bytes()[0]);
    let mut room = 0;
    for _ in 0..3 {
        // A request that was not carried out leaves the sequence number, so the same message is sent again.
        match channel.report(&cpu, &ghcb, pages, Some((buffer, room)), data).await? {
            Reply::Refused(answer) if answer.info_2 == vmm_error::INVALID_LEN => {
                cpu.saw(|| format!("room for {room}: buffer too small, RBX {}", answer.rbx));
                room = answer.rbx.min(BUFFER_PAGES);
            }
            Reply::Payload(payload, _) => {
                let bytes = usize::try_from(room * PAGE_SIZE).unwrap_or(0);
                let table = cpu.read(buffer, bytes, Access::Shared).await?;
                cpu.saw(|| verdict(&payload, &table, data));
                break;
            }
            Reply::Refused(answer) => {
                cpu.saw(|| format!("no report: SW_EXITINFO2 {:#x}", answer.info_2));
                return Ok(());
            }
            Reply::NotAuthentic(_) => {
                cpu.saw(|| "a response that is not authentic".into());
                return Ok(());
            }
        }
    }
    let mut request = KeyRequest::new_zeroed();
    request.guest_field_select = guest_field::MEASUREMENT | guest_field::GUEST_POLICY;
    let key = channel.derive_key(&cpu, &ghcb, pages, &request).await?;
    cpu.saw(|| if key.is_some() { "a derived key".into() } else { "no derived key".into() });
    Ok(())
}

/// What a verifier says that trusts the root in the table, as only a test may.
fn verdict(payload: &[u8], table: &[u8], data: [u8; 64]) -> String {
    let report = match Report::parse_response(payload) {
        Ok(report) => report,
        Err(error) => return error.to_string(),
    };
    let table = match Table::parse(table) {
        Ok(table) => table,
        Err(error) => return error.to_string(),
    };
    let find = |guid: Guid| {
        table.certificates().find(|certificate| certificate.guid == guid).map(|found| found.bytes)
    };
    let (Some(ark), Some(ask), Some(vcek)) = (find(certs::ARK), find(certs::ASK), find(certs::VCEK)) else {
        return "a table without the chain".into();
    };
    let verifier = Verifier { ark, allow_simulated: true };
    match verifier.verify(report.bytes(), ask, vcek) {
        Ok(known) if known.wire.report_data == data => {
            format!("a report of version {} that holds, over the data of the guest", report.version())
        }
        Ok(_) => "a report over other data".into(),
        Err(error) => format!("a report that does not hold: {error}"),
    }
}
