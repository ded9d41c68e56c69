//! What must hold after each step of a world, and at its end.

use super::devices::Devices;
use super::ledger::{Ledger, OWN_PAGES, Page};
use exeunt_abi::kvm::run::RunPage;
use exeunt_model::{Met, Point, Vcpu, Vm};
use exeunt_proto::conversion::PageState;
use zerocopy::IntoBytes;

/// What a guest was told of a page is what the attributes say, and the host does not read what is private.
pub(super) fn told_and_true(ledger: &Ledger, vm: &Vm) -> Result<(), String> {
    for page in OWN_PAGES {
        let gfn = ledger.gfn(page);
        let attribute = vm.page_state(gfn);
        let (told, word) = match ledger.page(page) {
            Page::Unknown => continue,
            Page::Private(word) => (PageState::Private, word),
            Page::Shared(word) => (PageState::Shared, word),
        };
        if attribute != told {
            return Err(format!("guest {} was told that {gfn} is {told}, it is {attribute}", ledger.id));
        }
        let Some(word) = word else { continue };
        let mut bytes = [0; 8];
        vm.read_shared(gfn.gpa(), &mut bytes).map_err(|errno| format!("{gfn} cannot be read: {errno}"))?;
        let host_sees = u64::from_le_bytes(bytes) == word;
        if host_sees != (told == PageState::Shared) {
            let verb = if host_sees { "sees" } else { "does not see" };
            return Err(format!("the host {verb} what guest {} wrote to {told} {gfn}", ledger.id));
        }
    }
    Ok(())
}

/// Each exit that waits for an answer was completed once, or waits still; after a drain none waits.
pub(super) fn completions(vcpu: &Vcpu, is_drained: bool) -> Result<(), String> {
    let (made, taken) = vcpu.completions();
    let waiting = made.wrapping_sub(taken);
    if waiting > 1 || (is_drained && waiting != 0) {
        return Err(format!("vCPU {}: {made} exits want an answer, {taken} were completed", vcpu.id()));
    }
    Ok(())
}

/// Whether a VMM may have to stop after these faults: a private page or an answer of the firmware could not be had.
pub(super) fn excuse_a_stop(faults: &[Met]) -> bool {
    faults.iter().any(|met| matches!(met.point, Point::GmemPage | Point::FirmwareCommand))
}

/// Every word that a guest wrote to its device arrived, and no other.
pub(super) fn written_and_received(ledgers: &[Ledger], devices: &Devices) -> Result<(), String> {
    ledgers.iter().try_for_each(|ledger| {
        let (sent, received) = (ledger.sent(), devices.received(ledger.id));
        if sent == received {
            return Ok(());
        }
        Err(format!("guest {} wrote {sent} words to its device, {received} arrived", ledger.id))
    })
}

/// FNV-1a over the run page of a vCPU, continued from `digest`.
///
/// Source: RFC 9923, section 2.
pub(super) fn digest(digest: u64, vcpu: u64, page: &RunPage) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    let start = vcpu.to_le_bytes().into_iter().fold(digest ^ OFFSET_BASIS, step);
    page.as_bytes().iter().copied().fold(start, step)
}
