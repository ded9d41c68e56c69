use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn a_quote_is_written_before_its_length_and_the_status_comes_last() {
    let memory = Memory::new();
    let policy = policy(&memory);
    ask_for_sink(&policy, &memory).complete(Ok(b"a quote"));
    assert_eq!(memory.take_writes(), [(24, 7), (20, 4), (8, 8)]);
    assert_eq!((memory.status(), memory.quote()), (quote_status::SUCCESS, b"a quote".to_vec()));
    assert_eq!(in_flight(&policy), 0);
}

#[test]
fn a_quote_may_fill_the_buffer_to_its_last_byte_and_no_further() {
    for (bytes, expected) in [
        (BUFFER_BYTES - 24, quote_status::SUCCESS),
        (BUFFER_BYTES - 23, quote_status::ERROR),
        (1 << 20, quote_status::ERROR),
        (0, quote_status::ERROR),
    ] {
        let memory = Memory::new();
        let policy = policy(&memory);
        let behind = BUFFER.0 + BUFFER_BYTES;
        memory.set(behind, &[0x5a; 16]);
        let quote = vec![7; usize::try_from(bytes).unwrap()];
        ask_for_sink(&policy, &memory).complete(Ok(&quote));
        assert_eq!((memory.status(), in_flight(&policy)), (expected, 0), "{bytes} bytes");
        assert_eq!(memory.get(behind, 16), [0x5a; 16]);
        if expected != quote_status::SUCCESS {
            assert_eq!(memory.take_writes(), [(8, 8)], "nothing but the status, {bytes} bytes");
        }
    }
}

