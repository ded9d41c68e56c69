use super::*;
use crate::layer::inject::{EffectFault, EffectKind, FaultyHost};
use PageState::{Private, Shared};
use exeunt_proto::host::{Action, Backing};
use std::sync::atomic::{AtomicU32, Ordering};

/// Frames 0x10-0x1f and 0x20-0x27 with private halves, 0x30-0x33 without, 0x40-0x4f with, holes elsewhere.
fn slots() -> [MemorySlot; 4] {
    [(0x30, 4, false), (0x10, 16, true), (0x20, 8, true), (0x40, 16, true)]
        .map(|(gfn, pages, has_private)| MemorySlot { range: range(gfn, pages), has_private })
}

fn range(gfn: u64, pages: u64) -> PageRange {
    PageRange::new(Gfn(gfn), pages).unwrap()
}

fn conversion(gfn: u64, pages: u64, to: PageState) -> Conversion {
    Conversion { range: range(gfn, pages), to }
}

/// Pages of a VM: their attributes, and whether each of their two memories holds something. It fails if it is asked
/// for what no VMM may do, and on demand.
#[derive(Clone)]
struct Pages {
    attributes: Vec<PageState>,
    shared: Vec<bool>,
    private: Vec<bool>,
    calls: Vec<String>,
    /// Which hook fails, how often.
    refuses_before: u32,
    refuses_after: u32,
}

const FRAMES: usize = 0x60;

impl Pages {
    fn new() -> Self {
        let (attributes, shared) = (vec![Shared; FRAMES], vec![true; FRAMES]);
        Self {
            attributes,
            shared,
            private: vec![false; FRAMES],
            calls: Vec::new(),
            refuses_before: 0,
            refuses_after: 0,
        }
    }

    fn all(range: PageRange) -> Range<usize> {
        usize::try_from(range.gfn().0).unwrap()..usize::try_from(range.end().0).unwrap()
    }

    /// The guest writes to every page that it can.
    fn touch(&mut self) {
        for page in 0..FRAMES {
            let memory = if self.attributes[page] == Private { &mut self.private } else { &mut self.shared };
            memory[page] = true;
        }
    }

    /// What is known is so.
    fn agree(&self, memory: &GuestMemory) {
        for page in 0..FRAMES {
            let Some(info) = memory.page(Gfn(page as u64)) else { continue };
            assert!(!info.is_certain || info.state == self.attributes[page], "{page:#x}: {info:?}");
            assert!(info.has_shared || !self.shared[page], "{page:#x}: shared memory nobody knows of");
            assert!(info.has_private || !self.private[page], "{page:#x}: private memory nobody knows of");
        }
        assert!(memory.lock().queue.is_empty(), "nobody holds anything");
    }

    fn take_calls(&mut self) -> Vec<String> {
        std::mem::take(&mut self.calls)
    }
}

impl Host for Pages {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        match *action {
            Action::SetAttributes { range, to } => {
                self.calls.push(format!("{to} {range}"));
                self.attributes[Self::all(range)].fill(to);
            }
            Action::Discard { range, backing } => {
                self.calls.push(format!("discard {backing:?} {range}"));
                let idle = tracker::idle_backing;
                let is_idle = self.attributes[Self::all(range)].iter().all(|state| idle(*state) == backing);
                assert!(is_idle, "a discard of memory in use, {range}");
                let memory = if backing == Backing::Private { &mut self.private } else { &mut self.shared };
                memory[Self::all(range)].fill(false);
            }
            Action::Prefault { range } => self.calls.push(format!("prefault {range}")),
            _ => return Err(Errno::EOPNOTSUPP),
        }
        Ok(())
    }

    fn before_conversion(&mut self, conversion: Conversion) -> Result<(), Errno> {
        if self.refuses_before > 0 {
            self.refuses_before -= 1;
            return Err(Errno::EBUSY);
        }
        self.calls.push(format!("before {}", conversion.range));
        Ok(())
    }

    fn after_conversion(&mut self, conversion: Conversion) -> Result<(), Errno> {
        if self.refuses_after > 0 {
            self.refuses_after -= 1;
            return Err(Errno::ENOSPC);
        }
        self.calls.push(format!("after {}", conversion.range));
        Ok(())
    }

    fn undo_conversion(&mut self, conversion: Conversion) {
        self.calls.push(format!("undo {}", conversion.range));
    }
}

