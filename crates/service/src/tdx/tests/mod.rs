mod delivery;
mod plans;
mod requests;
mod slots;

use super::*;
use crate::memory::{MemorySlot, PageInfo};
use exeunt_abi::ghci::{Status, quote_status};
use exeunt_abi::{Errno, Gfn};
use exeunt_proto::conversion::{Conversion, PageState};
use exeunt_proto::host::Action;
use std::sync::{Arc, Mutex};

/// Bytes of the memory behind address 0.
const MEMORY_BYTES: usize = 0x4_0000;
/// A buffer of two pages.
const BUFFER: Gpa = Gpa(0x3000);
const BUFFER_BYTES: u64 = 0x2000;
/// What a TD hands over.
const REPORT: &[u8] = b"the report of a TD";

/// Memory that knows who wrote what, in order, for the vCPU and for late answers alike.
#[derive(Clone)]
struct Memory(Arc<Inner>);

struct Inner {
    bytes: Mutex<Vec<u8>>,
    writes: Mutex<Vec<(u64, usize)>>,
    tracked: Arc<GuestMemory>,
    fails_at: Mutex<Option<u64>>,
    notified: Mutex<Vec<NotifyTarget>>,
    submitted: Mutex<Vec<(Vec<u8>, QuoteSink)>>,
}

impl Memory {
    fn new() -> Self {
        let range = PageRange::new(Gfn(0), MEMORY_BYTES as u64 / PAGE_SIZE).unwrap();
        let slot = MemorySlot { range, has_private: true };
        Self(Arc::new(Inner {
            bytes: Mutex::new(vec![0; MEMORY_BYTES]),
            writes: Mutex::default(),
            tracked: Arc::new(GuestMemory::new([slot]).unwrap()),
            fails_at: Mutex::default(),
            notified: Mutex::default(),
            submitted: Mutex::default(),
        }))
    }

    /// Writes as the TD does: nobody takes note.
    fn set(&self, gpa: u64, bytes: &[u8]) {
        let at = usize::try_from(gpa).unwrap();
        self.0.bytes.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn get(&self, gpa: u64, count: usize) -> Vec<u8> {
        let at = usize::try_from(gpa).unwrap();
        self.0.bytes.lock().unwrap()[at..at + count].to_vec()
    }

    fn status(&self) -> u64 {
        u64::from_le_bytes(self.get(BUFFER.0 + 8, 8).try_into().unwrap())
    }

    fn quote(&self) -> Vec<u8> {
        let out_len = u32::from_le_bytes(self.get(BUFFER.0 + 20, 4).try_into().unwrap());
        self.get(BUFFER.0 + 24, out_len as usize)
    }

    /// Offsets in the buffer and lengths of what the host wrote since the last call.
    fn take_writes(&self) -> Vec<(u64, usize)> {
        let writes = std::mem::take(&mut *self.0.writes.lock().unwrap());
        writes.into_iter().map(|(gpa, count)| (gpa - BUFFER.0, count)).collect()
    }

    /// The TD makes the second page of the buffer private or shared.
    fn make(&self, state: PageState) {
        let page = PageRange::new(Gfn(BUFFER.gfn().0 + 1), 1).unwrap();
        self.0.tracked.assume(page, PageInfo::fresh(state));
    }

    fn take_sink(&self) -> QuoteSink {
        self.0.submitted.lock().unwrap().remove(0).1
    }

    fn write_as_host(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        if *self.0.fails_at.lock().unwrap() == Some(gpa.0 - BUFFER.0) {
            return Err(Errno::EFAULT);
        }
        let page = PageRange::new(gpa.gfn(), 1).unwrap();
        let conversion = Conversion { range: page, to: PageState::Private };
        assert!(self.0.tracked.try_begin(conversion).is_none(), "nobody converts a page while it is written");
        self.set(gpa.0, bytes);
        self.0.writes.lock().unwrap().push((gpa.0, bytes.len()));
        Ok(())
    }
}

impl GuestWriter for Memory {
    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        self.write_as_host(gpa, bytes)
    }
}

impl Notifier for Memory {
    fn notify(&self, target: NotifyTarget) {
        self.0.notified.lock().unwrap().push(target);
    }
}

/// Keeps what it gets, with the status that the buffer had by then.
impl QuoteProvider for Memory {
    fn submit(&self, report: &[u8], sink: QuoteSink) {
        assert_eq!(self.status(), quote_status::IN_FLIGHT, "the buffer is marked before anyone answers");
        self.0.submitted.lock().unwrap().push((report.to_vec(), sink));
    }
}

/// The host of vCPU 3.
impl Host for Memory {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        match action {
            Action::WriteGuest { gpa, bytes } => self.write_as_host(*gpa, bytes),
            other => panic!("a call of a TD led to {other:?}"),
        }
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        bytes.copy_from_slice(&self.get(gpa.0, bytes.len()));
        Ok(())
    }

    fn vcpu_id(&self) -> u64 {
        3
    }
}

/// A policy whose provider keeps its sinks, with two slots.
fn policy(memory: &Memory) -> TdxPolicy {
    let limits = QuoteLimits { slots: 2, ..QuoteLimits::default() };
    let arc = Arc::new(memory.clone());
    let quotes = Quotes::new(arc.clone(), memory.0.tracked.clone(), arc.clone(), Some(arc), limits);
    let user = [TDVMCALLINFO_SETUP_EVENT_NOTIFY_INTERRUPT, 0];
    TdxPolicy { quotes: Some(quotes), calls: CallInfo { kernel: [0, 0], user } }
}

/// Puts a request into the buffer.
fn ask(memory: &Memory) {
    let in_len = u32::try_from(REPORT.len()).unwrap().to_le_bytes();
    let head = [1u64.to_le_bytes().as_slice(), &[0; 8], &in_len, &[0; 4], REPORT].concat();
    memory.set(BUFFER.0, &head);
}

const GET_QUOTE: TdxCall = TdxCall::GetQuote { gpa: BUFFER, size_bytes: BUFFER_BYTES };

/// Makes a call.
fn call(policy: &TdxPolicy, call: TdxCall, memory: &Memory) -> Reply {
    policy.plan(call, &memory.0.tracked).carry_out(&mut memory.clone(), &mut ())
}

/// Chooses a vector.
fn choose(policy: &TdxPolicy, vector: u64, memory: &Memory) {
    let _ = call(policy, TdxCall::SetupEventNotify { vector }, memory);
}

fn status(status: Status) -> Reply {
    Reply::Tdx(TdxReply::Status(status))
}

fn in_flight(policy: &TdxPolicy) -> usize {
    policy.quotes.as_ref().unwrap().in_flight()
}

/// Asks for a quote and returns the sink of its answer.
fn ask_for_sink(policy: &TdxPolicy, memory: &Memory) -> QuoteSink {
    ask(memory);
    assert_eq!(call(policy, GET_QUOTE, memory), status(Status::SUCCESS));
    memory.take_writes();
    memory.take_sink()
}
