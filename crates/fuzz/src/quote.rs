//! Quotes: messages of the quoting service, and calls of a TD over memory that it filled.

use crate::decoders::Words64;
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt::tdx::{GuestWriter, NoQuote, QuoteLimits, QuoteProvider, QuoteSink, Quotes, TdxPolicy};
use exeunt_abi::ghci::{Status, quote_status};
use exeunt_abi::{Errno, Gfn, Gpa};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::TdxCall;
use exeunt_proto::host::{Action, Host};
use exeunt_proto::reply::{Reply, TdxReply};
use exeunt_quote::qgs::{Request, Response};
use std::sync::{Arc, Mutex, PoisonError};

/// Pages of the TD's memory, the second half of which is not there.
const PAGES: u64 = 8;
const PAGE_BYTES: usize = 4096;

/// Any bytes as messages, and as a TD's call and memory.
pub(crate) fn quote(data: &[u8]) {
    if let Ok(request) = Request::decode(data) {
        let again = request.encode().unwrap_or_default();
        assert_eq!(Request::decode(&again), Ok(request));
    }
    if let Ok(response) = Response::decode(data) {
        let again = response.encode().unwrap_or_default();
        assert_eq!(Response::decode(&again), Ok(response));
    }
    get_quote(data);
}

/// The TD's memory, which is also its host.
#[derive(Clone)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn with<T>(&self, gpa: Gpa, count: usize, act: impl FnOnce(&mut [u8]) -> T) -> Result<T, Errno> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(gpa.0).map_err(|_| Errno::EFAULT)?;
        let end = start.checked_add(count).ok_or(Errno::EFAULT)?;
        bytes.get_mut(start..end).map(act).ok_or(Errno::EFAULT)
    }
}

impl GuestWriter for Memory {
    fn write(&self, gpa: Gpa, from: &[u8]) -> Result<(), Errno> {
        self.with(gpa, from.len(), |to| to.copy_from_slice(from))
    }
}

impl Host for Memory {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        match action {
            Action::WriteGuest { gpa, bytes } => self.write(*gpa, bytes),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn read_guest(&mut self, gpa: Gpa, to: &mut [u8]) -> Result<(), Errno> {
        self.with(gpa, to.len(), |from| to.copy_from_slice(from))
    }
}

/// Answers each request at once, with as many bytes as it was told.
struct Provider {
    bytes: usize,
}

impl QuoteProvider for Provider {
    fn submit(&self, report: &[u8], sink: QuoteSink) {
        assert!(!report.is_empty() && report.len() as u64 <= sink.room_bytes());
        match self.bytes {
            0 => drop(sink),
            1 => sink.complete(Err(NoQuote::Unavailable)),
            bytes => sink.complete(Ok(&vec![0x5a; bytes])),
        }
    }
}

/// A call with the first two words for its arguments, a quote as long as the third says, and memory that repeats the rest.
fn get_quote(data: &[u8]) {
    let mut words = Words64(data);
    let [gpa, size_bytes, quote_bytes] = std::array::from_fn(|_| words.next());
    // Most numbers are no address of a page; half of them become one.
    let page = |word: u64| if word & 1 == 0 { word & 0xf000 } else { word };
    let pattern = if words.0.is_empty() { &[0] } else { words.0 };
    let half = PAGE_BYTES * usize::try_from(PAGES / 2).unwrap_or(0);
    let memory = Memory(Arc::new(Mutex::new(pattern.iter().copied().cycle().take(half).collect())));
    let slot = PageRange::new(Gfn(0), PAGES).map(|range| MemorySlot { range, has_private: true });
    let tracked = Arc::new(GuestMemory::new(slot).unwrap_or_default());
    let provider = Arc::new(Provider { bytes: usize::try_from(quote_bytes & 0x3fff).unwrap_or(0) });
    let writer = Arc::new(memory.clone());
    let quotes = Quotes::new(provider, Arc::clone(&tracked), writer, None, QuoteLimits::default());
    let policy = TdxPolicy { quotes: Some(quotes.clone()), ..TdxPolicy::default() };
    let call = TdxCall::GetQuote { gpa: Gpa(page(gpa)), size_bytes: page(size_bytes) };
    let reply = policy.plan(call, &tracked).carry_out(&mut memory.clone(), &mut ());
    assert_eq!(quotes.in_flight(), 0, "the slot is free");
    if reply == Reply::Tdx(TdxReply::Status(Status::SUCCESS)) {
        let mut status = [0; 8];
        let read = memory.clone().read_guest(Gpa(page(gpa).wrapping_add(8)), &mut status);
        assert!(read.is_ok() && u64::from_le_bytes(status) != quote_status::IN_FLIGHT, "the TD is told");
    }
}
