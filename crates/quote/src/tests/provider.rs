use super::*;
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt::tdx::{GuestWriter, QuoteLimits, Quotes, TdxPolicy};
use exeunt_abi::ghci::{Status, quote_status};
use exeunt_abi::{Errno, Gfn, Gpa};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::TdxCall;
use exeunt_proto::host::{Action, Host};
use exeunt_proto::reply::{Reply, TdxReply};
use std::sync::{Arc, Mutex};

/// The memory of a TD: buffers of a page each.
#[derive(Clone)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(vec![0; 0x2_0000])))
    }

    fn put(&self, gpa: Gpa, bytes: &[u8]) {
        let at = usize::try_from(gpa.0).unwrap();
        self.0.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn get(&self, gpa: Gpa, bytes: &mut [u8]) {
        let at = usize::try_from(gpa.0).unwrap();
        bytes.copy_from_slice(&self.0.lock().unwrap()[at..at + bytes.len()]);
    }
}

impl GuestWriter for Memory {
    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        self.put(gpa, bytes);
        Ok(())
    }
}

impl Host for Memory {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        let Action::WriteGuest { gpa, bytes } = action else { return Err(Errno::EINVAL) };
        self.put(*gpa, bytes);
        Ok(())
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.get(gpa, bytes);
        Ok(())
    }
}

/// A TD that asks a provider.
struct Td {
    memory: Memory,
    tracked: Arc<GuestMemory>,
    policy: TdxPolicy,
}

impl Td {
    fn new(provider: &Arc<SocketProvider>, slots: usize) -> Self {
        let memory = Memory::new();
        let limits = QuoteLimits { slots, ..QuoteLimits::default() };
        let slot = MemorySlot { range: PageRange::new(Gfn(0), 32).unwrap(), has_private: true };
        let tracked = Arc::new(GuestMemory::new([slot]).unwrap());
        let writer = Arc::new(memory.clone());
        let quotes = Quotes::new(provider.clone(), tracked.clone(), writer, None, limits);
        Self { memory, tracked, policy: TdxPolicy { quotes: Some(quotes), ..TdxPolicy::default() } }
    }

