//! The way of an exit through our half allocates nothing.

#[path = "../benches/counting_unsafe.rs"]
mod counting_unsafe;

use counting_unsafe::allocations;
use exeunt::Policy;
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt_abi::kvm::run::RunPage;
use exeunt_abi::{Errno, Gfn, Gpa, Kernel};
use exeunt_proto::conversion::{Conversion, PageRange, PageState};
use exeunt_proto::exit::{self, Exit, Hypercall, Io, MemoryFault, SnpReqCerts};
use exeunt_proto::host::{Action, Host};

struct NoHost;

impl Host for NoHost {
    fn apply(&mut self, _: &Action<'_>) -> Result<(), Errno> {
        Ok(())
    }
}

#[test]
fn no_exit_with_an_answer_allocates() {
    let range = PageRange::new(Gfn(0), 4096).unwrap();
    let memory = GuestMemory::new([MemorySlot { range, has_private: true }]).unwrap();
    let mut policy = Policy::new(memory);
    policy.memory_faults = exeunt::policy::FaultPolicy::Convert;
    let fault =
        MemoryFault { gpa: Gpa(0x5000), size: 0x1000, private: true, unknown_flags: 0, poisoned: false };
    let exits = [
        Exit::Hypercall(Hypercall { nr: 12, args: [0x10_0000, 16, 0x10, 0, 0, 0], flags: 1 }),
        Exit::Hypercall(Hypercall { nr: 12, args: [1, 0, 0x20, 0, 0, 0], flags: 1 }),
        Exit::Hypercall(Hypercall { nr: 7, args: [0; 6], flags: 1 }),
        Exit::MemoryFault(fault),
        Exit::SnpReqCerts(SnpReqCerts { gpa: Gpa(0x8000), pages: 4 }),
        Exit::Io(Io { is_out: true, size: 1, port: 0x3f8, count: 1, start: 0 }),
        Exit::Again(Errno::EINTR),
    ];
    let kernel = Kernel::default();
    let mut page = RunPage::zeroed();
    let mut port_data = [0; 4096];
    for exit in &exits {
        let entered = exit::encode(exit, kernel, &mut page);
        let before = allocations();
        let decoded = exit::decode(entered, &page, kernel).unwrap();
        let plan = policy.plan(&decoded).unwrap();
        let answer = plan.carry_out(&mut NoHost, &mut port_data);
        let _ = answer.encode(kernel, &mut page);
        assert_eq!(allocations() - before, 0, "{exit:?}");
    }
    let before = allocations();
    drop(Box::new(7));
    assert_eq!(allocations() - before, 1, "the counter counts");
}

/// How many allocations these conversions cost.
fn cost_of(memory: &GuestMemory, conversions: impl IntoIterator<Item = Conversion>) -> u64 {
    let before = allocations();
    for conversion in conversions {
        memory.convert(conversion, &mut NoHost, &mut ()).unwrap();
    }
    allocations() - before
}

#[test]
fn conversions_to_and_fro_allocate_nothing_and_new_runs_little() {
    let range = |gfn, pages| PageRange::new(Gfn(gfn), pages).unwrap();
    let slot = MemorySlot { range: range(0, 1 << 18), has_private: true };
    let memory = GuestMemory::new([slot]).unwrap();
    let (private, shared) = (PageState::Private, PageState::Shared);
    let conversion = |gfn, pages, to| Conversion { range: range(gfn, pages), to };
    // The first one makes the map's first node.
    cost_of(&memory, [conversion(0x100, 16, private)]);
    let to_and_fro = (0..1000).flat_map(|_| [shared, private]).map(|to| conversion(0x100, 16, to));
    assert_eq!(cost_of(&memory, to_and_fro), 0);
    let no_ops = (0..1000).map(|_| conversion(0x100, 16, private));
    assert_eq!(cost_of(&memory, no_ops), 0);
    // Every second page: each is a run, and makes another of what is behind it.
    let scattered = (0..10_000).map(|page| conversion(0x200 + 2 * page, 1, private));
    let cost = cost_of(&memory, scattered);
    assert!(memory.run_count() > 20_000 && cost < 5000, "{cost} allocations, {} runs", memory.run_count());
}
