use super::*;
use crate::memory::{MemorySlot, PageInfo};
use exeunt_abi::Errno;

const GHCB: Gpa = Gpa(0x2000);

/// Guest memory of one page, and what was done.
struct Guest {
    page: [u8; PAGE],
    done: Vec<String>,
    fail_at: Option<usize>,
}

impl Guest {
    /// A GHCB with a page-state change whose descriptor starts at `start`.
    fn new(start: u64, cur: u64, end: u64, entries: &[Entry]) -> Self {
        let mut guest = Self { page: [0; PAGE], done: Vec::new(), fail_at: None };
        guest.put(u64::from(page::SW_EXIT_CODE.offset), exit_code::PSC);
        guest.put(u64::from(page::SW_SCRATCH.offset), GHCB.0.wrapping_add(start));
        if start <= 0xff8 {
            guest.put(start, cur | end << 16);
        }
        for (index, entry) in entries.iter().enumerate() {
            guest.put(start + 8 + 8 * index as u64, entry.0);
        }
        guest
    }

    fn put(&mut self, offset: u64, word: u64) {
        let at = usize::try_from(offset).unwrap();
        self.page[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }

    fn word(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.page[offset..offset + 8].try_into().unwrap())
    }
}

impl Host for Guest {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        if let Action::WriteGuest { gpa, bytes } = action {
            let at = usize::try_from(gpa.0 - GHCB.0).unwrap();
            self.page[at..at + bytes.len()].copy_from_slice(bytes);
            return Ok(());
        }
        if self.fail_at == Some(self.done.len()) {
            return Err(Errno::ENOMEM);
        }
        self.done.push(format!("{action:?}"));
        Ok(())
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        if gpa != GHCB {
            return Err(Errno::EFAULT);
        }
        bytes.copy_from_slice(&self.page);
        Ok(())
    }
}

/// All pages are private but those that an entry makes so.
fn memory() -> GuestMemory {
    let range = PageRange::new(Gfn(0), 0x1000).unwrap();
    let memory = GuestMemory::new([MemorySlot { range, has_private: true }]).unwrap();
    memory.assume(range, PageInfo::fresh(PageState::Private));
    let range = PageRange::new(Gfn(0x200), 0x200).unwrap();
    memory.assume(range, PageInfo::fresh(PageState::Shared));
    memory
}

fn answer(guest: &mut Guest) -> VmgexitReply {
    carry_out(GHCB.0, &memory(), guest, &mut ())
}

#[test]
fn every_entry_is_converted_and_marked_and_a_half_done_one_gets_the_rest() {
    let entries = [
        Entry::new(0x100, operation::SHARED, false),
        Entry::new(0x200, operation::PRIVATE, true).with_cur_page(510),
        Entry::new(0x400, operation::SHARED, false).with_cur_page(1),
    ];
    let mut guest = Guest::new(0x800, 0, 2, &entries);
    assert_eq!(answer(&mut guest), VmgexitReply::Page(result::SUCCESS));
    assert_eq!(guest.done.len(), 4, "{:?}", guest.done);
    assert!(guest.done[2].contains("gfn: Gfn(1022), pages: 2"), "{:?}", guest.done);
    assert_eq!(guest.word(0x800) & 0xffff, 3, "cur_entry");
    for (index, full) in [1, 512, 1].into_iter().enumerate() {
        assert_eq!(Entry(guest.word(0x808 + 8 * index)).cur_page(), full);
    }
}

#[test]
fn a_request_that_fails_keeps_the_progress_that_it_made() {
    let entries = [Entry::new(0x100, operation::SHARED, false), Entry::new(0x101, operation::SHARED, false)];
    let mut guest = Guest::new(0x800, 0, 1, &entries);
    guest.fail_at = Some(2);
    assert_eq!(answer(&mut guest), VmgexitReply::Page(result::GENERIC));
    assert_eq!(guest.word(0x800) & 0xffff, 1, "cur_entry is the entry that failed");
    assert_eq!(Entry(guest.word(0x810)).cur_page(), 0);
}

#[test]
fn what_a_guest_may_get_wrong_is_answered() {
    let good = Entry::new(0x100, operation::SHARED, false);
    let cases = [
        (0x800, 0, 253, good, result::INVALID_HDR),
        (0xfe8, 0, 0, good, result::INVALID_HDR),
        (0xff0, 0, 0, good, result::GENERIC),
        (0x7f8, 0, 0, good, result::GENERIC),
        (0x800, 1, 0, good, result::SUCCESS),
        (0x800, 0, 0, good.with_cur_page(2), result::INVALID_ENTRY),
        (0x800, 0, 0, Entry::new(0x101, operation::SHARED, true), result::INVALID_ENTRY),
        (0x800, 0, 0, Entry::new(0x100, 3, false), result::INVALID_ENTRY),
        (0x800, 0, 0, Entry::new(0x2000, operation::PRIVATE, false), result::GENERIC),
    ];
    for (start, cur, end, entry, expected) in cases {
        let entries = if start > 0xf00 { &[][..] } else { &[entry][..] };
        let mut guest = Guest::new(start, cur, end, entries);
        assert_eq!(answer(&mut guest), VmgexitReply::Page(expected), "{start:#x} {cur} {end} {entry:?}");
        assert!(guest.done.is_empty());
    }
    for scratch in [0, u64::MAX, GHCB.0 - 8] {
        let mut guest = Guest::new(0x800, 0, 0, &[good]);
        guest.put(u64::from(page::SW_SCRATCH.offset), scratch);
        assert_eq!(answer(&mut guest), VmgexitReply::Page(result::GENERIC));
    }
    let mut guest = Guest::new(0x800, 0, 0, &[good]);
    guest.put(u64::from(page::SW_EXIT_CODE.offset), exit_code::GUEST_REQUEST);
    assert_eq!(answer(&mut guest), VmgexitReply::Page(result::GENERIC));
    let elsewhere = carry_out(0x9000, &memory(), &mut guest, &mut ());
    assert_eq!(elsewhere, VmgexitReply::Page(result::GENERIC), "a page that cannot be read");
}

#[test]
fn a_request_by_msr_gets_a_response_by_msr() {
    let mut guest = Guest::new(0x800, 0, 0, &[]);
    let mut ask = |msr| carry_out(msr, &memory(), &mut guest, &mut ());
    for (operation, response) in
        [(1, msr::PSC_RESPONSE), (2, msr::PSC_RESPONSE), (3, msr::PSC_RESPONSE_ERROR)]
    {
        assert_eq!(ask(MsrRequest::psc(Gfn(0x100), operation)), VmgexitReply::Msr(response));
    }
    assert_eq!(ask(MsrRequest::psc(Gfn(0x9999), 1)), VmgexitReply::Msr(msr::PSC_RESPONSE_ERROR));
    assert_eq!(ask(msr::TERMINATE_REQUEST), VmgexitReply::Msr(msr::PSC_RESPONSE_ERROR));
}