#[allow(clippy::ptr_arg, reason = "a filter of strings")]
fn is_call(call: &String) -> bool {
    !["before", "after", "undo"].iter().any(|hook| call.starts_with(hook))
}

#[test]
fn a_run_costs_one_change_and_one_discard_and_a_repetition_nothing() {
    let memory = GuestMemory::new(slots()).unwrap();
    let mut pages = Pages::new();
    for to in [Private, Shared, Private] {
        assert_eq!(memory.convert(conversion(0x10, 0x18, to), &mut pages, &mut ()), Ok(()));
        let backing = if to == Private { "Shared" } else { "Private" };
        let run = range(0x10, 0x18);
        let expected = [
            format!("before {run}"),
            format!("{to} {run}"),
            format!("after {run}"),
            format!("discard {backing} {run}"),
        ];
        assert_eq!(pages.take_calls(), expected, "one call over two slots that touch");
        pages.touch();
        for again in [conversion(0x10, 0x18, to), conversion(0x11, 1, to)] {
            assert_eq!(memory.convert(again, &mut pages, &mut ()), Ok(()));
            assert!(pages.calls.is_empty(), "{:?}", pages.calls);
        }
        pages.agree(&memory);
    }
}

#[test]
fn only_what_differs_is_changed_and_only_what_may_hold_something_is_given_back() {
    let memory = GuestMemory::new(slots()).unwrap();
    let mut pages = Pages::new();
    memory.assume(range(0x14, 4), PageInfo::fresh(Private));
    pages.attributes[0x14..0x18].fill(Private);
    pages.shared[0x14..0x18].fill(false);
    memory.assume(range(0x18, 4), PageInfo { has_shared: false, ..PageInfo::fresh(Shared) });
    pages.shared[0x18..0x1c].fill(false);
    assert_eq!(memory.convert(conversion(0x10, 0x10, Private), &mut pages, &mut ()), Ok(()));
    let calls: Vec<_> = pages.take_calls().into_iter().filter(is_call).collect();
    let expected = [
        format!("private {}", range(0x10, 4)),
        format!("discard Shared {}", range(0x10, 4)),
        format!("private {}", range(0x18, 8)),
        format!("discard Shared {}", range(0x1c, 4)),
    ];
    assert_eq!(calls, expected);
    pages.agree(&memory);
}

#[test]
fn a_range_over_slots_and_holes_is_split_and_nothing_outside_is_touched() {
    let memory = GuestMemory::new(slots()).unwrap();
    memory.assume(range(0, 0x1000), PageInfo::fresh(Private));
    let mut pages = Pages::new();
    pages.attributes.fill(Private);
    pages.shared.fill(false);
    let everything = Conversion { range: range(0, (1 << 52) - 1), to: Shared };
    assert!(memory.allows(everything) && !memory.allows(Conversion { to: Private, ..everything }));
    assert_eq!(memory.convert(everything, &mut pages, &mut ()), Ok(()));
    let touched: Vec<_> = pages.take_calls().into_iter().filter(|call| call.starts_with("shared")).collect();
    let runs = [range(0x10, 0x18), range(0x40, 0x10)].map(|run| format!("shared {run}"));
    assert_eq!(touched, runs);
    // Where no memory is, a page is shared already.
    assert_eq!(memory.convert(conversion(0x50, 0x10, Shared), &mut pages, &mut ()), Ok(()));
    assert!(pages.calls.is_empty());
}

