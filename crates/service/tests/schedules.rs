//! vCPUs that convert overlapping pages at once, under drawn schedules of their threads.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p exeunt --test schedules --target-dir target/shuttle`
//!
//! [`GuestMemory`] runs as it is, with shuttle's locks in the place of the standard library's. Each effect on the host
//! is a point where another thread may go on, and a discard is one for each of its pages.
#![cfg(shuttle)]

use exeunt::memory::{Effect, GuestMemory, MemoryOptions, MemorySlot, PageInfo, Reclaim};
use exeunt_abi::{Errno, Gfn};
use exeunt_proto::conversion::PageState::{Private, Shared};
use exeunt_proto::conversion::{Conversion, PageRange, PageState};
use exeunt_proto::host::{Action, Backing, Host};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::PctScheduler;
use shuttle::sync::{Arc, Mutex};
use shuttle::{Config, Runner, thread};

const FRAMES: usize = 6;

/// What a vCPU asks for, one after the other: first frame, pages, state.
type Script = &'static [(u64, u64, PageState)];

/// Three vCPUs, each of which meets the others in some of its pages and turns some of its own back.
const SCRIPTS: [Script; 3] = [
    &[(0, 4, Private), (1, 2, Shared), (0, 2, Private)],
    &[(2, 4, Private), (3, 3, Shared)],
    &[(1, 4, Private), (0, 6, Shared)],
];

/// How a VMM carries a conversion out.
type Convert = fn(&GuestMemory, Conversion, &mut Machine) -> Result<(), Errno>;

/// What KVM and the host know of a page.
#[derive(Clone, Copy, Debug)]
struct Page {
    attributes: PageState,
    /// Whether its shared and its private memory hold something.
    shared: bool,
    private: bool,
}

/// The host as one vCPU's thread reaches it.
struct Machine {
    pages: Arc<Mutex<[Page; FRAMES]>>,
    /// One effect in so many fails; 0 for none.
    fails_one_in: u32,
}

impl Machine {
    fn new(fails_one_in: u32) -> Self {
        let page = Page { attributes: Shared, shared: true, private: false };
        Self { pages: Arc::new(Mutex::new([page; FRAMES])), fails_one_in }
    }

    fn share(&self) -> Self {
        Self { pages: Arc::clone(&self.pages), ..*self }
    }

    fn fails(&self) -> bool {
        self.fails_one_in != 0 && thread_rng().gen_range(0..self.fails_one_in) == 0
    }

    /// What a vCPU was told has happened to the pages that no other vCPU asks for.
    fn check(&self, conversion: Conversion, is_of_others: impl Fn(usize) -> bool) {
        let pages = self.pages.lock().unwrap();
        for frame in frames(conversion.range).filter(|frame| !is_of_others(*frame)) {
            assert_eq!(pages[frame].attributes, conversion.to, "frame {frame} is not what its vCPU was told");
        }
    }

    /// The guest writes to each page of a range, wherever that goes.
    fn touch(&self, range: PageRange) {
        for frame in frames(range) {
            let page = &mut self.pages.lock().unwrap()[frame];
            match page.attributes {
                Private => page.private = true,
                Shared => page.shared = true,
            }
        }
    }
}

