//! Page-state changes that the kernel hands over undecoded, as the proposal `vmgexit-v10` did: the VMM reads the GHCB
//! and the descriptor out of guest memory by itself.

use crate::layer::trace::Observer;
use crate::memory::GuestMemory;
use crate::plan::apply_all;
use exeunt_abi::ghcb::psc::{Entry, operation, result};
use exeunt_abi::ghcb::{exit_code, msr, page, psc};
use exeunt_abi::{Gfn, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::{Conversion, PageRange, PageState};
use exeunt_proto::ghcb::MsrRequest;
use exeunt_proto::host::{Action, Host};
use exeunt_proto::reply::VmgexitReply;

/// Carries out what the GHCB MSR asks for. Anything but a page-state change is refused, because the proposal forwards
/// nothing else.
pub(crate) fn carry_out(
    ghcb_msr: u64,
    memory: &GuestMemory,
    host: &mut impl Host,
    observer: &mut impl Observer,
) -> VmgexitReply {
    match MsrRequest::decode(ghcb_msr) {
        MsrRequest::Page(ghcb) => VmgexitReply::Page(by_page(ghcb, memory, host, observer)),
        MsrRequest::Psc { operation, gfn } => {
            VmgexitReply::Msr(match convert(gfn.0, 1, operation, memory, host, observer) {
                Ok(()) => msr::PSC_RESPONSE,
                Err(_) => msr::PSC_RESPONSE_ERROR,
            })
        }
        _ => VmgexitReply::Msr(msr::PSC_RESPONSE_ERROR),
    }
}

/// Bytes of a GHCB.
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_SIZE);

/// A copy of the GHCB. The guest can change the page at any time, so it is read once and everything is decided on the
/// copy; KVM has cleared the valid bitmap by now.
struct Copy([u8; PAGE]);

impl Copy {
    fn word(&self, offset: u64) -> Option<u64> {
        let bytes = self.0.get(usize::try_from(offset).ok()?..)?;
        bytes.first_chunk().map(|word| u64::from_le_bytes(*word))
    }
}

fn by_page(ghcb: Gpa, memory: &GuestMemory, host: &mut impl Host, observer: &mut impl Observer) -> u64 {
    let mut copy = Copy([0; PAGE]);
    if host.read_guest(ghcb, &mut copy.0).is_err() {
        return result::GENERIC;
    }
    let field = |field: page::Field| copy.word(u64::from(field.offset));
    if field(page::SW_EXIT_CODE) != Some(exit_code::PSC) {
        return result::GENERIC;
    }
    let Some(start) = field(page::SW_SCRATCH).and_then(|scratch| scratch.checked_sub(ghcb.0)) else {
        return result::GENERIC;
    };
    let room = page::SHARED_BUFFER_END.checked_sub(start).filter(|_| start >= page::SHARED_BUFFER);
    let Some(room) = room.and_then(|room| room.checked_sub(psc::HEADER_BYTES)) else {
        return result::GENERIC;
    };
    let descriptor = Descriptor { copy, ghcb, start };
    let header = descriptor.copy.word(start).unwrap_or(0);
    let (cur, end) = (header & 0xffff, header >> 16 & 0xffff);
    if end >= room / psc::ENTRY_BYTES {
        return result::INVALID_HDR;
    }
    for index in cur..=end {
        if let Err(code) = descriptor.do_entry(index, memory, host, observer) {
            return code;
        }
    }
    result::SUCCESS
}

/// The descriptor in the copied page.
struct Descriptor {
    copy: Copy,
    ghcb: Gpa,
    /// Bytes from the start of the page.
    start: u64,
}

impl Descriptor {
    fn offset_of(&self, index: u64) -> u64 {
        self.start.saturating_add(psc::HEADER_BYTES).saturating_add(index.saturating_mul(psc::ENTRY_BYTES))
    }

    /// Converts what is left of one entry, then says in the guest's descriptor that it is done.
    fn do_entry(
        &self,
        index: u64,
        memory: &GuestMemory,
        host: &mut impl Host,
        observer: &mut impl Observer,
    ) -> Result<(), u64> {
        let entry = Entry(self.copy.word(self.offset_of(index)).unwrap_or(0));
        let full = entry.pages();
        if entry.cur_page() > full || entry.gfn() & full.saturating_sub(1) != 0 {
            return Err(result::INVALID_ENTRY);
        }
        let left = full.saturating_sub(entry.cur_page());
        if left > 0 {
            let gfn = entry.gfn().saturating_add(entry.cur_page());
            convert(gfn, left, entry.operation(), memory, host, observer)?;
        }
        let at = |offset: u64| Gpa(self.ghcb.0.saturating_add(offset));
        let done = entry.with_cur_page(full).0.to_le_bytes();
        let [low, high, ..] = index.saturating_add(1).to_le_bytes();
        let progress = [
            Action::WriteGuest { gpa: at(self.offset_of(index)), bytes: &done },
            Action::WriteGuest { gpa: at(self.start), bytes: &[low, high] },
        ];
        apply_all(progress.into_iter(), host, observer).map_err(|_| result::GENERIC)
    }
}

/// Converts a run of pages. The error is the result of the whole request.
fn convert(
    gfn: u64,
    pages: u64,
    operation: u8,
    memory: &GuestMemory,
    host: &mut impl Host,
    observer: &mut impl Observer,
) -> Result<(), u64> {
    let to = match operation {
        operation::PRIVATE => PageState::Private,
        operation::SHARED => PageState::Shared,
        _ => return Err(result::INVALID_ENTRY),
    };
    let range = PageRange::new(Gfn(gfn), pages).ok_or(result::INVALID_ENTRY)?;
    let conversion = Conversion { range, to };
    if !memory.allows(conversion) {
        return Err(result::GENERIC);
    }
    memory.convert(conversion, host, observer).map_err(|_| result::GENERIC)
}

#[cfg(test)]
mod tests;