/// A name, what becomes of the sink, and the status that follows.
type Way = (&'static str, fn(QuoteSink), u64);

#[test]
fn every_way_not_to_answer_tells_the_td_and_frees_the_slot() {
    let ways: [Way; 5] = [
        ("unavailable", |sink| sink.complete(Err(NoQuote::Unavailable)), quote_status::SERVICE_UNAVAILABLE),
        ("failed", |sink| sink.complete(Err(NoQuote::Failed)), quote_status::ERROR),
        ("dropped", drop, quote_status::ERROR),
        ("dropped elsewhere", |sink| std::thread::spawn(|| drop(sink)).join().unwrap(), quote_status::ERROR),
        (
            "panic in the thread of the provider",
            |sink| {
                let thread = std::thread::spawn(move || {
                    let _sink = sink;
                    std::panic::resume_unwind(Box::new("no quote"));
                });
                assert!(thread.join().is_err());
            },
            quote_status::ERROR,
        ),
    ];
    for (name, way, expected) in ways {
        let memory = Memory::new();
        let policy = policy(&memory);
        way(ask_for_sink(&policy, &memory));
        assert_eq!(memory.status(), expected, "{name}");
        assert_eq!((memory.take_writes(), in_flight(&policy)), (vec![(8, 8)], 0), "{name}");
    }
}

#[test]
fn a_provider_that_panics_or_forgets_on_the_vcpu_keeps_no_slot() {
    struct Panics;
    impl QuoteProvider for Panics {
        fn submit(&self, report: &[u8], sink: QuoteSink) {
            drop(sink);
            assert!(report.is_empty(), "a panic of the provider");
        }
    }
    let memory = Memory::new();
    let arc = Arc::new(memory.clone());
    let quotes = Quotes::new(Arc::new(Panics), memory.0.tracked.clone(), arc, None, QuoteLimits::default());
    let policy = TdxPolicy { quotes: Some(quotes), ..TdxPolicy::default() };
    ask(&memory);
    let got = catch_unwind(AssertUnwindSafe(|| call(&policy, GET_QUOTE, &memory)));
    assert!(got.is_err());
    assert_eq!((memory.status(), in_flight(&policy)), (quote_status::ERROR, 0));
}

#[test]
fn a_quote_that_cannot_be_written_is_an_error() {
    for (fails_at, expected) in [(24, quote_status::ERROR), (20, quote_status::ERROR), (8, u64::MAX)] {
        let memory = Memory::new();
        let policy = policy(&memory);
        choose(&policy, 64, &memory);
        let sink = ask_for_sink(&policy, &memory);
        *memory.0.fails_at.lock().unwrap() = Some(fails_at);
        sink.complete(Ok(b"quote"));
        assert_eq!((memory.status(), in_flight(&policy)), (expected, 0), "the write at {fails_at} fails");
        let notified = usize::from(expected == quote_status::ERROR);
        assert_eq!(memory.0.notified.lock().unwrap().len(), notified, "the write at {fails_at} fails");
    }
}

#[test]
fn a_td_that_takes_its_buffer_back_gets_nothing_and_its_slot_is_free() {
    let memory = Memory::new();
    let policy = policy(&memory);
    choose(&policy, 64, &memory);
    for answer in [Ok(b"quote".as_slice()), Err(NoQuote::Failed)] {
        let sink = ask_for_sink(&policy, &memory);
        memory.make(PageState::Private);
        sink.complete(answer);
        assert_eq!((memory.take_writes(), in_flight(&policy)), (vec![], 0));
        assert!(memory.0.notified.lock().unwrap().is_empty());
        memory.make(PageState::Shared);
    }
}

#[test]
fn a_quote_waits_for_a_conversion_of_its_buffer_and_who_gives_quotes_up_does_not() {
    let memory = Memory::new();
    let policy = policy(&memory);
    for to in [PageState::Private, PageState::Shared] {
        let sink = ask_for_sink(&policy, &memory);
        let range = PageRange::new(BUFFER.gfn(), 2).unwrap();
        let converting = memory.0.tracked.begin(Conversion { range, to });
        let answer = std::thread::spawn(move || sink.complete(Ok(b"quote")));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!((memory.take_writes(), answer.is_finished()), (vec![], false));
        policy.quotes.as_ref().unwrap().cancel();
        drop(converting);
        answer.join().unwrap();
        assert_eq!((memory.take_writes(), in_flight(&policy)), (vec![], 0), "it was given up");
    }
}

#[test]
fn a_td_that_takes_its_buffer_back_after_the_plan_is_refused_and_nothing_is_written() {
    let memory = Memory::new();
    let policy = policy(&memory);
    ask(&memory);
    let plan = policy.plan(GET_QUOTE, &memory.0.tracked);
    memory.make(PageState::Private);
    let reply = plan.carry_out(&mut memory.clone(), &mut ());
    assert_eq!(reply, status(Status::INVALID_OPERAND));
    assert_eq!((memory.take_writes(), in_flight(&policy)), (vec![], 0));
}

#[test]
fn the_interrupt_goes_to_the_vcpu_that_asked_for_it_once_for_each_answer_and_the_last_vector_counts() {
    let memory = Memory::new();
    let policy = policy(&memory);
    let notified = |memory: &Memory| std::mem::take(&mut *memory.0.notified.lock().unwrap());
    ask_for_sink(&policy, &memory).complete(Ok(b"quote"));
    assert_eq!(notified(&memory), [], "no vector was chosen");
    for vector in [64, 255] {
        choose(&policy, vector, &memory);
    }
    for answer in [Ok(b"quote".as_slice()), Err(NoQuote::Failed), Err(NoQuote::Unavailable)] {
        ask_for_sink(&policy, &memory).complete(answer);
        assert_eq!(notified(&memory), [NotifyTarget { vcpu: 3, vector: 255 }]);
    }
    choose(&policy, 5, &memory);
    ask_for_sink(&policy, &memory).complete(Ok(b"quote"));
    assert_eq!(notified(&memory)[0].vector, 255, "a vector that was refused changes nothing");
}

#[test]
fn a_notifier_that_panics_keeps_no_slot() {
    struct Panics;
    impl Notifier for Panics {
        fn notify(&self, target: NotifyTarget) {
            assert_eq!(target.vector, 0, "a panic of the notifier");
        }
    }
    let memory = Memory::new();
    let arc = Arc::new(memory.clone());
    let limits = QuoteLimits { slots: 1, ..QuoteLimits::default() };
    let quotes = Quotes::new(arc.clone(), memory.0.tracked.clone(), arc, Some(Arc::new(Panics)), limits);
    let policy = TdxPolicy { quotes: Some(quotes), ..policy(&memory) };
    choose(&policy, 64, &memory);
    for _ in 0..3 {
        let sink = ask_for_sink(&policy, &memory);
        assert!(catch_unwind(AssertUnwindSafe(|| sink.complete(Ok(b"quote")))).is_err());
        assert_eq!((memory.status(), in_flight(&policy)), (quote_status::SUCCESS, 0));
    }
}

#[test]
fn after_cancel_late_answers_do_nothing_and_do_not_touch_requests_that_came_after() {
    let memory = Memory::new();
    let policy = policy(&memory);
    choose(&policy, 64, &memory);
    let late = [ask_for_sink(&policy, &memory), ask_for_sink(&policy, &memory)];
    policy.quotes.as_ref().unwrap().cancel();
    assert_eq!(in_flight(&policy), 0);
    let fresh = ask_for_sink(&policy, &memory);
    for sink in late {
        assert!(sink.is_cancelled());
        sink.complete(Ok(b"too late"));
    }
    assert_eq!((memory.take_writes(), in_flight(&policy)), (vec![], 1));
    assert!(!fresh.is_cancelled());
    fresh.complete(Ok(b"in time"));
    assert_eq!((memory.quote(), in_flight(&policy)), (b"in time".to_vec(), 0));
    assert!(memory.0.notified.lock().unwrap().is_empty(), "the vector is forgotten, too");
}

#[test]
fn a_provider_that_keeps_a_sink_keeps_nothing_alive_but_the_sink() {
    let memory = Memory::new();
    let alive = Arc::downgrade(&memory.0);
    let policy = policy(&memory);
    let sink = ask_for_sink(&policy, &memory);
    drop((policy, memory));
    assert!(alive.upgrade().is_some(), "the sink may still be answered");
    sink.complete(Ok(b"quote"));
    assert!(alive.upgrade().is_none());
}