    /// Asks for a quote into a buffer.
    fn ask(&self, buffer: u64) -> Status {
        let gpa = Gpa(buffer * 0x1000);
        let head = [1u64.to_le_bytes().as_slice(), &[0; 8], &1024u32.to_le_bytes(), &[0; 4], REPORT].concat();
        self.memory.put(gpa, &head);
        let plan = self.policy.plan(TdxCall::GetQuote { gpa, size_bytes: 0x1000 }, &self.tracked);
        match plan.carry_out(&mut self.memory.clone(), &mut ()) {
            Reply::Tdx(TdxReply::Status(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    fn status(&self, buffer: u64) -> u64 {
        let mut status = [0; 8];
        self.memory.get(Gpa(buffer * 0x1000 + 8), &mut status);
        u64::from_le_bytes(status)
    }

    fn quote(&self, buffer: u64) -> Vec<u8> {
        let mut out_len = [0; 4];
        self.memory.get(Gpa(buffer * 0x1000 + 20), &mut out_len);
        let mut quote = vec![0; u32::from_le_bytes(out_len) as usize];
        self.memory.get(Gpa(buffer * 0x1000 + 24), &mut quote);
        quote
    }

    fn in_flight(&self) -> usize {
        self.policy.quotes.as_ref().unwrap().in_flight()
    }

    /// Waits for the answer in a buffer.
    fn wait(&self, buffer: u64) -> u64 {
        wait_until("an answer", || self.status(buffer) != quote_status::IN_FLIGHT);
        self.status(buffer)
    }
}

fn provider(address: &Address, time: Duration) -> Arc<SocketProvider> {
    Arc::new(SocketProvider::with(address.clone(), time, WORKERS, None))
}

#[test]
fn a_td_gets_its_quote_from_a_service_behind_a_socket() {
    against(Conduct::Answer, Duration::ZERO, |address| {
        let provider = Arc::new(SocketProvider::new(address.clone()));
        let td = Td::new(&provider, 1);
        for _ in 0..20 {
            assert_eq!(td.ask(0), Status::SUCCESS, "the slot of the last one is free");
            assert_eq!(td.wait(0), quote_status::SUCCESS);
            assert_eq!(td.quote(0), simulated_quote(REPORT));
        }
        wait_until("the slot", || td.in_flight() == 0);
        assert_eq!(provider.busy(), 0);
    });
}

#[test]
fn whatever_a_service_does_the_td_gets_an_error_and_every_slot_is_free() {
    for (conduct, delay_ms) in [
        (Conduct::Fail(5), 0),
        (Conduct::Garbage, 0),
        (Conduct::CloseEarly, 0),
        (Conduct::Oversize, 0),
        (Conduct::Trickle(Duration::from_millis(10)), 0),
        (Conduct::Answer, 500),
    ] {
        against(conduct, Duration::from_millis(delay_ms), |address| {
            let provider = provider(address, Duration::from_millis(150));
            let td = Td::new(&provider, 4);
            for buffer in 0..4 {
                assert_eq!(td.ask(buffer), Status::SUCCESS, "{conduct:?}");
            }
            for buffer in 0..4 {
                assert_eq!(td.wait(buffer), quote_status::ERROR, "{conduct:?}");
            }
            wait_until("the slots", || td.in_flight() == 0);
            assert_eq!(provider.busy(), 0, "{conduct:?}");
        });
    }
}

#[test]
fn a_service_that_is_not_there_is_unavailable() {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&failures);
    let on_failure: OnFailure = Box::new(move |error| told.lock().unwrap().push(error.to_string()));
    let address = Address::Unix(path());
    let provider = Arc::new(SocketProvider::with(address, LONG, WORKERS, Some(on_failure)));
    let td = Td::new(&provider, 1);
    assert_eq!(td.ask(0), Status::SUCCESS);
    assert_eq!(td.wait(0), quote_status::SERVICE_UNAVAILABLE);
    let failures = failures.lock().unwrap();
    assert!(failures[0].starts_with("cannot reach the quoting service at unix:"), "{failures:?}");
}

#[test]
fn more_requests_than_workers_are_unavailable_and_more_than_slots_are_told_to_come_back() {
    against(Conduct::Answer, Duration::from_millis(300), |address| {
        let provider = Arc::new(SocketProvider::with(address.clone(), LONG, 2, None));
        let td = Td::new(&provider, 3);
        for buffer in 0..3 {
            assert_eq!(td.ask(buffer), Status::SUCCESS);
        }
        assert_eq!(td.status(2), quote_status::SERVICE_UNAVAILABLE, "there are two workers");
        assert_eq!(td.ask(3), Status::SUCCESS, "the slot of the third is free");
        assert_eq!((td.wait(0), td.wait(1)), (quote_status::SUCCESS, quote_status::SUCCESS));
        wait_until("the slots", || td.in_flight() == 0);
    });
    against(Conduct::Answer, Duration::from_millis(300), |address| {
        let provider = provider(address, LONG);
        let td = Td::new(&provider, 2);
        assert_eq!([td.ask(0), td.ask(1), td.ask(2)], [Status::SUCCESS, Status::SUCCESS, Status::RETRY]);
        assert_eq!((td.wait(0), td.wait(1)), (quote_status::SUCCESS, quote_status::SUCCESS));
        assert_eq!(td.status(2), 0, "a request that was not taken has no status");
        wait_until("the slots", || td.in_flight() == 0);
    });
}

#[test]
fn dropping_the_provider_hangs_up_and_the_td_is_told() {
    against(Conduct::Answer, Duration::from_secs(3), |address| {
        let start = Instant::now();
        let provider = provider(address, Duration::from_secs(60));
        let td = Td::new(&provider, 2);
        assert_eq!(td.ask(0), Status::SUCCESS);
        thread::sleep(Duration::from_millis(50));
        let Td { memory, tracked, policy } = td;
        let quotes = policy.quotes.clone().unwrap();
        drop((policy, provider));
        // The quotes keep the provider, so it goes with them.
        let late = Td { memory, tracked, policy: TdxPolicy::default() };
        drop(quotes);
        assert_eq!(late.wait(0), quote_status::ERROR);
        assert!(start.elapsed() < Duration::from_secs(3), "it did not wait for the service");
    });
}

#[test]
fn a_request_that_was_given_up_is_not_answered() {
    against(Conduct::Answer, Duration::from_millis(200), |address| {
        let provider = provider(address, LONG);
        let td = Td::new(&provider, 2);
        assert_eq!(td.ask(0), Status::SUCCESS);
        td.policy.quotes.as_ref().unwrap().cancel();
        assert_eq!(td.in_flight(), 0);
        wait_until("the worker", || provider.busy() == 0);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(td.status(0), quote_status::IN_FLIGHT, "nothing was written");
    });
}
