//! Metrics and events: a VM's exits counted and timed, then printed as Prometheus text.
//!
//! `cargo run -p exeunt-adapters --example observe --features prometheus,tracing`

use exeunt::Policy;
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt_abi::kvm::run::{ExitReason, RunPage};
use exeunt_abi::{Errno, Gfn, Kernel};
use exeunt_adapters::metrics::Metrics;
use exeunt_adapters::tracing::Tracing;
use exeunt_adapters::{Leaf, Live, Served};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::{self, Exit, Hypercall};
use exeunt_proto::host::{Action, Host};

/// A page that this program fills by itself, in the place of a mapped one.
struct Page(RunPage);

impl Live for Page {
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

/// A host whose private memory cannot be given back.
struct Full;

impl Host for Full {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        if matches!(action, Action::Discard { .. }) { Err(Errno::ENOMEM) } else { Ok(()) }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let range = PageRange::new(Gfn(0), 0x1000).ok_or("no memory")?;
    let policy = Policy::new(GuestMemory::new([MemorySlot { range, has_private: true }])?);
    let metrics = Metrics::new();
    // One observer for each vCPU. What `Tracing` says goes to whichever subscriber the program has.
    let mut leaf = Leaf::new(Kernel::default(), Full).observed((metrics.vcpu(), Tracing::new()));
    let mut page = Page(RunPage::zeroed());
    for gpa in [0, 0x1000, 0x2000] {
        let call = Hypercall { nr: 12, args: [gpa, 1, 0x10, 0, 0, 0], flags: 1 };
        let entered = exit::encode(&Exit::Hypercall(call), Kernel::default(), &mut page.0);
        assert_eq!(leaf.serve(entered, &mut page, &policy), Served::Served);
    }
    print!("{}", metrics.render());
    Ok(())
}