#[test]
fn a_change_that_fails_leaves_what_was_converted_and_is_made_again_on_the_next_try() {
    let memory = GuestMemory::new(slots()).unwrap();
    let fault = EffectFault { kind: EffectKind::SetAttributes, nth: 2, errno: Errno::ENOMEM };
    let mut host = FaultyHost::new(Pages::new(), vec![fault]);
    let both = conversion(0x10, 0x40, Private);
    assert_eq!(memory.convert(both, &mut host, &mut ()), Err(Errno::ENOMEM));
    assert_eq!(memory.state_of(range(0x10, 0x18)), Some(Private), "the run before stays converted");
    assert_eq!(memory.state_of(range(0x40, 1)), None, "nobody knows");
    assert!(!memory.is_shared(range(0x40, 1)), "and nothing is written there");
    let mut pages = host.into_inner();
    assert_eq!(pages.calls.last(), Some(&format!("undo {}", range(0x40, 0x10))));
    pages.agree(&memory);
    pages.take_calls();
    assert_eq!(memory.convert(both, &mut pages, &mut ()), Ok(()));
    let calls: Vec<_> = pages.take_calls().into_iter().filter(is_call).collect();
    let run = range(0x40, 0x10);
    assert_eq!(calls, [format!("private {run}"), format!("discard Shared {run}")]);
    pages.agree(&memory);
}

#[test]
fn a_hook_that_fails_before_changes_nothing_and_one_that_fails_after_takes_back() {
    let memory = GuestMemory::new(slots()).unwrap();
    let mut pages = Pages::new();
    pages.refuses_before = 1;
    let all = conversion(0x10, 0x18, Private);
    assert_eq!(memory.convert(all, &mut pages, &mut ()), Err(Errno::EBUSY));
    assert!(pages.calls.is_empty(), "{:?}", pages.calls);
    assert_eq!(memory.state_of(all.range), Some(Shared));
    pages.refuses_after = 1;
    assert_eq!(memory.convert(all, &mut pages, &mut ()), Err(Errno::ENOSPC));
    let run = all.range;
    let expected =
        [format!("before {run}"), format!("private {run}"), format!("shared {run}"), format!("undo {run}")];
    assert_eq!(pages.take_calls(), expected, "and nothing is discarded");
    assert_eq!(memory.state_of(run), Some(Shared));
    pages.agree(&memory);
    // The attributes cannot be set back either: the pages are in doubt, and the next conversion sets them.
    let fault = EffectFault { kind: EffectKind::SetAttributes, nth: 2, errno: Errno::ENOMEM };
    pages.refuses_after = 1;
    let mut host = FaultyHost::new(pages, vec![fault]);
    assert_eq!(memory.convert(all, &mut host, &mut ()), Err(Errno::ENOSPC), "the first error is told");
    assert_eq!(memory.state_of(run), None);
    let mut pages = host.into_inner();
    pages.agree(&memory);
    for to in [Shared, Private] {
        assert_eq!(memory.convert(conversion(0x10, 0x18, to), &mut pages, &mut ()), Ok(()));
        assert_eq!(memory.state_of(run), Some(to));
        pages.agree(&memory);
    }
}

#[test]
fn a_discard_that_fails_is_no_failure_and_is_made_up_for() {
    let memory = GuestMemory::new(slots()).unwrap();
    let fault = EffectFault { kind: EffectKind::Discard, nth: 1, errno: Errno::EIO };
    let mut host = FaultyHost::new(Pages::new(), vec![fault]);
    let all = conversion(0x10, 0x18, Private);
    assert_eq!(memory.convert(all, &mut host, &mut ()), Ok(()), "the guest has what it asked for");
    assert_eq!(memory.idle_pages(), 0x18);
    let mut pages = host.into_inner();
    pages.take_calls();
    assert_eq!(memory.convert(all, &mut pages, &mut ()), Ok(()));
    assert_eq!(pages.take_calls(), [format!("discard Shared {}", all.range)]);
    assert_eq!(memory.idle_pages(), 0);
    pages.agree(&memory);
}