impl Host for Machine {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        if self.fails() {
            return Err(Errno::ENOMEM);
        }
        match *action {
            // KVM changes a range under one lock.
            Action::SetAttributes { range, to } => {
                let mut pages = self.pages.lock().unwrap();
                pages[frames(range)].iter_mut().for_each(|page| page.attributes = to);
            }
            Action::Discard { range, backing } => {
                for frame in frames(range) {
                    let page = &mut self.pages.lock().unwrap()[frame];
                    let in_use = if page.attributes == Private { Backing::Private } else { Backing::Shared };
                    assert_ne!(backing, in_use, "a discard of memory in use, frame {frame}");
                    match backing {
                        Backing::Shared => page.shared = false,
                        Backing::Private => page.private = false,
                    }
                }
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        Ok(())
    }

    fn before_conversion(&mut self, _: Conversion) -> Result<(), Errno> {
        thread::yield_now();
        if self.fails() { Err(Errno::EBUSY) } else { Ok(()) }
    }

    fn after_conversion(&mut self, _: Conversion) -> Result<(), Errno> {
        thread::yield_now();
        if self.fails() { Err(Errno::ENOSPC) } else { Ok(()) }
    }
}

fn frames(range: PageRange) -> std::ops::Range<usize> {
    usize::try_from(range.gfn().0).unwrap()..usize::try_from(range.end().0).unwrap()
}

fn range(gfn: u64, pages: u64) -> PageRange {
    PageRange::new(Gfn(gfn), pages).unwrap()
}

/// Converts as a VMM does with an exit.
fn convert(memory: &GuestMemory, conversion: Conversion, host: &mut Machine) -> Result<(), Errno> {
    memory.convert(conversion, host, &mut ())
}

/// Runs vCPUs to the end of their scripts, and compares what is known of the pages with what they are.
fn run(vcpus: usize, options: MemoryOptions, fails_one_in: u32, convert: Convert) {
    // Two slots, which meet in the middle.
    let slots = [range(0, 3), range(3, 3)].map(|range| MemorySlot { range, has_private: true });
    let memory = Arc::new(GuestMemory::with_options(slots, options).unwrap());
    let machine = Machine::new(fails_one_in);
    let scripts: Vec<Script> = SCRIPTS.into_iter().take(vcpus).collect();
    let threads = scripts.iter().enumerate().map(|(me, script)| {
        let script = *script;
        let others = scripts.iter().enumerate().filter(|(other, _)| *other != me);
        let others: Vec<_> = others
            .flat_map(|(_, theirs)| *theirs)
            .map(|(gfn, pages, _)| frames(range(*gfn, *pages)))
            .collect();
        let (memory, mut host) = (Arc::clone(&memory), machine.share());
        thread::spawn(move || {
            for (gfn, pages, to) in script {
                let conversion = Conversion { range: range(*gfn, *pages), to: *to };
                let converted = convert(&memory, conversion, &mut host);
                assert!(converted.is_ok() || host.fails_one_in != 0, "{converted:?}");
                if converted.is_ok() {
                    host.check(conversion, |frame| others.iter().any(|range| range.contains(&frame)));
                }
                host.touch(conversion.range);
            }
        })
    });
    // All are started before the first is waited for.
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    agree(&memory, &machine);
    if fails_one_in == 0 && options.reclaim == Reclaim::AtOnce {
        assert_eq!(memory.idle_pages(), 0, "all was given back");
    }
}

/// What is known of each page is so, and no page has memory that nobody knows of.
fn agree(memory: &GuestMemory, machine: &Machine) {
    let pages = machine.pages.lock().unwrap();
    for (frame, page) in (0..).zip(pages.iter()) {
        let info: PageInfo = memory.page(Gfn(frame)).unwrap();
        assert!(!info.is_certain || info.state == page.attributes, "frame {frame}: {info:?} {page:?}");
        assert!(
            info.is_certain || machine.fails_one_in != 0,
            "frame {frame}: nothing failed, and it is not sure"
        );
        assert!(info.has_shared || !page.shared, "frame {frame}: shared memory nobody knows of");
        assert!(info.has_private || !page.private, "frame {frame}: private memory nobody knows of");
    }
}

const AT_ONCE: MemoryOptions = MemoryOptions { reclaim: Reclaim::AtOnce, prefault: false };
const LAZILY: MemoryOptions = MemoryOptions { reclaim: Reclaim::Lazily { budget_pages: 2 }, prefault: false };

#[test]
fn two_vcpus_agree_with_the_host_whatever_the_schedule() {
    shuttle::check_random(|| run(2, AT_ONCE, 0, convert), 5_000);
    shuttle::check_pct(|| run(2, AT_ONCE, 0, convert), 5_000, 4);
}

#[test]
fn three_vcpus_agree_with_the_host_where_any_effect_may_fail() {
    shuttle::check_random(|| run(3, AT_ONCE, 5, convert), 5_000);
    shuttle::check_pct(|| run(3, AT_ONCE, 5, convert), 5_000, 5);
}

#[test]
fn memory_that_is_given_back_late_is_never_in_use() {
    shuttle::check_random(|| run(3, LAZILY, 0, convert), 5_000);
    shuttle::check_pct(|| run(3, LAZILY, 7, convert), 5_000, 5);
}

#[test]
fn a_conversion_that_is_given_up_half_way_leaves_its_pages_to_the_others() {
    let give_up = |memory: &GuestMemory, conversion: Conversion, host: &mut Machine| {
        if let Some(mut converting) = memory.try_begin(conversion) {
            let mut last = Ok(());
            for _ in 0..thread_rng().gen_range(0..4) {
                let Some(effect) = converting.next_effect(last) else { break };
                last = effect.carry_out(host);
            }
        }
        convert(memory, conversion, host)
    };
    shuttle::check_random(move || run(3, AT_ONCE, 0, give_up), 5_000);
}

/// The bug: pages are reserved while it is planned what to do with them, and not while it is done.
#[test]
#[should_panic(expected = "frame ")]
fn effects_without_a_reservation_discard_memory_in_use() {
    let unreserved = |memory: &GuestMemory, conversion: Conversion, host: &mut Machine| {
        let mut converting = memory.begin(conversion);
        let effects: Vec<Effect> = std::iter::from_fn(|| converting.next_effect(Ok(()))).collect();
        drop(converting);
        effects.iter().try_for_each(|effect| effect.carry_out(host))
    };
    // Always the same schedules, so that it is always found.
    let scheduler = PctScheduler::new_from_seed(1, 4, 5_000);
    Runner::new(scheduler, Config::new()).run(move || run(2, AT_ONCE, 0, unreserved));
}

/// The bug: a thread that holds pages asks for others.
#[test]
#[should_panic(expected = "deadlock")]
fn a_thread_that_begins_a_second_conversion_within_one_waits_for_ever() {
    let nested = |memory: &GuestMemory, conversion: Conversion, host: &mut Machine| {
        let held = memory.begin(conversion);
        convert(memory, Conversion { range: range(0, 6), ..conversion }, host)?;
        held.finish()
    };
    shuttle::check_random(move || run(2, AT_ONCE, 0, nested), 10);
}
