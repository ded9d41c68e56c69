use super::super::slots::Slots;
use super::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::scope;

#[test]
fn a_td_that_sees_its_quote_finds_a_free_slot_at_once() {
    let memory = Memory::new();
    let arc = Arc::new(memory.clone());
    let limits = QuoteLimits { slots: 1, ..QuoteLimits::default() };
    let quotes = Quotes::new(arc.clone(), memory.0.tracked.clone(), arc, None, limits);
    let policy = TdxPolicy { quotes: Some(quotes), ..TdxPolicy::default() };
    for _ in 0..100 {
        let sink = ask_for_sink(&policy, &memory);
        scope(|scope| {
            scope.spawn(|| sink.complete(Ok(b"quote")));
            while memory.status() == quote_status::IN_FLIGHT {
                std::thread::yield_now();
            }
            ask(&memory);
            assert_eq!(call(&policy, GET_QUOTE, &memory), status(Status::SUCCESS));
            memory.take_sink().complete(Err(NoQuote::Failed));
        });
    }
}

#[test]
fn no_two_requests_ever_have_the_same_slot_and_all_come_back() {
    let slots = Slots::new(3);
    let inside = AtomicUsize::new(0);
    scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let Some(taken) = slots.take() else { continue };
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                    assert!(slots.holds(&taken));
                    slots.finish(&taken, || inside.fetch_sub(1, Ordering::SeqCst)).unwrap();
                    assert!(slots.finish(&taken, || ()).is_none(), "a slot is freed once");
                }
            });
        }
    });
    assert_eq!((slots.taken(), slots.len()), (0, 3));
}

#[test]
fn nothing_is_done_for_a_request_once_free_all_has_returned() {
    for _ in 0..100 {
        let slots = Slots::new(1);
        let taken = slots.take().unwrap();
        let done = AtomicBool::new(false);
        scope(|scope| {
            scope.spawn(|| slots.finish(&taken, || done.store(true, Ordering::SeqCst)));
            slots.free_all();
            let before = done.load(Ordering::SeqCst);
            std::thread::yield_now();
            assert_eq!(done.load(Ordering::SeqCst), before);
        });
    }
}