#[test]
fn an_interruption_is_tried_again_at_once_and_not_for_ever() {
    for (errno, tries) in [(Errno::EINTR, 4), (Errno::EAGAIN, 4), (Errno::ENOMEM, 1), (Errno::EINVAL, 1)] {
        let memory = GuestMemory::new(slots()).unwrap();
        let faults = |count| {
            (1..=count)
                .map(|nth| EffectFault { kind: EffectKind::SetAttributes, nth, errno })
                .collect::<Vec<_>>()
        };
        let all = conversion(0x10, 1, Private);
        let mut host = FaultyHost::new(Pages::new(), faults(tries));
        assert_eq!(memory.convert(all, &mut host, &mut ()), Err(errno));
        let mut host = FaultyHost::new(host.into_inner(), faults(tries - 1));
        assert_eq!(memory.convert(all, &mut host, &mut ()), Ok(()));
    }
}

#[test]
fn lazy_memory_is_kept_up_to_the_budget_and_to_and_fro_costs_one_call() {
    let reclaim = Reclaim::Lazily { budget_pages: 8 };
    let options = MemoryOptions { reclaim, ..MemoryOptions::default() };
    let memory = GuestMemory::with_options(slots(), options).unwrap();
    let mut pages = Pages::new();
    for round in 0..100 {
        let to = if round % 2 == 0 { Private } else { Shared };
        assert_eq!(memory.convert(conversion(0x10, 8, to), &mut pages, &mut ()), Ok(()));
        pages.touch();
        assert_eq!(pages.take_calls().into_iter().filter(is_call).count(), 1, "{round}");
        pages.agree(&memory);
    }
    assert_eq!(memory.idle_pages(), 8);
    for gfn in 0x18..0x20 {
        assert_eq!(memory.convert(conversion(gfn, 1, Private), &mut pages, &mut ()), Ok(()));
        pages.touch();
        assert!(memory.idle_pages() <= 8);
        pages.agree(&memory);
    }
    memory.reclaim_down_to(0, &mut pages, &mut ());
    assert_eq!(memory.idle_pages(), 0);
    pages.agree(&memory);
    // Memory that cannot be given back does not hang anybody.
    assert_eq!(memory.convert(conversion(0x40, 8, Private), &mut pages, &mut ()), Ok(()));
    let faults =
        (1..9).map(|nth| EffectFault { kind: EffectKind::Discard, nth, errno: Errno::EIO }).collect();
    let mut host = FaultyHost::new(pages, faults);
    memory.reclaim_down_to(0, &mut host, &mut ());
    assert_eq!(memory.idle_pages(), 8);
}

#[test]
fn idle_memory_beside_a_conversion_under_way_is_given_back_and_that_within_it_is_not() {
    let options = MemoryOptions { reclaim: Reclaim::Lazily { budget_pages: 99 }, ..MemoryOptions::default() };
    for busy in [range(0x10, 1), range(0x12, 3), range(0x17, 1), range(0x1c, 0x2c), range(0x47, 9)] {
        let memory = GuestMemory::with_options(slots(), options).unwrap();
        let mut pages = Pages::new();
        for gfn in [0x10, 0x40] {
            assert_eq!(memory.convert(conversion(gfn, 8, Private), &mut pages, &mut ()), Ok(()));
        }
        let converting = memory.begin(Conversion { range: busy, to: Shared });
        for _ in 0..4 {
            memory.reclaim_down_to(0, &mut pages, &mut ());
        }
        for page in Pages::all(range(0x10, 8)).chain(Pages::all(range(0x40, 8))) {
            let is_held = Pages::all(busy).contains(&page);
            assert_eq!(pages.shared[page], is_held, "{page:#x} beside {busy}");
        }
        drop(converting);
        memory.reclaim_down_to(0, &mut pages, &mut ());
        assert_eq!(memory.idle_pages(), 0);
        pages.agree(&memory);
    }
}

