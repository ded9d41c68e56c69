use super::*;

#[test]
fn a_request_is_copied_once_marked_and_passed_on() {
    let memory = Memory::new();
    let policy = policy(&memory);
    ask(&memory);
    assert_eq!(call(&policy, GET_QUOTE, &memory), status(Status::SUCCESS));
    assert_eq!(memory.take_writes(), [(8, 8)], "only the status is written");
    assert_eq!(memory.status(), quote_status::IN_FLIGHT);
    assert_eq!(in_flight(&policy), 1);
    let (report, sink) = memory.0.submitted.lock().unwrap().remove(0);
    assert_eq!(report, REPORT);
    assert_eq!(sink.room_bytes(), BUFFER_BYTES - 24);
}

#[test]
fn what_is_no_request_is_refused_and_nothing_is_written() {
    for (version, in_len) in [(0u64, 8u32), (2, 8), (1 << 32 | 1, 8), (1, 0), (1, 0x1fe9), (1, u32::MAX)] {
        let memory = Memory::new();
        let policy = policy(&memory);
        memory.set(BUFFER.0, &version.to_le_bytes());
        memory.set(BUFFER.0 + 16, &in_len.to_le_bytes());
        let got = call(&policy, GET_QUOTE, &memory);
        assert_eq!(got, status(Status::INVALID_OPERAND), "version {version:#x}, {in_len:#x} bytes");
        assert_eq!(memory.take_writes(), []);
        assert_eq!(in_flight(&policy), 0);
        assert!(memory.0.submitted.lock().unwrap().is_empty());
    }
}

#[test]
fn a_report_may_fill_the_buffer_to_its_last_byte() {
    let memory = Memory::new();
    let policy = policy(&memory);
    ask(&memory);
    memory.set(BUFFER.0 + 16, &0x1fe8u32.to_le_bytes());
    assert_eq!(call(&policy, GET_QUOTE, &memory), status(Status::SUCCESS));
    assert_eq!(memory.0.submitted.lock().unwrap()[0].0.len(), 0x1fe8);
}

/// A host that lacks something.
struct Lacking {
    inner: Memory,
    reads_left: usize,
}

impl Host for Lacking {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        self.inner.apply(action)
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.reads_left = self.reads_left.checked_sub(1).ok_or(Errno::EOPNOTSUPP)?;
        self.inner.read_guest(gpa, bytes)
    }
}

#[test]
fn a_host_that_cannot_reach_the_buffer_refuses_and_keeps_no_slot() {
    let memory = Memory::new();
    let policy = policy(&memory);
    ask(&memory);
    for reads_left in 0..2 {
        let mut host = Lacking { inner: memory.clone(), reads_left };
        let got = policy.plan(GET_QUOTE, &memory.0.tracked).carry_out(&mut host, &mut ());
        assert_eq!(got, status(Status::INVALID_OPERAND), "{reads_left} reads");
        assert_eq!((memory.take_writes(), in_flight(&policy)), (vec![], 0));
    }
    *memory.0.fails_at.lock().unwrap() = Some(8);
    assert_eq!(call(&policy, GET_QUOTE, &memory), status(Status::INVALID_OPERAND));
    assert_eq!((memory.take_writes(), in_flight(&policy)), (vec![], 0));
    assert!(memory.0.submitted.lock().unwrap().is_empty());
}

#[test]
fn more_requests_than_slots_are_told_to_come_back_and_are_taken_when_one_is_done() {
    let memory = Memory::new();
    let policy = policy(&memory);
    let first = ask_for_sink(&policy, &memory);
    let _second = ask_for_sink(&policy, &memory);
    assert_eq!(in_flight(&policy), 2);
    ask(&memory);
    for _ in 0..100 {
        assert_eq!(call(&policy, GET_QUOTE, &memory), status(Status::RETRY));
    }
    assert_eq!(memory.take_writes(), [], "a request that is not taken leaves its buffer alone");
    first.complete(Ok(b"quote"));
    ask(&memory);
    assert_eq!(call(&policy, GET_QUOTE, &memory), status(Status::SUCCESS));
    assert_eq!(in_flight(&policy), 2);
}

#[test]
fn without_slots_every_request_is_told_to_come_back() {
    let memory = Memory::new();
    let arc = Arc::new(memory.clone());
    let limits = QuoteLimits { slots: 0, ..QuoteLimits::default() };
    let policy = TdxPolicy {
        quotes: Some(Quotes::new(arc.clone(), memory.0.tracked.clone(), arc, None, limits)),
        ..TdxPolicy::default()
    };
    ask(&memory);
    assert_eq!(call(&policy, GET_QUOTE, &memory), status(Status::RETRY));
}
