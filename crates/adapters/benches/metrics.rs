//! Question: what does the leaf add to one exit, and what do metrics add to that?
//!
//! Unit: ns per exit, best of 300 runs, which are short because the machine has other things to do; allocations per
//! exit, which must be 0. Command: `cargo bench -p exeunt-adapters --bench metrics`.

#[path = "../../check/benches/counting_unsafe.rs"]
mod counting_unsafe;

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Instant;

use counting_unsafe::allocations;
use exeunt::Policy;
use exeunt::layer::trace::Observer;
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt_abi::kvm::run::{ExitReason, RunPage};
use exeunt_abi::{Errno, Gfn, Kernel};
use exeunt_adapters::metrics::Metrics;
use exeunt_adapters::tracing::Tracing;
use exeunt_adapters::{Leaf, Live, Served};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::{self, Exit, Hypercall};
use exeunt_proto::host::{Action, Host};

const RUNS: u32 = 300;
const EXITS: u32 = 10_000;

/// A host that has nothing to do.
struct NoHost;

impl Host for NoHost {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        black_box(action);
        Ok(())
    }
}

/// A page that is not shared with a kernel.
struct Still(RunPage);

impl Live for Still {
    fn reason(&self) -> ExitReason {
        self.0.reason()
    }

    fn take(&self, page: &mut RunPage) {
        page.clone_from(&self.0);
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0.set_bytes(offset, bytes);
    }

    fn hold(&mut self) {}

    fn release(&mut self) {}
}

/// The best run, in ns per round.
fn best_ns(mut round: impl FnMut()) -> f64 {
    let mut run = || {
        let start = Instant::now();
        (0..EXITS).for_each(|_| round());
        start.elapsed().as_secs_f64() * 1e9 / f64::from(EXITS)
    };
    run();
    let before = allocations();
    let best = (0..RUNS).map(|_| run()).fold(f64::INFINITY, f64::min);
    assert_eq!(allocations() - before, 0, "allocations in the way of an exit");
    best
}

/// Pages that become private and shared by turns, with an attribute change and a discard each; or that are private
/// already, which is no effect at all.
fn convert_ns(attributes: [u64; 2], observer: impl Observer) -> f64 {
    let slot = MemorySlot { range: PageRange::new(Gfn(0), 4096).expect("a range"), has_private: true };
    let policy = Policy::new(GuestMemory::new([slot]).expect("one slot"));
    let mut leaf = Leaf::new(Kernel::default(), NoHost).observed(observer);
    let mut live = attributes.map(|attributes| {
        let mut page = RunPage::zeroed();
        let call = Hypercall { nr: 12, args: [0x10_0000, 16, attributes, 0, 0, 0], flags: 1 };
        exit::encode(&Exit::Hypercall(call), Kernel::default(), &mut page).expect("an exit");
        Still(page)
    });
    let mut turn = 0;
    best_ns(|| {
        turn ^= 1;
        let served = leaf.serve(Ok(()), black_box(&mut live[turn]), &policy);
        assert_eq!(served, Served::Served);
    })
}

/// An exit that the leaf leaves to the VMM.
fn not_ours_ns() -> f64 {
    let policy = Policy::default();
    let mut leaf = Leaf::new(Kernel::default(), NoHost);
    let mut page = RunPage::zeroed();
    page.exit_reason = ExitReason::IO.0;
    let mut live = Still(page);
    best_ns(|| assert_eq!(leaf.serve(Ok(()), black_box(&mut live), &policy), Served::NotOurs))
}

fn main() {
    println!("leaf/not_ours {:.1} ns/exit", not_ours_ns());
    let sampled = Metrics::timing_one_in(NonZeroU32::new(16).expect("not 0"));
    for (name, attributes) in [("convert", [0x10, 0]), ("no-op", [0x10, 0x10])] {
        let plain = convert_ns(attributes, ());
        println!("leaf/{name} {plain:.1} ns/exit");
        let more = |observer: &str, ns: f64| {
            println!("leaf/{name}+{observer} {ns:.1} ns/exit, {:.1} more", ns - plain);
        };
        more("metrics", convert_ns(attributes, Metrics::new().vcpu()));
        more("metrics, one in 16 timed", convert_ns(attributes, sampled.vcpu()));
        more("tracing without a subscriber", convert_ns(attributes, Tracing::new()));
    }
    let clock = best_ns(|| {
        black_box(Instant::now());
    });
    println!("clock {clock:.1} ns/reading, of which a timed exit takes two");
}