#[test]
fn private_pages_are_prefaulted_if_that_was_chosen() {
    let options = MemoryOptions { prefault: true, ..MemoryOptions::default() };
    let memory = GuestMemory::with_options(slots(), options).unwrap();
    let mut pages = Pages::new();
    for (to, prefaults) in [(Private, 1), (Shared, 0)] {
        assert_eq!(memory.convert(conversion(0x10, 4, to), &mut pages, &mut ()), Ok(()));
        let calls = pages.take_calls();
        assert_eq!(calls.iter().filter(|call| call.starts_with("prefault")).count(), prefaults, "{calls:?}");
    }
}

#[test]
fn a_conversion_that_is_given_up_leaves_its_run_in_doubt_and_others_go_on() {
    for effects in 0..5 {
        let memory = GuestMemory::new(slots()).unwrap();
        let mut pages = Pages::new();
        let all = conversion(0x10, 0x18, Private);
        let mut converting = memory.begin(all);
        assert!(memory.try_begin(conversion(0x27, 9, Shared)).is_none(), "it overlaps");
        assert!(memory.try_begin(conversion(0x28, 9, Shared)).is_some());
        let mut last = Ok(());
        for _ in 0..effects {
            let effect = converting.next_effect(last).unwrap_or(Effect::Undo(all));
            last = effect.carry_out(&mut pages);
        }
        // Carried out, and nobody was told.
        if let Some(effect) = converting.next_effect(last) {
            assert_eq!(effect.carry_out(&mut pages), Ok(()));
        }
        // Other vCPUs go on: a page whose attributes did change gets its other memory.
        pages.touch();
        let has_ended = converting.has_ended;
        assert_eq!(converting.finish(), if has_ended { Ok(()) } else { Err(Errno::ECANCELED) });
        pages.agree(&memory);
        for to in [Private, Shared] {
            assert_eq!(memory.convert(Conversion { to, ..all }, &mut pages, &mut ()), Ok(()));
            assert_eq!(memory.state_of(all.range), Some(to));
            pages.agree(&memory);
        }
    }
}

#[test]
fn slots_come_and_go_and_attributes_outlive_them() {
    let memory = GuestMemory::new([]).unwrap();
    let slot = MemorySlot { range: range(0x10, 4), has_private: true };
    assert_eq!(memory.add_slot(slot), Ok(()));
    assert_eq!(memory.state_of(slot.range), Some(Shared));
    assert!(memory.add_slot(slot).is_err());
    assert!(!memory.remove_slot(Gfn(0x11)) && memory.remove_slot(Gfn(0x10)));
    assert!(!memory.covers(slot.range) && memory.run_count() == 0);
    assert_eq!(memory.add_slot(slot), Ok(()));
    // Nothing is done to its memory once it is taken away.
    std::thread::scope(|scope| {
        let converting = memory.begin(conversion(0x13, 1, Private));
        let removal = scope.spawn(|| memory.remove_slot(Gfn(0x10)));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!removal.is_finished() && memory.covers(slot.range));
        drop(converting);
        assert!(removal.join().unwrap());
    });
    assert_eq!(memory.add_slot(slot), Ok(()));
    assert_eq!(memory.state_of(slot.range), None, "the slot before may have left private pages");
    // It has, and the guest used them before it asked for anything.
    let mut pages = Pages::new();
    pages.attributes[0x10..0x14].fill(Private);
    pages.touch();
    pages.agree(&memory);
    assert_eq!(memory.convert(Conversion { range: slot.range, to: Shared }, &mut pages, &mut ()), Ok(()));
    assert!(pages.private[0x10..0x14].iter().all(|is_used| !is_used), "the private memory was given back");
    pages.agree(&memory);
}

