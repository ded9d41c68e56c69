//! A TD that asks for quotes while providers answer and the VM is reset, under drawn schedules of their threads.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p exeunt --test quote_schedules --target-dir target/shuttle`
//!
//! [`Quotes`] runs as it is, with shuttle's locks in the place of the standard library's. Each write to the TD's memory
//! is a point where another thread may go on.
#![cfg(shuttle)]

use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt::tdx::{GuestWriter, NoQuote, QuoteLimits, QuoteProvider, QuoteSink, Quotes, TdxPolicy};
use exeunt_abi::ghci::{Status, quote_status};
use exeunt_abi::{Errno, Gfn, Gpa};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::TdxCall;
use exeunt_proto::host::{Action, Host};
use exeunt_proto::reply::{Reply, TdxReply};
use shuttle::sync::Mutex;
use shuttle::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a buffer, which is all the memory that there is.
const BUFFER_BYTES: usize = 0x1000;

#[derive(Clone)]
struct Memory(Arc<Shared>);

struct Shared {
    bytes: Mutex<Vec<u8>>,
    sinks: Mutex<Vec<QuoteSink>>,
    /// Nothing may be written any more.
    is_reset: AtomicBool,
}

impl Memory {
    fn put(&self, at: usize, from: &[u8]) {
        thread::yield_now();
        self.0.bytes.lock().unwrap()[at..at + from.len()].copy_from_slice(from);
    }

    fn status(&self) -> u64 {
        thread::yield_now();
        u64::from_le_bytes(self.0.bytes.lock().unwrap()[8..16].try_into().unwrap())
    }
}

impl GuestWriter for Memory {
    fn write(&self, gpa: Gpa, from: &[u8]) -> Result<(), Errno> {
        assert!(!self.0.is_reset.load(Ordering::SeqCst), "a write after the reset");
        self.put(usize::try_from(gpa.0).unwrap(), from);
        assert!(!self.0.is_reset.load(Ordering::SeqCst), "a write that the reset did not wait for");
        Ok(())
    }
}

impl QuoteProvider for Memory {
    fn submit(&self, _: &[u8], sink: QuoteSink) {
        self.0.sinks.lock().unwrap().push(sink);
    }
}

impl Host for Memory {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        let Action::WriteGuest { gpa, bytes } = action else { return Err(Errno::EINVAL) };
        self.put(usize::try_from(gpa.0).unwrap(), bytes);
        Ok(())
    }

    fn read_guest(&mut self, gpa: Gpa, to: &mut [u8]) -> Result<(), Errno> {
        let at = usize::try_from(gpa.0).unwrap();
        to.copy_from_slice(&self.0.bytes.lock().unwrap()[at..at + to.len()]);
        Ok(())
    }
}

/// A TD with a page of memory and one slot for quotes.
struct Td {
    memory: Memory,
    tracked: Arc<GuestMemory>,
    policy: TdxPolicy,
    quotes: Quotes,
}

impl Td {
    fn new() -> Self {
        let (bytes, sinks) = (Mutex::new(vec![0; BUFFER_BYTES]), Mutex::default());
        let memory = Memory(Arc::new(Shared { bytes, sinks, is_reset: AtomicBool::new(false) }));
        let slot = MemorySlot { range: PageRange::new(Gfn(0), 1).unwrap(), has_private: true };
        let tracked = Arc::new(GuestMemory::new([slot]).unwrap());
        let limits = QuoteLimits { slots: 1, ..QuoteLimits::default() };
        let arc = Arc::new(memory.clone());
        let quotes = Quotes::new(arc.clone(), tracked.clone(), arc, None, limits);
        let policy = TdxPolicy { quotes: Some(quotes.clone()), ..TdxPolicy::default() };
        Self { memory, tracked, policy, quotes }
    }

    fn ask(&self) -> Status {
        self.memory.put(0, &[1u64.to_le_bytes(), [0; 8], 8u64.to_le_bytes()].concat());
        let call = TdxCall::GetQuote { gpa: Gpa(0), size_bytes: BUFFER_BYTES as u64 };
        match self.policy.plan(call, &self.tracked).carry_out(&mut self.memory.clone(), &mut ()) {
            Reply::Tdx(TdxReply::Status(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    fn take_sink(&self) -> QuoteSink {
        self.memory.0.sinks.lock().unwrap().pop().unwrap()
    }
}

/// Answers in each of the ways there are.
fn answer(sink: QuoteSink, way: usize) {
    match way {
        0 => sink.complete(Ok(b"quote")),
        1 => sink.complete(Err(NoQuote::Unavailable)),
        _ => drop(sink),
    }
}

#[test]
fn a_td_that_sees_an_answer_finds_the_only_slot_free() {
    for way in 0..3 {
        shuttle::check_random(
            move || {
                let td = Td::new();
                assert_eq!(td.ask(), Status::SUCCESS);
                let sink = td.take_sink();
                let provider = thread::spawn(move || answer(sink, way));
                // A poll that ends too early is a schedule of which nothing is said.
                if (0..20).any(|_| td.memory.status() != quote_status::IN_FLIGHT) {
                    assert_eq!(td.ask(), Status::SUCCESS);
                    td.take_sink().complete(Err(NoQuote::Failed));
                }
                provider.join().unwrap();
                assert_eq!(td.quotes.in_flight(), 0);
            },
            2_000,
        );
    }
}

#[test]
fn a_reset_waits_for_writes_that_have_begun_and_none_begins_after_it() {
    for way in 0..3 {
        shuttle::check_random(
            move || {
                let td = Td::new();
                assert_eq!(td.ask(), Status::SUCCESS);
                let sink = td.take_sink();
                let provider = thread::spawn(move || answer(sink, way));
                td.quotes.cancel();
                td.memory.0.is_reset.store(true, Ordering::SeqCst);
                assert_eq!(td.quotes.in_flight(), 0);
                provider.join().unwrap();
                assert_eq!(td.quotes.in_flight(), 0);
            },
            2_000,
        );
    }
}

#[test]
fn requests_of_two_vcpus_never_share_a_slot_and_it_comes_back() {
    shuttle::check_random(
        || {
            let td = Arc::new(Td::new());
            let vcpus = [0, 1].map(|way| {
                let td = Arc::clone(&td);
                thread::spawn(move || {
                    let status = td.ask();
                    if status == Status::SUCCESS {
                        assert_eq!(td.quotes.in_flight(), 1);
                        answer(td.take_sink(), way);
                    }
                    status
                })
            });
            let statuses = vcpus.map(|vcpu| vcpu.join().unwrap());
            assert!(statuses.contains(&Status::SUCCESS));
            assert!(statuses.iter().all(|status| [Status::SUCCESS, Status::RETRY].contains(status)));
            assert_eq!(td.quotes.in_flight(), 0);
        },
        2_000,
    );
}
