//! Question: what do metrics add to one exit?
//!
//! Unit: ns per exit, best of 5 runs, with and without. Command: `cargo bench -p exeunt-adapters --bench metrics`.

use std::hint::black_box;
use std::time::Instant;

use exeunt::Policy;
use exeunt::layer::trace::Observer;
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt_abi::kvm::run::{ExitReason, RunPage};
use exeunt_abi::{Errno, Gfn, Kernel};
use exeunt_adapters::metrics::Metrics;
use exeunt_adapters::{Leaf, Live, Served};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::{self, Exit, Hypercall};
use exeunt_proto::host::{Action, Host};

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

fn best_ns(observer: impl Observer) -> f64 {
    const EXITS: u32 = 1_000_000;
    let slot = MemorySlot { range: PageRange::new(Gfn(0), 4096).expect("a range"), has_private: true };
    let policy = Policy::new(GuestMemory::new([slot]).expect("one slot"));
    let mut leaf = Leaf::new(Kernel::default(), NoHost).observed(observer);
    let mut live = Still(RunPage::zeroed());
    let call = Hypercall { nr: 12, args: [0x10_0000, 16, 0x10, 0, 0, 0], flags: 1 };
    exit::encode(&Exit::Hypercall(call), Kernel::default(), &mut live.0).expect("an exit");
    let mut run = || {
        let start = Instant::now();
        for _ in 0..EXITS {
            assert_eq!(leaf.serve(Ok(()), black_box(&mut live), &policy), Served::Served);
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(EXITS)
    };
    (0..5).map(|_| run()).fold(f64::INFINITY, f64::min)
}

fn main() {
    let metrics = Metrics::new();
    let (without, with) = (best_ns(()), best_ns(metrics.vcpu()));
    let clock = {
        let start = Instant::now();
        for _ in 0..1_000_000 {
            black_box(Instant::now());
        }
        start.elapsed().as_secs_f64() * 1e3
    };
    println!("leaf/map_gpa_range {without:.1} ns/exit");
    println!("leaf/map_gpa_range+metrics {with:.1} ns/exit, {:.1} more", with - without);
    println!("clock {clock:.1} ns/reading, of which an exit takes two");
}