#[test]
fn pages_in_doubt_take_nothing_of_the_budget_for_idle_memory() {
    let options = MemoryOptions { reclaim: Reclaim::Lazily { budget_pages: 8 }, ..MemoryOptions::default() };
    let memory = GuestMemory::with_options(slots(), options).unwrap();
    let fault = EffectFault { kind: EffectKind::SetAttributes, nth: 1, errno: Errno::ENOMEM };
    let mut host = FaultyHost::new(Pages::new(), vec![fault]);
    assert_eq!(memory.convert(conversion(0x40, 16, Private), &mut host, &mut ()), Err(Errno::ENOMEM));
    let mut pages = host.into_inner();
    pages.take_calls();
    for to in [Private, Shared, Private] {
        assert_eq!(memory.convert(conversion(0x10, 8, to), &mut pages, &mut ()), Ok(()));
        pages.touch();
        assert_eq!(pages.take_calls().into_iter().filter(is_call).count(), 1, "to and fro costs one call");
    }
    assert_eq!(memory.idle_pages(), 8);
    pages.agree(&memory);
}

#[test]
fn any_conversions_with_any_failures_leave_memory_and_knowledge_in_agreement() {
    let mut seed = 1u64;
    let mut below = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % bound
    };
    for world in 0..300 {
        let reclaim = if world % 3 == 0 { Reclaim::Lazily { budget_pages: 5 } } else { Reclaim::AtOnce };
        let options = MemoryOptions { reclaim, prefault: world % 2 == 0 };
        let memory = GuestMemory::with_options(slots(), options).unwrap();
        let mut pages = Pages::new();
        for _ in 0..40 {
            let kind = if below(3) == 0 { EffectKind::Discard } else { EffectKind::SetAttributes };
            let errno = [Errno::ENOMEM, Errno::EINTR, Errno::EIO][usize::try_from(below(3)).unwrap()];
            let nth = u32::try_from(below(6)).unwrap();
            pages.refuses_before = u32::from(below(12) == 0);
            pages.refuses_after = u32::from(below(12) == 0);
            let to = if below(2) == 0 { Private } else { Shared };
            let conversion = conversion(below(0x58), below(0x20) + 1, to);
            let mut host = FaultyHost::new(pages, vec![EffectFault { kind, nth, errno }]);
            let result = memory.convert(conversion, &mut host, &mut ());
            pages = host.into_inner();
            pages.agree(&memory);
            let within = memory
                .lock()
                .slots
                .parts(conversion.range)
                .filter(|part| part.has_private)
                .collect::<Vec<_>>();
            let is_done = within.iter().all(|part| memory.state_of(part.range) == Some(to));
            assert!(is_done || result.is_err(), "{conversion:?} is said to be done");
            pages.touch();
        }
    }
}

/// A host that notes how many threads are in it at once, and waits for so many at first.
struct Meeting<'a> {
    inside: &'a AtomicU32,
    most: &'a AtomicU32,
    awaits: u32,
}

impl Host for Meeting<'_> {
    fn apply(&mut self, _: &Action<'_>) -> Result<(), Errno> {
        self.most.fetch_max(self.inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let start = std::time::Instant::now();
        while self.most.load(Ordering::SeqCst) < self.awaits && start.elapsed().as_secs() < 60 {
            std::thread::yield_now();
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn conversions_of_the_same_pages_wait_for_each_other_and_others_do_not() {
    for (apart, awaits) in [(0, 1), (4, 2)] {
        let memory = GuestMemory::new(slots()).unwrap();
        let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for gfn in [0x10, 0x10 + apart] {
                let (memory, inside, most) = (&memory, &inside, &most);
                scope.spawn(move || {
                    let mut host = Meeting { inside, most, awaits };
                    for round in 0..500 {
                        let to = if round % 2 == 0 { Private } else { Shared };
                        memory.convert(conversion(gfn, 4, to), &mut host, &mut ()).unwrap();
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), awaits, "{apart} pages apart");
        assert!(memory.lock().queue.is_empty());
    }
}
